import dataclasses
from typing import Annotated

import pytest

from jaxmg import ranges


@dataclasses.dataclass(frozen=True)
class Crop:
  area: Annotated[tuple[float, float], "(0, 1]"] = (0.5, 1.0)
  angle: Annotated[float, "[0, 180)"] = 0.0
  free: float = -1.0


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"angle": 180}, r"angle: expected in \[0, 180\), got 180"),
    ({"angle": float("nan")}, "angle: expected"),
    ({"angle": "1"}, "angle: expected"),
    ({"area": (0.0, 1.0)}, r"area: expected two numbers in \(0, 1\], the least first, got \(0.0,"),
    ({"area": (1.0, 0.5)}, "area: expected two numbers"),
    ({"area": (0.5,)}, "area: expected two numbers"),
  ],
)
def test_a_field_outside_its_range_is_named(options, message):
  with pytest.raises(ValueError, match=f"^{message}"):
    ranges.check(Crop(**options))


def test_ends_belong_to_a_range_as_its_brackets_say():
  ranges.check(Crop(area=(0.5, 0.5)))
  ranges.check(Crop(angle=0, free=1000.0))
