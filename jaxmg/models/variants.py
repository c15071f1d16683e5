"""Variants: the sizes of a model by a name, as tables in the models' files."""

from collections.abc import Mapping
from typing import Any

from flax import linen as nn

from jaxmg import errors, ranges


def fill(model: nn.Module, variants: Mapping[str, Mapping[str, Any]], variant: str) -> None:
  """Gives the fields of a model that are None the values of a variant.

  For `__post_init__` of a model, before that of Flax. The name is not kept: Flax calls
  `__post_init__` of a model within another once more, without one. Raises ValueError for an unknown
  variant, and for a number of classes that is none.
  """
  if not ranges.is_whole(model.num_classes) or model.num_classes < 1:
    raise ValueError(f"num_classes: expected 1 or more, got {model.num_classes!r}")
  model.num_classes = int(model.num_classes)
  if variant not in variants:
    raise ValueError(errors.unknown("variant", variants, variant))
  for name, value in variants[variant].items():
    if getattr(model, name) is None:
      setattr(model, name, value)
