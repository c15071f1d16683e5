"""Clips that are mixed two by two, and their labels with them: mixup and cutmix.

  train_step = step.make_train_step(model, mixing.mixed(preprocess, mixup=0.8, cutmix=1.0), ...)

Each clip is mixed with that in the mirrored place of its batch (row i with row B - 1 - i; where a
batch is computed in parts, of its part), by a share that its own key draws. The clip in the middle
of an odd number meets itself.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array, Float, Key

from jaxmg import gaussians, video

_KEY = 1 << 20  # of the clip's key: inputs split theirs, or fold small numbers in


def mixed(preprocess: Callable, *, mixup: float = 0.0, cutmix: float = 0.0) -> Callable:
  """A `preprocess` of the training step whose clips are mixed by `mix`.

  The batch has two more entries: "partner", the labels of what each clip is mixed with, and
  "share", how much of the clip is its own. `losses.classification` mixes its losses by these.
  """

  def preprocess_and_mix(keys, batch):
    clips, batch = preprocess(keys, batch)
    keys = jax.vmap(jax.random.fold_in, (0, None))(keys, _KEY)
    clips, share = mix(keys, clips, mixup=mixup, cutmix=cutmix)
    return clips, {**batch, "partner": batch["label"][::-1], "share": share}

  return preprocess_and_mix


def mix(
  keys: Key[Array, " b"],
  clips: Float[Array, "b t h w c"] | gaussians.Gaussians,
  *,
  mixup: float = 0.0,
  cutmix: float = 0.0,
) -> tuple[Float[Array, "b t h w c"], Float[Array, " b"]]:
  """Mixes row i with row B - 1 - i; returns the clips, and the share of each that is its own.

  By mixup (Zhang et al., arXiv 1710.09412) a clip is the weighted mean of both; by cutmix (Yun et
  al., arXiv 1905.04899) it shows the other in a random box, in all frames. The share is drawn from
  Beta(a, a), where a is `mixup` or `cutmix`; 0 is without, and with both each clip draws which.
  """
  clips = gaussians.drawn(clips)
  if not (mixup or cutmix):
    return clips, jnp.ones(len(clips))
  rows, columns = clips.shape[2:4]
  # Quantiles: to draw from the distribution itself is a loop, which compiles for seconds.
  places = (np.arange(1024) + 0.5) / 1024
  shares = [scipy.special.betaincinv(a or 1, a or 1, places) for a in (cutmix, mixup)]
  shares = jnp.asarray(shares, clips.dtype)

  def of_one(key, clip, other):
    share_key, box_key, which_key = jax.random.split(key, 3)
    cut = jax.random.bernoulli(which_key) if mixup and cutmix else bool(cutmix)
    share = jax.random.choice(share_key, jnp.where(cut, *shares))
    whole = jnp.array([columns, rows])
    sides = jnp.sqrt(1 - share) * whole
    low = jax.random.uniform(box_key, (2,)) * (whole - sides)
    inside = video.inside(jnp.concatenate([low, low + sides]), rows, columns)
    share = jnp.where(cut, (~inside).mean(), share)  # whole pixels
    own = jnp.where(cut, ~inside[..., None], share)
    return own * clip + (1 - own) * other, share

  return jax.vmap(of_one)(keys, clips, clips[::-1])
