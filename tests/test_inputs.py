import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmg import gaussians, inputs, skeletons
from jaxmg.data import batch as batches
from jaxmg.data import readers
from jaxmg.skeletons import augment, geometry, heatmaps, sampling

GOLDEN = pathlib.Path(__file__).parent / "golden"
SIZE = 12
KINDS = ("joint", "limb")
SKELETON = skeletons.get("imigue22")
AUGMENTATION = dict(rotation=10.0, jitter=1.0, joint_dropout=0.1)
# The cut at 3 sigma is a pixel wider to the left (see heatmaps): what it leaves there is below it.
WINDOW = np.exp(-0.5 * 3**2)

# One shape in all tests: compiling takes longer than running.
SEEDS = np.arange(8)  # of the clips' keys


def fake(**options):
  shape = dict(batch_size=8, num_frames=2, num_persons=2, num_joints=22)
  return batches.fake(**shape, **options)["pose"]


fake_views = functools.partial(fake, num_views=2)


@functools.partial(jax.jit, static_argnames=("kind", "mirror", "augmented"))
def render(batch, seeds=None, *, kind="joint", mirror=False, augmented=False):
  return inputs.heatmap_inputs(
    batch["keypoints"],
    batch["frame_size"],
    skeleton=SKELETON,
    stream=kind,
    size=SIZE,
    keys=None if seeds is None else jax.vmap(jax.random.key)(seeds),
    mirror=mirror,
    **(AUGMENTATION if augmented else {}),
  )


@functools.partial(jax.jit, static_argnames=("skeleton", "kind"))
def render_views(batch, *, skeleton=SKELETON, kind="joint"):
  """Four views, mirrored ones included: R B T H W C."""
  views = inputs.heatmap_views(batch["keypoints"], batch["frame_size"], size=SIZE, mirror=True)
  draw = functools.partial(inputs.heatmap_view, skeleton=skeleton, stream=kind, size=SIZE)
  return jax.lax.map(draw, views)


def draw(points, kind):
  if kind == "joint":
    return heatmaps.render_joints(points, size=(SIZE, SIZE))
  return heatmaps.render_limbs(points, SKELETON.limbs, size=(SIZE, SIZE))


@pytest.mark.parametrize(("kind", "persons"), [("joint", 1), ("joint", 2), ("limb", 1)])
def test_an_input_leaves_undrawn_one_persons_joints(kind, persons):
  one = inputs.Heatmaps(
    SKELETON, (720, 1280), stream=kind, size=SIZE, test_size=SIZE, num_persons=persons
  )
  batch, tests = ({k: jnp.asarray(x) for k, x in batch.items()} for batch in (fake(), fake_views()))
  for part in (batch, tests):
    part["keypoints"] = part["keypoints"][..., :persons, :, :]
  keys = jax.vmap(jax.random.key)(jnp.arange(8))
  trained, views = one.train(keys, batch, True), one.views(tests, True)
  options = {"skeleton": SKELETON, "stream": kind, "size": SIZE}
  expected = inputs.heatmap_inputs(
    batch["keypoints"], batch["frame_size"], keys=keys, mirror=True, **options
  )
  pairs = [(trained, expected)]
  for i in (0, 3):  # as it is, and mirrored
    view = jax.tree.map(lambda x: x[i], views)  # noqa: B023
    pairs.append((one.view(view), inputs.heatmap_view(view, **options)))
  for found, picture in pairs:
    assert isinstance(found, gaussians.Gaussians) == ((kind, persons) == ("joint", 1))
    assert found.shape == picture.shape
    np.testing.assert_array_equal(gaussians.drawn(found), picture)
    np.testing.assert_array_equal(one.picture(found), picture.max(-1))


@pytest.mark.parametrize("kind", KINDS)
def test_without_keys_each_clip_is_drawn_in_its_own_box(kind):
  batch = fake()

  @jax.jit
  def by_hand(keypoints, frame_size):
    box = geometry.compact_box(keypoints, frame_size)
    return draw(geometry.move_into_box(keypoints, box, size=(SIZE, SIZE)), kind)

  clips = zip(batch["keypoints"], batch["frame_size"], strict=True)
  expected = np.stack([by_hand(*clip) for clip in clips])
  np.testing.assert_allclose(render(batch, kind=kind), expected, atol=1e-6)
  assert expected.max() > 0.5


def test_clip_depends_on_its_key_and_on_no_other_row():
  def augment_and_render(batch, seeds):
    return np.asarray(render(batch, seeds, mirror=True, augmented=True))

  batch = fake()
  rendered = augment_and_render(batch, SEEDS)
  turned = {name: rows[::-1] for name, rows in batch.items()}
  np.testing.assert_array_equal(augment_and_render(turned, SEEDS[::-1]), rendered[::-1])

  others, other_seeds = fake(seed=1), SEEDS + 100
  others["keypoints"][1], other_seeds[1] = batch["keypoints"][1], SEEDS[1]
  np.testing.assert_array_equal(augment_and_render(others, other_seeds)[1], rendered[1])
  assert (augment_and_render(batch, other_seeds)[0] != rendered[0]).any()


def test_training_mirrors_some_of_the_clips_and_changes_them_no_further():
  plain, drawn = (np.asarray(render(fake(), SEEDS, mirror=mirror)) for mirror in (False, True))
  mirrored = plain[..., ::-1, SKELETON.mirror]
  is_plain, is_mirrored = (
    np.abs(drawn - expected).max((1, 2, 3, 4)) <= WINDOW for expected in (plain, mirrored)
  )
  assert (is_plain ^ is_mirrored).all()
  assert is_plain.any()
  assert is_mirrored.any()


def swapped(count, pairs):
  order = list(range(count))
  for a, b in pairs:
    order[a], order[b] = b, a
  return order


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["imigue22", "imigue22_legacy"])
def test_mirrored_views_are_the_others_with_columns_and_channels_exchanged(name, kind):
  skeleton = skeletons.get(name)
  joints = swapped(22, skeleton.mirror_pairs)
  channels = joints
  if kind == "limb" and name == "imigue22_legacy":  # by its declared pairs, right or wrong
    channels = swapped(len(skeleton.limbs), skeleton.limb_mirror_pairs)
  elif kind == "limb":  # each limb becomes the one between its mirrored ends
    limbs = [{a, b} for a, b in skeleton.limbs]
    channels = [limbs.index({joints[a], joints[b]}) for a, b in skeleton.limbs]
  plain, mirrored = np.split(
    np.asarray(render_views(fake_views(), skeleton=skeleton, kind=kind)), 2
  )
  np.testing.assert_array_equal(mirrored, plain[..., ::-1, channels])
  assert (mirrored != plain).any()


@pytest.mark.parametrize("kind", KINDS)
def test_mirrored_views_show_the_mirrored_body(kind):
  batch = fake_views()

  @jax.jit
  def of_mirrored_points(batch):
    views = inputs.heatmap_views(batch["keypoints"], batch["frame_size"], size=SIZE)
    return draw(augment.flip(views["points"], SKELETON.mirror, width=SIZE), kind)

  mirrored = np.asarray(render_views(batch, kind=kind))[2:]
  np.testing.assert_allclose(mirrored, of_mirrored_points(batch), rtol=0, atol=WINDOW)


def test_plain_views_come_first_and_alone_without_mirroring():
  batch = fake_views()
  views = functools.partial(inputs.heatmap_views, size=SIZE)
  both, plain = (
    jax.jit(functools.partial(views, mirror=mirror))(batch["keypoints"], batch["frame_size"])
    for mirror in (True, False)
  )
  assert both["mirrored"].tolist() == [False, False, True, True]
  assert plain["mirrored"].tolist() == [False, False]
  np.testing.assert_array_equal(np.asarray(both["points"])[:2], plain["points"])


def test_views_of_equal_clips_are_what_training_without_keys_sees():
  batch = fake()
  twice = dict(batch, keypoints=np.stack([batch["keypoints"]] * 2, axis=1))
  for view in np.asarray(render_views(twice))[:2]:
    np.testing.assert_allclose(view, render(batch), atol=1e-6)


@pytest.mark.parametrize("case", ["short", "middle", "long"])
def test_points_of_the_views_are_those_of_the_pytorch_tools(case):
  with np.load(GOLDEN / "test_pipeline.npz") as golden:
    xy, score, frame_size, expected = (
      golden[f"{case}.{name}"] for name in ("keypoint", "score", "img_shape", "keypoint_64")
    )
  keypoints = np.concatenate([xy, score[..., None]], -1).swapaxes(0, 1)  # L M V 3
  clips = sampling.sample_test(keypoints, num_frames=48, num_clips=10)
  views = jax.jit(functools.partial(inputs.heatmap_views, size=64))(
    clips[None], np.int32(frame_size)[None]
  )
  points = np.asarray(views["points"])[:, 0].reshape(480, *keypoints.shape[1:])
  np.testing.assert_allclose(points[..., :2].swapaxes(0, 1), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_clip_without_a_body_is_empty(kind):
  batch, views = fake(), fake_views()
  batch["keypoints"][0] = views["keypoints"][0] = 0
  for drawn in (
    np.asarray(render(batch, kind=kind)),
    np.asarray(render(batch, SEEDS, kind=kind)),
    *np.asarray(render_views(views, kind=kind)),
  ):
    np.testing.assert_array_equal(drawn[0], 0)
    assert np.isfinite(drawn).all()
    assert drawn[1].max() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_is_finite_where_joints_and_bodies_are_absent(kind):
  batch = fake()
  batch["keypoints"][0] = 0
  batch["keypoints"][1, 0, 0, :, :2] = 5.0  # limbs without length

  def value(keypoints):
    return (render(dict(batch, keypoints=keypoints), SEEDS, kind=kind) ** 2).sum()

  gradient = np.asarray(jax.jit(jax.grad(value))(batch["keypoints"]))
  assert np.isfinite(gradient).all()
  assert np.abs(gradient[1, ..., :2]).max() > 0


def test_vmap_over_batches_is_one_longer_batch():
  whole = fake(), SEEDS
  halves = jax.tree.map(lambda rows: rows.reshape(2, 4, *rows.shape[1:]), whole)
  mapped, expected = jax.jit(jax.vmap(render))(*halves), render(*whole)
  np.testing.assert_allclose(mapped, expected.reshape(mapped.shape), atol=1e-6)


def test_other_kind_is_refused():
  with pytest.raises(ValueError, match='stream: expected "joint" or "limb", got \'bone\''):
    jax.eval_shape(functools.partial(render, kind="bone"), fake())


def body(seed=0, *, points="joints3d", clips=3, num_frames=5, num_persons=2):
  """A batch of poses with absent joints, persons and frames, and what they are named."""
  rng = np.random.default_rng(seed)
  shape = (clips, num_frames, num_persons, 22, 3)
  low, high = ((0, 0, 0.1), (1280, 720, 1)) if points == "keypoints" else (-1, (1, 1, 3))
  pose = rng.uniform(low, high, shape).astype(np.float32)
  pose[rng.random(shape[:-1]) < 0.1] = 0
  pose[0, :, 1] = 0  # nobody there
  pose[1] = 0  # nobody at all
  return pose, np.tile(np.int32([720, 1280]), (clips, 1))


@functools.partial(jax.jit, static_argnames=("options",))
def graph(pose, frame_size, seeds=None, options=()):
  keys = None if seeds is None else jax.vmap(jax.random.key)(seeds)
  return inputs.graph_inputs(pose, frame_size, skeleton=SKELETON, keys=keys, **dict(options))


def of(**options):
  return tuple(options.items())


POINTS = ("keypoints", "joints3d")


@functools.partial(jax.jit, static_argnames=("options",))
def heatmaps_in_space(pose, frame_size, seeds=None, options=()):
  keys = None if seeds is None else jax.vmap(jax.random.key)(seeds)
  options = dict(options) | dict(skeleton=SKELETON, size=SIZE, crop_area=(1.0, 1.0))
  return inputs.heatmap_inputs(pose, frame_size, keys=keys, **options)


def test_3d_joints_are_drawn_as_the_camera_sees_them():
  pose, frame_size = body()
  pose[..., 2] += np.where(pose.any(-1), 3, 0)  # before the camera
  options = of(points="joints3d")
  scored = np.concatenate([pose, pose.any(-1, keepdims=True)], -1, dtype=np.float32)
  keypoints = geometry.project(jnp.asarray(scored), jnp.asarray(frame_size))
  expected = np.asarray(heatmaps_in_space(keypoints, frame_size))
  plain = np.asarray(heatmaps_in_space(pose, frame_size, options=options))
  np.testing.assert_allclose(plain, expected, atol=1e-5)
  assert expected[0].max() > 0.5

  seeds = np.arange(3)
  smaller = of(bone_scale=(0.7, 0.8))
  changed = np.asarray(heatmaps_in_space(pose, frame_size, seeds, options + smaller))
  assert np.isfinite(changed).all()
  assert (np.abs(changed - plain).max(axis=(1, 2, 3, 4)) > 0.1).tolist() == [True, False, True]
  with pytest.raises(ValueError, match='points: expected "joints3d" to turn and tilt'):
    heatmaps_in_space(pose, frame_size, seeds, of(turn=30.0))


@pytest.mark.parametrize(("turn", "tilt"), [(40.0, 0.0), (0.0, 25.0), (40.0, 25.0)])
def test_bodies_turn_about_their_root_and_tilt(turn, tilt):
  pose, frame_size = body()
  pose[..., 2] += np.where(pose.any(-1), 3, 0)
  pose[:, 0, 0, SKELETON.root] = (0.2, 0.1, 3.5)
  got = heatmaps_in_space(
    pose, frame_size, np.arange(3), of(points="joints3d", turn=turn, tilt=tilt)
  )

  expected = np.zeros((*pose.shape[:-1], 3), np.float32)
  for clip, seed in enumerate(range(3)):
    key = jax.random.split(jax.random.key(seed), 7)[-1]
    yaw, pitch = np.deg2rad([turn, tilt]) * jax.random.uniform(key, (2,), minval=-1, maxval=1)
    about_y = [[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]]
    about_x = [[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]]
    root = pose[clip, 0, 0, SKELETON.root]
    turned = (pose[clip] - root) @ (np.array(about_x) @ np.array(about_y)).T + root
    x, y, z = np.moveaxis(turned, -1, 0)
    focal = 285.63 / 240 * 720
    view = np.stack([640 + focal * x / z, 360 - focal * y / z, np.ones_like(z)], -1)
    expected[clip] = np.where(pose[clip].any(-1, keepdims=True), view, 0)
  drawn = heatmaps_in_space(expected, frame_size)
  np.testing.assert_allclose(got, drawn, atol=2e-3)


@pytest.mark.parametrize("points", POINTS)
@pytest.mark.parametrize("stream", inputs.STREAMS)
def test_streams_are_those_of_a_loop_over_frames_and_joints(points, stream):
  pose, frame_size = body(points=points)
  got = graph(pose, frame_size, options=of(points=points, stream=stream))

  score = pose[..., 2] if points == "keypoints" else pose.any(-1).astype(np.float32)
  if points == "keypoints":
    place = (pose[..., :2] - [640, 360]) / [640, 360]
  else:
    place = pose.copy()
    for clip in range(len(pose)):
      seen = np.flatnonzero(score[clip, :, 0, SKELETON.root])
      if seen.size:
        place[clip] -= pose[clip, seen[0], 0, SKELETON.root]
  for second in stream.split("_"):
    if second == "joint":
      continue
    new, new_score = np.zeros_like(place), np.zeros_like(score)
    for v, parent in enumerate(SKELETON.parents):
      if second == "bone":
        a, b = (place[..., v, :], score[..., v]), (place[..., parent, :], score[..., parent])
        target = np.s_[..., v]
      else:
        a = place[:, 1:, :, v], score[:, 1:, :, v]
        b = place[:, :-1, :, v], score[:, :-1, :, v]
        target = np.s_[:, :-1, :, v]
      both = (a[1] > 0) & (b[1] > 0)
      new[(*target, slice(None)) if second == "motion" else np.s_[..., v, :]] = np.where(
        both[..., None], a[0] - b[0], 0
      )
      new_score[target] = np.where(both, (a[1] + b[1]) / 2, 0)
    place, score = new, new_score
  expected = np.where(score[..., None] > 0, place, 0)
  if points == "keypoints":
    expected = np.concatenate([expected, score[..., None]], -1)
  np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)
  assert np.isfinite(got).all()


@pytest.mark.parametrize("points", POINTS)
def test_mirror_of_a_graph_turns_x_and_exchanges_sides(points):
  pose, frame_size = body(points=points)
  options = dict(points=points, stream="bone")
  plain = np.asarray(graph(pose, frame_size, options=of(**options)))
  image = plain[..., SKELETON.mirror, :] * np.array([-1, 1, 1], np.float32)
  got = np.asarray(graph(pose, frame_size, np.arange(3), options=of(mirror=True, **options)))
  kinds = {
    "plain" if np.allclose(a, b, atol=1e-6) else "image" if np.allclose(a, c, atol=1e-6) else "?"
    for seed in range(4)
    for a, b, c in zip(
      np.asarray(
        graph(pose, frame_size, 10 * np.arange(1, 4) + seed, options=of(mirror=True, **options))
      )[[0, 2]],
      plain[[0, 2]],
      image[[0, 2]],
      strict=True,
    )
  }
  assert kinds == {"plain", "image"}
  assert got.shape == plain.shape


def test_graph_augmentation_in_space_keeps_shapes_and_the_vertical():
  pose, frame_size = body()
  options = dict(points="joints3d")
  plain = np.asarray(graph(pose, frame_size, options=of(**options)))
  turned = np.asarray(graph(pose, frame_size, np.arange(3), options=of(rotation=40.0, **options)))
  np.testing.assert_allclose(
    np.linalg.norm(turned, axis=-1), np.linalg.norm(plain, axis=-1), atol=1e-5
  )
  np.testing.assert_allclose(turned[..., 1], plain[..., 1], atol=1e-6)
  assert np.abs(turned - plain)[[0, 2]].max(axis=(1, 2, 3, 4)).min() > 1e-2
  tilted = np.asarray(graph(pose, frame_size, np.arange(3), options=of(tilt=40.0, **options)))
  np.testing.assert_allclose(tilted[..., 0], plain[..., 0], atol=1e-6)
  scaled = np.asarray(
    graph(pose, frame_size, np.arange(3), options=of(scale=(0.5, 0.6), **options))
  )
  ratio = np.abs(scaled).sum((1, 2, 3, 4))[[0, 2]] / np.abs(plain).sum((1, 2, 3, 4))[[0, 2]]
  assert ((ratio > 0.5) & (ratio < 0.6)).all()


@pytest.mark.parametrize("points", POINTS)
def test_graph_views_are_the_clips_and_their_mirror_images(points):
  pose, frame_size = body(points=points)
  two = np.stack([pose, pose[:, ::-1]], 1)  # B N T M V 3

  @jax.jit
  def views(two, frame_size):
    options = dict(skeleton=SKELETON, points=points)
    found = inputs.graph_views(two, frame_size, mirror=True, **options)
    return jax.lax.map(lambda view: inputs.graph_view(view, stream="bone", **options), found)

  got = np.asarray(views(two, frame_size))
  options = of(points=points, stream="bone")
  for n in range(2):
    plain = np.asarray(graph(two[:, n], frame_size, options=options))
    np.testing.assert_allclose(got[n], plain, atol=1e-6)
    image = plain[..., SKELETON.mirror, :] * np.array([-1, 1, 1], np.float32)
    np.testing.assert_allclose(got[2 + n], image, atol=1e-6)


def test_wrong_streams_and_points_are_refused():
  pose, frame_size = map(jax.numpy.asarray, body())
  for options, message in (
    (dict(stream="bones"), "stream: expected joint or bone"),
    (dict(points="joints"), 'points: expected "keypoints" or "joints3d"'),
  ):
    with pytest.raises(ValueError, match=message):
      inputs.graph_inputs(pose, frame_size, skeleton=SKELETON, **options)


@pytest.mark.parametrize("length", [3, 8, 30])
@pytest.mark.parametrize("kind", [*sampling.KINDS, "kinetics", "seconds"])
def test_it_is_known_which_frames_a_test_clip_shows(kind, length):
  """Of frames that hold their number, from 1: a joint at 0 would be absent."""
  numbers = np.arange(1, length + 1)
  if kind == "seconds":
    pictures = readers.without_loss(np.uint8(numbers)[:, None, None] * np.ones((4, 4), np.uint8))
    one = inputs.Video((4, 4), channels=1, num_frames=5, seconds=1.0)
    times = numbers**1.1 / 10  # the rate varies
    record = pictures.record() | {"times": times}
    found = one.read_test(record, 3)["frames"][..., 0, 0, 0]
  else:
    skeleton = skeletons.get("openpose18")
    options = dict(sampling=kind, num_frames=5)
    if kind == "kinetics":
      options = dict(preparation=kind, sampling="repeat", num_persons=2, num_frames=5)
    one = inputs.Graph(skeleton, (72, 128), **options)
    keypoints = np.float32(numbers[:, None, None, None] * np.ones((1, 1, 18, 3)))
    record = {"layout": skeleton, "keypoints": keypoints, "frame_size": None}
    found = one.read_test(record, 3)["keypoints"][:, :, 0, 0, 0]
  shown = found > 0  # as published, zeros follow
  assert shown[:, 0].all()
  np.testing.assert_allclose(one.sampled(record, 3)[shown], found[shown] - 1, atol=1e-5)
