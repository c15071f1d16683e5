"""What the points of a pose are: names, tree, drawn limbs, mirror pairs, sources in other layouts.

Limbs and parents are two things: limbs are ordered and drawn, and may close cycles (hips, lips);
parents are a tree, for bones and graphs. Left and right are the person's own.
"""

import collections
import dataclasses
import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Int32

from jaxmg import errors

Pairs = tuple[tuple[int, int], ...]

_FIELDS = ("name", "joints", "parents", "limbs", "mirror_pairs")  # of a user's file
_MOST = 1000  # joints or pairs in it


SKELETONS: dict[str, "Skeleton"] = {}  # ours by their names, made at the end of this module


@dataclasses.dataclass(frozen=True)
class Skeleton:
  """A layout of V joints, hashable, and checked when it is made.

  Attributes:
    name: the layout's name.
    joints: V distinct names.
    parents: the parent of each joint; the root is its own parent.
    limbs: E drawn limbs (start, end), in the order of their channels.
    mirror_pairs: joints that change places when left and right do; the others stay.
    sources: (layout, V indices into it) for every larger layout that this one can be taken from.
    limb_mirror_pairs: limbs that change places. None: follows from `mirror_pairs`, which must then
      map limbs to limbs, in either direction; given: used as declared.

  Raises ValueError, which lists everything that is wrong with the definition.
  """

  name: str
  joints: tuple[str, ...]
  parents: tuple[int, ...]
  limbs: Pairs
  mirror_pairs: Pairs
  sources: tuple[tuple[str, tuple[int, ...]], ...] = ()
  limb_mirror_pairs: Pairs | None = None

  def __post_init__(self):
    for field in ("joints", "parents", "limbs", "mirror_pairs", "sources", "limb_mirror_pairs"):
      object.__setattr__(self, field, _as_tuples(getattr(self, field)))
    if problems := list(self._problems()):
      raise ValueError("\n  ".join([f"skeleton {self.name!r} is not valid:", *problems]))

  def __str__(self) -> str:
    return self.name

  @property
  def num_joints(self) -> int:
    return len(self.joints)

  @property
  def root(self) -> int:
    """The joint that is its own parent."""
    return next(v for v, parent in enumerate(self.parents) if v == parent)

  @property
  def edges(self) -> Pairs:
    """The V - 1 edges (child, parent) of the tree."""
    return tuple((v, parent) for v, parent in enumerate(self.parents) if v != parent)

  @property
  def mirror(self) -> Int32[np.ndarray, " v"]:
    """The permutation of joints when left and right change places: `pose[..., mirror, :]`."""
    return _permutation(self.num_joints, self.mirror_pairs)

  @property
  def limb_mirror(self) -> Int32[np.ndarray, " e"]:
    """The permutation of limbs when left and right change places."""
    if self.limb_mirror_pairs is not None:
      return _permutation(len(self.limbs), self.limb_mirror_pairs)
    index = {frozenset(limb): e for e, limb in enumerate(self.limbs)}
    mirror = self.mirror
    return np.array([index[frozenset(mirror[[a, b]])] for a, b in self.limbs], np.int32)

  def indices_in(self, layout: "str | Skeleton") -> Int32[np.ndarray, " v"]:
    """The indices of these joints in `layout`: `pose_in_layout[..., indices, :]` is a pose in ours.

    Raises ValueError where this layout cannot be taken from `layout`.
    """
    layout = str(layout)
    sources = {self.name: tuple(range(self.num_joints)), **dict(self.sources)}
    if layout not in sources:
      raise ValueError(
        f"source of skeleton {self.name}: expected {' or '.join(sources)}, got {layout!r}"
      )
    return np.array(sources[layout], np.int32)

  def _problems(self) -> Iterator[str]:
    num_joints, num_limbs = len(self.joints), len(self.limbs)
    if not self.joints:
      yield "it has no joints"
    for joint in _repeated(self.joints):
      yield f"joint {joint!r} is named twice"

    if len(self.parents) != num_joints:
      yield f"parents: expected one for each of {num_joints} joints, got {len(self.parents)}"
    elif not _inside(self.parents, num_joints):
      yield f"parents: expected indices in [0, {num_joints}), got {self.parents}"
    else:
      roots = [v for v, parent in enumerate(self.parents) if v == parent]
      if len(roots) != 1:
        yield f"parents: expected one root (a joint that is its own parent), got {roots}"
      ancestors = np.arange(num_joints)
      for _ in range(num_joints):
        ancestors = np.array(self.parents)[ancestors]
      if cyclic := sorted(set(ancestors.tolist()) - set(roots)):
        yield f"parents: expected a tree, got a cycle through {cyclic}"

    for limb in self.limbs:
      if not _inside(limb, num_joints) or limb[0] == limb[1]:
        yield f"limb {limb}: expected two joints in [0, {num_joints})"
    for limb in _repeated(tuple(sorted(limb)) for limb in self.limbs):
      yield f"limb {limb} is drawn twice"

    faults = list(_pair_problems("mirror_pairs", self.mirror_pairs, num_joints))
    yield from faults
    if self.limb_mirror_pairs is not None:
      yield from _pair_problems("limb_mirror_pairs", self.limb_mirror_pairs, num_limbs)
    elif not faults:
      limbs = {frozenset(limb) for limb in self.limbs}
      swap = dict(enumerate(_permutation(num_joints, self.mirror_pairs).tolist()))
      for a, b in self.limbs:
        image = (swap.get(a, a), swap.get(b, b))
        if frozenset(image) not in limbs:
          yield f"limb {(a, b)} mirrors to {image}, which is no limb"

    ours = SKELETONS.get(self.name)
    if ours is not None and (self.joints, self.parents) != (ours.joints, ours.parents):
      yield "its name is that of one of ours, which has other joints: it needs a name of its own"

    for layout in _repeated([self.name, *(layout for layout, _ in self.sources)]):
      yield f"source {layout!r} is the layout itself, or is named twice"
    for layout, indices in self.sources:
      if len(indices) != num_joints or _repeated(indices) or any(i < 0 for i in indices):
        yield f"source {layout!r}: expected {num_joints} distinct indices from 0, got {indices}"


def _as_tuples(values: Any) -> Any:
  """Lists and arrays as tuples, so that a skeleton can be hashed."""
  values = values.tolist() if isinstance(values, np.ndarray) else values
  return tuple(map(_as_tuples, values)) if isinstance(values, list | tuple) else values


def _repeated(items: Iterable) -> list:
  return [item for item, count in collections.Counter(items).items() if count > 1]


def _inside(indices: Iterable[int], size: int) -> bool:
  return all(0 <= i < size for i in indices)


def _permutation(size: int, pairs: Pairs) -> np.ndarray:
  permutation = np.arange(size, dtype=np.int32)
  for a, b in pairs:
    permutation[[a, b]] = b, a
  return permutation


def _pair_problems(field: str, pairs: Pairs, size: int) -> Iterator[str]:
  members = list(itertools.chain(*pairs))
  if not _inside(members, size):
    yield f"{field}: expected indices in [0, {size}), got {pairs}"
  for i in _repeated(members):
    yield f"{field}: expected each index in one pair of two, got {i} again"


# Below are the layouts. A joint has the same name in all 2D layouts, and its name tells its side:
# mirror pairs and sources follow from the names.

# Points of the face by number (iBUG 68, and two pupils): a run read backwards is the run mirrored.
# The ridge of the nose, 27 to 30, lies on the axis.
_FACE_RUNS = (
  range(0, 17),  # contour
  range(17, 27),  # brows
  range(31, 36),  # under the nose
  (36, 37, 38, 39, 42, 43, 44, 45),  # upper lids
  (40, 41, 46, 47),  # lower lids
  range(48, 55),  # outer lips, upper edge
  range(55, 60),  # outer lips, lower edge
  range(60, 65),  # inner lips, upper edge
  range(65, 68),  # inner lips, lower edge
  (68, 69),  # pupils
)
_FACE_MIRROR = {
  f"face_{a}": f"face_{b}" for run in _FACE_RUNS for a, b in zip(run, reversed(run), strict=True)
}


def _mirrored_name(joint: str) -> str:
  for side, other in (("left_", "right_"), ("right_", "left_")):
    if joint.startswith(side):
      return other + joint.removeprefix(side)
  return _FACE_MIRROR.get(joint, joint)


def _skeleton(
  name: str,
  joints: tuple[str, ...],
  limbs: Pairs,
  *larger: Skeleton,
  parents: dict[int, int] | None = None,
) -> Skeleton:
  """A skeleton whose names tell its mirror pairs and its indices in the `larger` ones.

  A joint's parent is the start of the first limb that ends in it, unless `parents` has another.
  """
  parents = {end: start for start, end in reversed(limbs)} | (parents or {})
  mirror = [joints.index(_mirrored_name(joint)) for joint in joints]
  return Skeleton(
    name=name,
    joints=joints,
    parents=tuple(parents.get(v, v) for v in range(len(joints))),
    limbs=limbs,
    mirror_pairs=tuple((a, b) for a, b in enumerate(mirror) if a < b),
    sources=tuple((s.name, tuple(s.joints.index(joint) for joint in joints)) for s in larger),
  )


def _along(joints: tuple[str, ...], *chains: Iterable[int]) -> Pairs:
  """The pairs of neighbours along chains of face points, which are given by number."""
  return tuple(
    (joints.index(f"face_{a}"), joints.index(f"face_{b}"))
    for chain in chains
    for a, b in itertools.pairwise(chain)
  )


_FINGERS = ("thumb", "index", "middle", "ring", "pinky")
_FINGERTIPS = tuple(f"{side}_{finger}_tip" for side in ("left", "right") for finger in _FINGERS)


def _hand(side: str) -> tuple[str, ...]:
  """The 21 points of a hand: its root, and four on each finger, outwards."""
  points = [f"{side}_hand_root"]
  for finger in _FINGERS:
    inner = ("cmc", "mcp", "ip") if finger == "thumb" else ("mcp", "pip", "dip")
    points += [f"{side}_{finger}_{point}" for point in (*inner, "tip")]
  return tuple(points)


def _fingers(*roots: int) -> Pairs:
  """The limbs of hands whose points begin at `roots`."""
  return tuple(
    limb
    for root in roots
    for finger in range(root + 1, root + 21, 4)
    for limb in itertools.pairwise((root, *range(finger, finger + 4)))
  )


# fmt: off
_BODY_25 = (
  "nose", "neck", "right_shoulder", "right_elbow", "right_wrist",
  "left_shoulder", "left_elbow", "left_wrist",
  "mid_hip", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
  "right_eye", "left_eye", "right_ear", "left_ear",
  "left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel",
)
_BODY_25_LIMBS = (
  (1, 8), (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (8, 9), (9, 10), (10, 11),
  (8, 12), (12, 13), (13, 14), (1, 0), (0, 15), (15, 17), (0, 16), (16, 18),
  (14, 19), (19, 20), (14, 21), (11, 22), (22, 23), (11, 24),
)

# OpenPose with face and hands; the limbs are those it draws.
_OPENPOSE137_JOINTS = (
  *_BODY_25, *(f"face_{point}" for point in range(70)), *_hand("left"), *_hand("right"),
)
_FACE_CONTOURS = (
  range(0, 17), range(17, 22), range(22, 27), range(27, 31), range(31, 36),
  (*range(36, 42), 36), (*range(42, 48), 42), (*range(48, 60), 48), (*range(60, 68), 60),
)
# Contours are rings and do not touch each other. The tree goes from the tip of the nose up its
# ridge to brows and eyes, and down the middle of the lips to the chin.
_FACE_TREE = (
  (30, 29, 28, 27), (27, 21, 20, 19, 18, 17), (27, 22, 23, 24, 25, 26),
  (27, 39, 38, 37, 36), (39, 40, 41), (27, 42, 43, 44, 45), (42, 47, 46),
  (30, 33, 32, 31), (33, 34, 35), (33, 51, 50, 49, 48), (51, 52, 53, 54),
  (51, 62, 61, 60), (62, 63, 64), (62, 66, 67), (66, 65), (66, 57, 58, 59), (57, 56, 55),
  (57, *range(8, -1, -1)), range(8, 17),
)
_PUPILS = ((39, 68), (42, 69))  # their edges of the tree
_OPENPOSE137 = _skeleton(
  "openpose137", _OPENPOSE137_JOINTS,
  (*_BODY_25_LIMBS, *_along(_OPENPOSE137_JOINTS, *_FACE_CONTOURS), *_fingers(95, 116)),
  parents={
    55: 0, 95: 7, 116: 4,
    **{child: parent for parent, child in _along(_OPENPOSE137_JOINTS, *_FACE_TREE, *_PUPILS)},
  },
)

# The points of iMiGUE's csv files.
_IMIGUE35 = _skeleton(
  "imigue35", (*_BODY_25, *_FINGERTIPS),
  (*_BODY_25_LIMBS, *((7, tip) for tip in range(25, 30)), *((4, tip) for tip in range(30, 35))),
  _OPENPOSE137,
)

_IMIGUE22_JOINTS = (*_BODY_25[:8], *_BODY_25[15:19], *_FINGERTIPS)
_IMIGUE22_LIMBS = (
  (1, 0), (1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7), (0, 8), (8, 10), (0, 9), (9, 11),
  (7, 12), (7, 13), (7, 14), (7, 15), (7, 16), (4, 17), (4, 18), (4, 19), (4, 20), (4, 21),
)

# Xu et al. (MiGA 2025) add 19 points of the face to the 22 joints. Which ones is not public: these,
# and their limbs, are our reading. Nose and face_30 are one point, found twice: not drawn.
_IMIGUE41_JOINTS = (
  *_IMIGUE22_JOINTS, "face_17", "face_19", "face_21", "face_22", "face_24", "face_26",
  "face_30", "face_33", "face_36", "face_39", "face_42", "face_45",
  "face_48", "face_51", "face_54", "face_57", "face_62", "face_66", "face_8",
)
_IMIGUE41_FACE = _along(
  _IMIGUE41_JOINTS,
  (30, 39, 36), (30, 42, 45), (39, 21, 19, 17), (42, 22, 24, 26), (30, 33, 51, 48), (51, 54),
  (51, 62, 66, 57, 8), (48, 57, 54),
)
_IMIGUE41 = _skeleton(
  "imigue41", _IMIGUE41_JOINTS, (*_IMIGUE22_LIMBS, *_IMIGUE41_FACE), _OPENPOSE137, parents={28: 0}
)

# The 36 points of MM-Gesture, the MiGA challenge's winner of 2025 (arXiv 2507.08344), in its order.
# Tree and limbs are our reading. Wrist and root of a hand are one point, found twice: not drawn.
_IMIGUE36_JOINTS = (
  *_BODY_25[:8], *_BODY_25[15:19], "face_2", "face_4", "face_8", "face_12", "face_14", "face_19",
  "face_24", "face_27", "face_48", "face_51", "face_54", "face_57",
  "left_hand_root", *_FINGERTIPS[:5], "right_hand_root", *_FINGERTIPS[5:],
)
_IMIGUE36_FACE = _along(
  _IMIGUE36_JOINTS, (27, 19), (27, 24), (51, 48), (51, 54), (51, 57, 8), (48, 57, 54),
  (8, 4, 2), (8, 12, 14),
)
_IMIGUE36 = _skeleton(
  "imigue36", _IMIGUE36_JOINTS,
  (
    *_IMIGUE22_LIMBS[:11], (0, 19), (0, 21), *_IMIGUE36_FACE,
    *((24, tip) for tip in range(25, 30)), *((30, tip) for tip in range(31, 36)),
  ),
  _OPENPOSE137,
  parents={24: 7, 30: 4},
)

_IMIGUE22 = _skeleton(
  "imigue22", _IMIGUE22_JOINTS, _IMIGUE22_LIMBS, _IMIGUE35, _IMIGUE36, _IMIGUE41, _OPENPOSE137
)

# The layout of VUT-HFUT/MiGA2023_Track1, for weights trained with it. Joints and tree are those of
# imigue22; the limbs count body joints from 1 and so join wrong points; the mirror pairs are those
# of COCO, used for limbs too, and 19 of 22 limbs mirror to no limb.
_LEGACY_PAIRS = tuple((v, v + 1) for v in range(1, 20, 2))
_IMIGUE22_LEGACY = dataclasses.replace(
  _IMIGUE22,
  name="imigue22_legacy",
  limbs=(
    (0, 1), (2, 1), (2, 3), (3, 4), (4, 5), (2, 6), (6, 7), (7, 8), (1, 9), (9, 11), (1, 10),
    (10, 11), (5, 12), (5, 13), (5, 14), (5, 15), (5, 16), (8, 17), (8, 18), (8, 19), (8, 20),
    (8, 21),
  ),
  mirror_pairs=_LEGACY_PAIRS,
  limb_mirror_pairs=_LEGACY_PAIRS,
  sources=(("imigue22", tuple(range(22))), *_IMIGUE22.sources),
)

_OPENPOSE25 = _skeleton("openpose25", _BODY_25, _BODY_25_LIMBS, _IMIGUE35, _OPENPOSE137)

# OpenPose draws the hips from the neck; the tree is that of 2s-AGCN's Kinetics weights, which hang
# them on the shoulders.
_OPENPOSE18 = _skeleton(
  "openpose18", (*_BODY_25[:8], *_BODY_25[9:19]),
  (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12),
    (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
  ),
  _OPENPOSE25, _IMIGUE35, _OPENPOSE137,
  parents={8: 2, 11: 5},
)

_COCO17_JOINTS = (
  "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
  "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip",
  "left_knee", "right_knee", "left_ankle", "right_ankle",
)
# In the order of the code that drew the goldens; of published weights: pretrained.posec3d.
_COCO17_LIMBS = (
  (0, 1), (0, 2), (1, 3), (2, 4), (0, 5), (5, 7), (7, 9), (0, 6), (6, 8), (8, 10), (5, 11),
  (11, 13), (13, 15), (6, 12), (12, 14), (14, 16), (11, 12),
)

# COCO-WholeBody (Jin et al., ECCV 2020), in the order of its annotations
# (github.com/jin-s13/COCO-WholeBody; mmpose's configs/_base_/datasets/coco_wholebody.py names each
# point): body, feet, face, left hand, right hand. OpenPose has all of them. Tree and limbs are as
# there.
_WHOLEBODY133_JOINTS = (
  *_COCO17_JOINTS, *_BODY_25[19:], *(f"face_{point}" for point in range(68)),
  *_hand("left"), *_hand("right"),
)
_WHOLEBODY133 = _skeleton(
  "wholebody133", _WHOLEBODY133_JOINTS,
  (
    *_COCO17_LIMBS, (15, 17), (17, 18), (15, 19), (16, 20), (20, 21), (16, 22),
    *_along(_WHOLEBODY133_JOINTS, *_FACE_CONTOURS), *_fingers(91, 112),
  ),
  _OPENPOSE137,
  parents={
    53: 0, 91: 9, 112: 10,
    **{child: parent for parent, child in _along(_WHOLEBODY133_JOINTS, *_FACE_TREE)},
  },
)

# MediaPipe Pose (BlazePose), in the order of its PoseLandmark; the limbs are its POSE_CONNECTIONS
# (mediapipe/python/solutions/pose.py and pose_connections.py). The tree joins them at the nose.
_MEDIAPIPE33 = _skeleton(
  "mediapipe33",
  (
    "nose", "left_eye_inner", "left_eye", "left_eye_outer",
    "right_eye_inner", "right_eye", "right_eye_outer", "left_ear", "right_ear",
    "left_mouth", "right_mouth", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow",
    "left_wrist", "right_wrist", "left_pinky", "right_pinky", "left_index", "right_index",
    "left_thumb", "right_thumb", "left_hip", "right_hip", "left_knee", "right_knee",
    "left_ankle", "right_ankle", "left_heel", "right_heel", "left_foot_index", "right_foot_index",
  ),
  (
    (0, 1), (1, 2), (2, 3), (3, 7), (0, 4), (4, 5), (5, 6), (6, 8), (9, 10), (11, 12),
    (11, 13), (13, 15), (15, 17), (15, 19), (15, 21), (17, 19), (12, 14), (14, 16), (16, 18),
    (16, 20), (16, 22), (18, 20), (11, 23), (12, 24), (23, 24), (23, 25), (24, 26), (25, 27),
    (26, 28), (27, 29), (28, 30), (29, 31), (30, 32), (27, 31), (28, 32),
  ),
  parents={9: 0, 10: 0, 11: 0, 12: 0},
)

_COCO17 = _skeleton(
  "coco17", _COCO17_JOINTS, _COCO17_LIMBS,
  _OPENPOSE18, _OPENPOSE25, _IMIGUE35, _OPENPOSE137, _WHOLEBODY133, _MEDIAPIPE33,
)

# The 17 of Human3.6M's 32 joints that move, in their order there, which is that of VideoPose3D
# (common/h36m_dataset.py) and of mmpose's configs/_base_/datasets/h36m.py. Its neck lies between
# shoulders and chin (detectors trained on it put the nose there), its head is the top of it: the
# names are none of COCO's or OpenPose's, and no layout is taken from it.
_H36M17 = _skeleton(
  "h36m17",
  (
    "pelvis", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
    "spine", "thorax", "neck_nose", "head",
    "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist",
  ),
  (
    (0, 1), (1, 2), (2, 3), (0, 4), (4, 5), (5, 6), (0, 7), (7, 8), (8, 9), (9, 10),
    (8, 11), (11, 12), (12, 13), (8, 14), (14, 15), (15, 16),
  ),
)

# Kinect v1, in the order of UTD-MHAD.
_KINECT20 = _skeleton(
  "kinect20",
  (
    "head", "shoulder_center", "spine", "hip_center",
    "left_shoulder", "left_elbow", "left_wrist", "left_hand",
    "right_shoulder", "right_elbow", "right_wrist", "right_hand",
    "left_hip", "left_knee", "left_ankle", "left_foot",
    "right_hip", "right_knee", "right_ankle", "right_foot",
  ),
  (
    (3, 2), (2, 1), (1, 0), (1, 4), (4, 5), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (10, 11),
    (3, 12), (12, 13), (13, 14), (14, 15), (3, 16), (16, 17), (17, 18), (18, 19),
  ),
)

# Kinect v2, in the order of its SDK, which draws these limbs; the tree is that of 2s-AGCN's NTU
# weights, which hang the tip of a hand on its thumb.
_KINECT25 = _skeleton(
  "kinect25",
  (
    "spine_base", "spine_mid", "neck", "head",
    "left_shoulder", "left_elbow", "left_wrist", "left_hand",
    "right_shoulder", "right_elbow", "right_wrist", "right_hand",
    "left_hip", "left_knee", "left_ankle", "left_foot",
    "right_hip", "right_knee", "right_ankle", "right_foot",
    "spine_shoulder", "left_hand_tip", "left_thumb", "right_hand_tip", "right_thumb",
  ),
  (
    (20, 1), (1, 0), (20, 2), (2, 3), (20, 4), (4, 5), (5, 6), (6, 7), (7, 21), (6, 22),
    (20, 8), (8, 9), (9, 10), (10, 11), (11, 23), (10, 24), (0, 12), (12, 13), (13, 14), (14, 15),
    (0, 16), (16, 17), (17, 18), (18, 19),
  ),
  parents={21: 22, 22: 7, 23: 24, 24: 11},
)
# fmt: on

# Layouts of joints in space, which are perhaps seen in a picture; of the others there are pictures.
IN_SPACE = ("kinect20", "kinect25", "h36m17", "mediapipe33")

SKELETONS |= {
  skeleton.name: skeleton
  for skeleton in (
    _COCO17,
    _OPENPOSE18,
    _OPENPOSE25,
    _OPENPOSE137,
    _IMIGUE35,
    _IMIGUE22,
    _IMIGUE22_LEGACY,
    _IMIGUE36,
    _IMIGUE41,
    _KINECT20,
    _KINECT25,
    _WHOLEBODY133,
    _MEDIAPIPE33,
    _H36M17,
  )
}


def get(name: str | Skeleton) -> Skeleton:
  """The skeleton called `name`; raises ValueError, with the nearest name, where there is none.

  One that a user has made is itself: wherever a layout is wanted, it may stand for a name.
  """
  if isinstance(name, Skeleton):
    return name
  if not isinstance(name, str) or name not in SKELETONS:
    got = name if isinstance(name, str) else repr(name)
    raise ValueError(errors.unknown("skeleton", SKELETONS, got))
  return SKELETONS[name]


def from_json(definition: Any) -> Skeleton:
  """A user's own layout, of the parsed JSON of its file.

      {"name": "arm3", "joints": ["shoulder", "elbow", "wrist"], "parents": [0, 0, 1],
       "limbs": [[0, 1], [1, 2]], "mirror_pairs": []}

  Raises ValueError for other fields or values, the name of one of ours, and whatever is wrong with
  the definition (see `Skeleton`).
  """
  if not isinstance(definition, dict) or definition.keys() != set(_FIELDS):
    got = ", ".join(definition) if isinstance(definition, dict) else type(definition).__name__
    raise ValueError(f"skeleton: expected {', '.join(_FIELDS)}, got {got or 'nothing'}")
  name, joints, parents, limbs, mirror_pairs = (definition[field] for field in _FIELDS)
  if not (isinstance(name, str) and re.fullmatch(r"[\w.-]{1,100}", name)):
    raise ValueError(f"name of the skeleton: expected letters, digits, '_', '.', '-', got {name!r}")
  if name in SKELETONS:
    raise ValueError(f"skeleton {name!r}: expected a name of its own, got one of ours")
  for field, values, right, expected in (
    ("joints", joints, lambda joint: isinstance(joint, str) and joint.isprintable(), "names"),
    ("parents", parents, lambda parent: type(parent) is int, "integers"),
    ("limbs", limbs, _is_pair, "pairs of integers"),
    ("mirror_pairs", mirror_pairs, _is_pair, "pairs of integers"),
  ):
    if not (_is_list(values) and len(values) <= _MOST and all(map(right, values))):
      raise ValueError(
        f"{field} of skeleton {name!r}: expected a list of {expected}, at most {_MOST}"
      )
  limbs, mirror_pairs = (tuple(map(tuple, pairs)) for pairs in (limbs, mirror_pairs))
  return Skeleton(name, tuple(joints), tuple(parents), limbs, mirror_pairs)


def to_json(skeleton: Skeleton) -> dict[str, Any]:
  """A user's own layout as `from_json` reads it; ValueError for one that it would not give back."""
  definition = {field: getattr(skeleton, field) for field in _FIELDS}
  if from_json(definition) != skeleton:
    raise ValueError(f"skeleton {skeleton}: expected no sources and no limb_mirror_pairs, got some")
  return definition


def _is_list(values: Any) -> bool:
  return isinstance(values, list | tuple)


def _is_pair(values: Any) -> bool:
  return _is_list(values) and len(values) == 2 and all(type(i) is int for i in values)
