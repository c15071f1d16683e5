"""Micro-gesture recognition in pure JAX.

Axis letters, with one meaning in the whole package:

    B batch   N test clips   T frames   M persons   V joints   E edges or limbs   C channels
    H, W rows, columns   K classes   L tokens   D width

Channels come last: poses are `*B T M V 3` (x, y, score; x right, y down, pixels of the source
frame), heatmaps `*B T H W V`. What reads data, trains or writes files is imported by its path
(`jaxmg.data.source`, `jaxmg.training.loop`, ...) and needs `pip install jaxmg[train]`.
"""

import importlib.metadata

from jaxmg import inputs as inputs
from jaxmg import models as models
from jaxmg import skeletons as skeletons

__version__ = importlib.metadata.version("jaxmg")
