import jax.numpy as jnp
import numpy as np
import pytest

from jaxmg.models import mtcnn


@pytest.mark.parametrize(("side", "size", "left"), [(5, 2, 3), (4, 2, 2), (5, 3, 2), (6, 3, 3)])
def test_the_last_square_of_a_pool_may_reach_over_the_edge(side, size, left):
  x = -1 - jnp.arange(float(side * side)).reshape(1, side, side, 1)
  found = mtcnn.max_pool(x, size)
  assert found.shape == (1, left, left, 1)
  np.testing.assert_array_equal(found, x[:, ::2, ::2][:, :left, :left])  # its first is its largest


def test_prelu_has_a_slope_of_each_channel():
  variables = {"params": {"slope": jnp.array([0.5, 2.0])}}
  found = mtcnn.PReLU().apply(variables, jnp.array([[-2.0, -2.0], [3.0, 3.0]]))
  np.testing.assert_array_equal(found, [[-1, -4], [3, 3]])
