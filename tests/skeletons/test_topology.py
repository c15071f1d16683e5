import dataclasses
import json

import numpy as np
import pytest

from jaxmg import skeletons
from jaxmg.skeletons import topology

SKELETONS = topology.SKELETONS
# A tree of four: the hub, a middle joint, and a pair.
FORK = topology.Skeleton(
  name="fork",
  joints=("hub", "tail", "left", "right"),
  parents=(0, 0, 0, 0),
  limbs=((0, 1), (0, 2), (3, 0), (2, 3)),
  mirror_pairs=((2, 3),),
  sources=(("larger", (5, 6, 0, 1)),),
)

every_skeleton = pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS.keys())
every_sound_skeleton = pytest.mark.parametrize(
  "skeleton", [s for s in SKELETONS.values() if s.limb_mirror_pairs is None], ids=lambda s: s.name
)


def limbs_without_image(skeleton):
  limbs = {frozenset(limb) for limb in skeleton.limbs}
  return [limb for limb in skeleton.limbs if frozenset(skeleton.mirror[list(limb)]) not in limbs]


def test_the_table_of_layouts_is_complete():
  sizes = {name: (s.num_joints, len(s.limbs)) for name, s in SKELETONS.items()}
  assert sizes == {
    "coco17": (17, 17),
    "openpose18": (18, 17),
    "openpose25": (25, 24),
    "openpose137": (137, 127),
    "imigue35": (35, 34),
    "imigue22": (22, 21),
    "imigue22_legacy": (22, 22),
    "imigue36": (36, 35),
    "imigue41": (41, 41),
    "kinect20": (20, 19),
    "kinect25": (25, 24),
    "wholebody133": (133, 126),
    "mediapipe33": (33, 35),
    "h36m17": (17, 16),
  }
  assert all(name == skeleton.name for name, skeleton in SKELETONS.items())


@every_skeleton
def test_a_skeleton_is_hashable_and_equal_to_its_copy(skeleton):
  assert hash(skeleton) == hash(dataclasses.replace(skeleton))
  assert dataclasses.replace(skeleton) == skeleton


@every_skeleton
def test_mirror_twice_is_identity_on_joints_and_limbs(skeleton):
  for mirror in (skeleton.mirror, skeleton.limb_mirror):
    assert mirror.dtype == np.int32
    np.testing.assert_array_equal(mirror[mirror], np.arange(len(mirror)))


@every_sound_skeleton
def test_mirror_changes_left_and_right_in_every_name(skeleton):
  for joint, image in zip(skeleton.joints, skeleton.mirror, strict=True):
    other = skeleton.joints[image]
    swapped = joint.replace("left_", "*").replace("right_", "left_").replace("*", "right_")
    assert other == swapped or (joint.startswith("face_") and other.startswith("face_"))


@every_sound_skeleton
def test_mirror_maps_limbs_to_limbs_and_the_tree_to_itself(skeleton):
  assert limbs_without_image(skeleton) == []
  for limb, image in zip(skeleton.limbs, skeleton.limb_mirror, strict=True):
    assert set(skeleton.mirror[list(limb)]) == set(skeleton.limbs[image])
  parents = np.array(skeleton.parents)
  np.testing.assert_array_equal(parents[skeleton.mirror], skeleton.mirror[parents])


@every_skeleton
def test_the_tree_reaches_every_joint_from_a_root_on_the_axis(skeleton):
  (root,) = (v for v, parent in enumerate(skeleton.parents) if v == parent)
  assert skeleton.joints[root] in {"nose", "neck", "hip_center", "spine_shoulder", "pelvis"}
  assert len(skeleton.edges) == skeleton.num_joints - 1
  assert {child for child, _ in skeleton.edges} == set(range(skeleton.num_joints)) - {root}


@every_skeleton
def test_a_source_has_the_same_joints_by_name(skeleton):
  for layout, _ in skeleton.sources:
    larger = SKELETONS[layout]
    taken = [larger.joints[i] for i in skeleton.indices_in(layout)]
    assert taken == list(skeleton.joints)


def test_sources_are_complete_and_taking_in_two_steps_is_taking_in_one():
  for skeleton in SKELETONS.values():
    for middle, _ in skeleton.sources:
      for larger, _ in SKELETONS[middle].sources:
        in_two = SKELETONS[middle].indices_in(larger)[skeleton.indices_in(middle)]
        np.testing.assert_array_equal(skeleton.indices_in(larger), in_two)


def test_imigue22_is_the_published_selection_with_its_correct_mirror():
  skeleton = skeletons.get("imigue22")
  body = [*range(8), *range(15, 19)]
  assert skeleton.indices_in("imigue35").tolist() == [*body, *range(25, 35)]
  fingertips = [99, 103, 107, 111, 115, 120, 124, 128, 132, 136]
  assert skeleton.indices_in("openpose137").tolist() == [*body, *fingertips]
  assert skeleton.mirror_pairs == (
    *((2, 5), (3, 6), (4, 7), (8, 9), (10, 11)),
    *((12, 17), (13, 18), (14, 19), (15, 20), (16, 21)),
  )
  assert [skeleton.parents[v] for v in (1, 0, 4, 7, 12, 17)] == [1, 1, 3, 6, 7, 4]


def test_the_legacy_layout_is_kept_as_broken_as_it_is():
  legacy = skeletons.get("imigue22_legacy")
  assert len(limbs_without_image(legacy)) == 19
  assert legacy.limb_mirror.tolist() == legacy.mirror.tolist()
  assert legacy.joints == skeletons.get("imigue22").joints
  undeclared = r"skeleton 'imigue22_legacy' is not valid:(\n  limb .* which is no limb){19}$"
  with pytest.raises(ValueError, match=undeclared):
    dataclasses.replace(legacy, limb_mirror_pairs=None)


def test_imigue41_adds_19_points_of_the_face():
  skeleton = skeletons.get("imigue41")
  assert skeleton.joints[:22] == skeletons.get("imigue22").joints
  points = [17, 19, 21, 22, 24, 26, 30, 33, 36, 39, 42, 45, 48, 51, 54, 57, 62, 66, 8]
  assert skeleton.indices_in("openpose137")[22:].tolist() == [25 + point for point in points]


def test_imigue36_is_the_published_selection_with_its_mirror():
  skeleton = skeletons.get("imigue36")
  assert skeleton.indices_in("openpose137").tolist() == [
    *(0, 1, 2, 3, 4, 5, 6, 7, 15, 16, 17, 18),
    *(27, 29, 33, 37, 39, 44, 49, 52, 73, 76, 79, 82),
    *(95, 99, 103, 107, 111, 115, 116, 120, 124, 128, 132, 136),
  ]
  assert skeleton.mirror_pairs == (
    *((2, 5), (3, 6), (4, 7), (8, 9), (10, 11)),
    *((12, 16), (13, 15), (17, 18), (20, 22)),  # jaw, brows, corners of the mouth
    *((24, 30), (25, 31), (26, 32), (27, 33), (28, 34), (29, 35)),
  )
  # Its fingertips hang on the hand of their side, which hangs on its wrist and is not drawn there.
  assert [skeleton.parents[v] for v in (24, 25, 30, 31)] == [7, 24, 4, 30]
  assert {(24, 25), (30, 31)} < set(skeleton.limbs)
  assert not {(7, 24), (4, 30)} & set(skeleton.limbs)


def test_the_face_mirrors_as_its_numbering_says():
  skeleton = skeletons.get("openpose137")
  for a, b in (
    (0, 16),
    (8, 8),
    (17, 26),
    (30, 30),
    (36, 45),
    (39, 42),
    (41, 46),
    (31, 35),
    (68, 69),
  ):
    assert skeleton.mirror[25 + a] == 25 + b
  for a, b in ((48, 54), (51, 51), (57, 57), (59, 55), (60, 64), (62, 62), (67, 65)):
    assert skeleton.mirror[25 + a] == 25 + b


def test_coco17_limbs_are_in_the_order_of_the_drawing_code():
  assert skeletons.get("coco17").limbs[:5] == ((0, 1), (0, 2), (1, 3), (2, 4), (0, 5))
  assert skeletons.get("coco17").limbs[-1] == (11, 12)
  left_wrist_and_ankle = skeletons.get("coco17").indices_in("openpose25")[[9, 15]]
  assert left_wrist_and_ankle.tolist() == [7, 14]


def test_coco17_is_the_beginning_of_wholebody133_and_scattered_in_mediapipe33():
  coco = skeletons.get("coco17")
  assert coco.indices_in("wholebody133").tolist() == [*range(17)]
  assert coco.indices_in("mediapipe33").tolist() == [0, 2, 5, 7, 8, *range(11, 17), *range(23, 29)]


def test_the_parts_of_wholebody133_are_where_its_annotations_have_them():
  skeleton = skeletons.get("wholebody133")
  feet = [
    f"{side}_{part}" for side in ("left", "right") for part in ("big_toe", "small_toe", "heel")
  ]
  assert skeleton.joints[17:23] == tuple(feet)
  assert skeleton.joints[23:91] == tuple(f"face_{point}" for point in range(68))
  assert [skeleton.joints[v] for v in (91, 95, 99, 111, 112, 132)] == [
    *("left_hand_root", "left_thumb_tip", "left_index_tip", "left_pinky_tip"),
    *("right_hand_root", "right_pinky_tip"),
  ]
  assert [skeleton.parents[v] for v in (53, 91, 112, 17, 22)] == [0, 9, 10, 15, 16]
  assert skeleton.mirror[[23, 39, 40]].tolist() == [39, 23, 49]  # contour, brows


def test_h36m17_has_its_right_leg_before_its_left_and_its_left_arm_before_its_right():
  skeleton = skeletons.get("h36m17")
  assert skeleton.mirror.tolist() == [0, 4, 5, 6, 1, 2, 3, 7, 8, 9, 10, 14, 15, 16, 11, 12, 13]
  assert skeleton.parents == (0, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)


def test_kinect_trees_are_those_of_the_published_graphs():
  tip, thumb, hand = (
    SKELETONS["kinect25"].joints.index(f"left_{j}") for j in ("hand_tip", "thumb", "hand")
  )
  assert SKELETONS["kinect25"].parents[tip] == thumb
  assert SKELETONS["kinect25"].parents[thumb] == hand
  assert SKELETONS["kinect20"].parents == (
    *(1, 2, 3, 3, 1, 4, 5, 6, 1, 8),
    *(9, 10, 3, 12, 13, 14, 3, 16, 17, 18),
  )


def test_indices_in_the_own_layout_are_the_identity():
  assert FORK.indices_in("fork").tolist() == [0, 1, 2, 3]
  assert FORK.indices_in("larger").tolist() == [5, 6, 0, 1]


def test_an_impossible_source_is_named_with_the_possible_ones():
  with pytest.raises(
    ValueError, match="imigue41: expected imigue41 or openpose137, got 'imigue35'"
  ):
    skeletons.get("imigue41").indices_in("imigue35")


def test_an_unknown_name_is_answered_with_the_nearest():
  with pytest.raises(ValueError, match=r"coco17 or .* got coco71 \(did you mean coco17\?\)"):
    skeletons.get("coco71")
  with pytest.raises(ValueError, match=r"got xyzzy$"):
    skeletons.get("xyzzy")


@pytest.mark.parametrize(
  ("changes", "problem"),
  [
    ({"joints": ("hub", "hub", "left", "right")}, "joint 'hub' is named twice"),
    ({"parents": (0, 0, 0)}, "parents: expected one for each of 4 joints, got 3"),
    ({"parents": (0, 0, 0, 4)}, r"parents: expected indices in \[0, 4\)"),
    ({"parents": (0, 0, 2, 0)}, r"expected one root .*, got \[0, 2\]"),
    ({"parents": (1, 2, 3, 0)}, r"expected one root .*, got \[\]"),
    ({"parents": (0, 0, 3, 2)}, r"expected a tree, got a cycle through \[2, 3\]"),
    ({"limbs": ((0, 4),)}, r"limb \(0, 4\): expected two joints in \[0, 4\)"),
    ({"limbs": ((0, 0),)}, r"limb \(0, 0\): expected two joints"),
    ({"limbs": ((0, 1), (1, 0))}, r"limb \(0, 1\) is drawn twice"),
    ({"limbs": ((0, 2),)}, r"limb \(0, 2\) mirrors to \(0, 3\), which is no limb"),
    ({"mirror_pairs": ((2, 3), (3, 1))}, "mirror_pairs: .* got 3 again"),
    ({"mirror_pairs": ((2, -1),)}, r"mirror_pairs: expected indices in \[0, 4\)"),
    ({"limb_mirror_pairs": ((0, 4),)}, r"limb_mirror_pairs: expected indices in \[0, 4\)"),
    ({"sources": (("fork", (0, 1, 2, 3)),)}, "source 'fork' is the layout itself"),
    ({"sources": (("larger", (0, 1, 1, 2)),)}, "source 'larger': expected 4 distinct indices"),
    ({"sources": (("larger", (0, 1, 2)),)}, "source 'larger': expected 4 distinct indices"),
    (
      {"joints": (), "parents": (), "limbs": (), "mirror_pairs": (), "sources": ()},
      "it has no joints",
    ),
  ],
)
def test_a_broken_definition_is_refused(changes, problem):
  with pytest.raises(ValueError, match=f"skeleton 'fork' is not valid:\n  .*{problem}"):
    dataclasses.replace(FORK, **changes)


def test_all_problems_of_a_definition_are_in_one_error():
  with pytest.raises(ValueError, match="skeleton 'bad'") as error:
    topology.Skeleton(
      name="bad",
      joints=("nose", "nose", "neck"),
      parents=(0, 1),
      limbs=((0, 7), (1, 2), (2, 1)),
      mirror_pairs=((0, 1), (1, 2)),
      sources=(("larger", (0, 1)),),
    )
  for field in ("joint 'nose'", "parents", "limb (0, 7)", "limb (1, 2)", "mirror_pairs", "source"):
    assert f"\n  {field}" in str(error.value)


# --- a user's own

ARM = {
  "name": "arm4",
  "joints": ["neck", "left", "right", "tip"],
  "parents": [0, 0, 0, 1],
  "limbs": [[0, 1], [2, 0]],
  "mirror_pairs": [[1, 2]],
}


def test_a_definition_in_json_becomes_a_skeleton_and_json_again():
  skeleton = topology.from_json(ARM)
  assert skeleton.mirror.tolist() == [0, 2, 1, 3]
  assert skeleton.limbs == ((0, 1), (2, 0))
  assert str(skeleton) == "arm4"
  assert json.loads(json.dumps(topology.to_json(skeleton))) == ARM
  assert topology.from_json(topology.to_json(skeleton)) == skeleton


@every_sound_skeleton
def test_our_layouts_pass_through_json_under_another_name(skeleton):
  own = dataclasses.replace(skeleton, name="own", sources=())
  assert topology.from_json(json.loads(json.dumps(topology.to_json(own)))) == own


def test_a_skeleton_stands_for_its_name():
  skeleton = topology.from_json(ARM)
  assert topology.get(skeleton) is skeleton
  assert skeleton.indices_in(skeleton).tolist() == [0, 1, 2, 3]
  with pytest.raises(ValueError, match=r"source of skeleton coco17: expected .*, got 'arm4'"):
    skeletons.get("coco17").indices_in(skeleton)


@pytest.mark.parametrize(
  ("definition", "problem"),
  [
    ([], "skeleton: expected name, joints, parents, limbs, mirror_pairs, got list"),
    ({}, "mirror_pairs, got nothing"),
    ({"name": "a", "joints": []}, "mirror_pairs, got name, joints"),
    (ARM | {"colour": 3}, "got name, joints, parents, limbs, mirror_pairs, colour"),
    (ARM | {"name": "coco17"}, "skeleton 'coco17': expected a name of its own, got one of ours"),
    (ARM | {"name": "../a"}, "name of the skeleton: expected letters, digits, .* got '../a'"),
    (ARM | {"name": 3}, "name of the skeleton: .* got 3"),
    (ARM | {"joints": "abcd"}, "joints of skeleton 'arm4': expected a list of names"),
    (ARM | {"joints": ["a", "b", "c", 4]}, "joints of skeleton 'arm4': expected a list of names"),
    (ARM | {"joints": ["a", "b", "c", "\n"]}, "joints of skeleton 'arm4'"),
    (ARM | {"parents": [0, 0, 0, 1.0]}, "parents of skeleton 'arm4': expected a list of integers"),
    (ARM | {"parents": [0, 0, 0, True]}, "parents of skeleton 'arm4'"),
    (
      ARM | {"limbs": [[0, 1, 2]]},
      "limbs of skeleton 'arm4': expected a list of pairs of integers",
    ),
    (ARM | {"limbs": [3]}, "limbs of skeleton 'arm4'"),
    (ARM | {"limbs": [[0, 1]] * 1001}, "limbs of skeleton 'arm4': .*, at most 1000"),
    (ARM | {"mirror_pairs": [["1", "2"]]}, "mirror_pairs of skeleton 'arm4'"),
    (ARM | {"parents": [0, 0, 0]}, "parents: expected one for each of 4 joints, got 3"),
    (ARM | {"parents": [10**400, 0, 0, 0]}, r"parents: expected indices in \[0, 4\)"),
    (ARM | {"mirror_pairs": [[1, 3]]}, r"limb \(0, 1\) mirrors to \(0, 3\), which is no limb"),
  ],
)
def test_a_definition_in_json_is_checked_like_ours(definition, problem):
  with pytest.raises(ValueError, match=problem):
    topology.from_json(definition)


def test_a_skeleton_that_json_would_not_give_back_is_not_written():
  for skeleton in (FORK, SKELETONS["coco17"]):
    with pytest.raises(ValueError, match="expected"):
      topology.to_json(skeleton)
