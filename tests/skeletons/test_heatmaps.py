import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmg.skeletons import heatmaps, topology

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
CASES = {"one": 0.6, "two": 0.6, "wide": 2.0}
LIMBS = topology.SKELETONS["coco17"].limbs


@pytest.fixture(scope="module")
def golden():
  with np.load(GOLDEN / "heatmaps.npz") as archive:
    return dict(archive)


def points_of(golden, case):  # M T V -> T M V 3
  points = np.concatenate([golden[f"{case}.keypoint"], golden[f"{case}.score"][..., None]], -1)
  return jnp.asarray(points.swapaxes(0, 1))


@pytest.mark.parametrize("case", CASES)
def test_joints_are_those_of_the_pytorch_tools(golden, case):
  expected = golden[f"{case}.joint"]
  drawn = heatmaps.render_joints(
    points_of(golden, case), size=expected.shape[-2:], sigma=CASES[case]
  )
  np.testing.assert_allclose(drawn, np.moveaxis(expected, 1, -1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_limbs_are_those_of_the_pytorch_tools(golden, case):
  expected = golden[f"{case}.limb"]
  drawn = heatmaps.render_limbs(
    points_of(golden, case), LIMBS, size=expected.shape[-2:], sigma=CASES[case]
  )
  np.testing.assert_allclose(drawn, np.moveaxis(expected, 1, -1), rtol=0, atol=1e-5)


@functools.partial(jax.jit, static_argnames=("kind", "window"))
def draw(points, kind, *, window):
  options = dict(size=(12, 14), sigma=0.8, window=window)
  if kind == "joint":
    return heatmaps.render_joints(points, **options)
  return heatmaps.render_limbs(points, [(0, 1), (1, 2), (3, 3)], **options)


def some_points(seed=0):  # M V 3
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.uniform([0, 0, 0.3], [13, 11, 1], (2, 4, 3)), jnp.float32)


@pytest.mark.parametrize("kind", ["joint", "limb"])
@pytest.mark.parametrize("window", [True, False])
def test_gradient_is_that_of_finite_differences(kind, window):
  weights = jax.random.normal(jax.random.key(0), draw(some_points(), kind, window=window).shape)

  @jax.jit
  def value(points):
    return (draw(points, kind, window=window) * weights).sum()

  direction = jax.random.normal(jax.random.key(1), some_points().shape)
  with jax.enable_x64(True):
    points, direction = some_points().astype(jnp.float64), direction.astype(jnp.float64)
    slope = jnp.vdot(jax.jit(jax.grad(value))(points), direction)
    step = 1e-6
    difference = value(points + step * direction) - value(points - step * direction)
    np.testing.assert_allclose(slope, difference / (2 * step), rtol=1e-5)


@pytest.mark.parametrize("kind", ["joint", "limb"])
def test_without_window_nothing_jumps(kind):
  """Moving by a tenth of a thousandth of a pixel changes no heatmap pixel by more than a slope."""
  points = some_points()
  for shift in np.linspace(0, 3, 61):
    moved = points.at[..., 0].add(shift)
    change = draw(moved.at[..., 0].add(1e-4), kind, window=False) - draw(moved, kind, window=False)
    assert jnp.abs(change).max() < 2e-4


def test_with_window_a_joint_is_cut_off_at_three_sigma():
  drawn = heatmaps.render_joints(jnp.array([[[6.0, 6.0, 1.0]]]), size=(13, 13), sigma=1.0)
  smooth = heatmaps.render_joints(
    jnp.array([[[6.0, 6.0, 1.0]]]), size=(13, 13), sigma=1.0, window=False
  )
  assert drawn[6, 2, 0] == 0 < smooth[6, 2, 0]
  np.testing.assert_array_equal(drawn[3:10, 3:10], smooth[3:10, 3:10])


@pytest.mark.parametrize("sigma", [0.1, 0.5, 0.6, 0.8333333, 1.0, 2.3])
def test_no_more_neighbours_than_the_width_are_not_zero(sigma):
  middle = np.arange(-4, 30, 0.01, dtype=np.float32)  # joints
  near = np.round(middle) + np.float32(3 * sigma)  # where the cut falls on a pixel
  points = np.stack([np.concatenate([middle, near, -near])] * 2 + [np.ones(3 * len(middle))], -1)
  found = heatmaps.joint_gaussians(jnp.float32(points), size=(24, 26), sigma=sigma)
  assert found.shape == (24, 26, 3 * len(middle))
  for numbers in (found.rows, found.columns):
    there = np.asarray(numbers) != 0
    first, last = there.argmax(0), len(there) - there[::-1].argmax(0)
    counts = np.where(there.any(0), last - first, 0)
    assert found.width - 1 <= counts.max() <= found.width


def test_a_sigma_may_be_traced_or_infinite():
  draw = functools.partial(heatmaps.render_joints, some_points()[:, None], size=(5, 8))
  drawn, tangent = jax.jvp(lambda sigma: draw(sigma=sigma), (0.6,), (1.0,))
  np.testing.assert_allclose(drawn, draw(sigma=0.6), atol=1e-6)
  assert float(abs(tangent).max()) > 0
  assert heatmaps.joint_gaussians(some_points(), size=(5, 8), sigma=float("inf")).width == 8


def test_without_window_any_number_may_not_be_zero():
  found = heatmaps.joint_gaussians(some_points(), size=(5, 8), sigma=9.0, window=False)
  assert found.width == 8
  with pytest.raises(TypeError, match="drawn"):
    np.asarray(found)
  assert (found.columns != 0).all()


@pytest.mark.parametrize("kind", ["joint", "limb"])
@pytest.mark.parametrize("coordinate", [1e9, -1e9, 3e38])
def test_points_far_outside_leave_the_heatmap_empty(kind, coordinate):
  points = some_points().at[..., :2].set(coordinate)
  for window in (True, False):
    np.testing.assert_array_equal(draw(points, kind, window=window), 0)


@pytest.mark.parametrize("kind", ["joint", "limb"])
def test_an_absent_person_changes_nothing(kind):
  points = some_points().at[1].set(0)
  np.testing.assert_array_equal(
    draw(points, kind, window=True), draw(points[:1], kind, window=True)
  )


@pytest.mark.parametrize("kind", ["joint", "limb"])
def test_vmap_is_the_leading_axis(kind):
  points = jnp.stack([some_points(0), some_points(1)])
  np.testing.assert_allclose(
    jax.vmap(lambda p: draw(p, kind, window=True))(points),
    draw(points, kind, window=True),
    atol=1e-6,
  )
