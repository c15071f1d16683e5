"""The models: Flax Linen modules that take arrays and return `(logits, out)`.

model = models.MODELS["posec3d"](num_classes=32, variant="slowonly-r50")
variables = model.init(key, heatmaps)
logits, out = model.apply(variables, heatmaps)
"""

from collections.abc import Callable, Mapping

from flax import linen as nn

from jaxmg.models import agcn as agcn
from jaxmg.models import fusion as fusion
from jaxmg.models import interfusion as interfusion
from jaxmg.models import layers as layers
from jaxmg.models import mvit as mvit
from jaxmg.models import posec3d as posec3d
from jaxmg.models import swinface as swinface
from jaxmg.names import ByName

MODELS: Mapping[str, Callable[..., nn.Module]] = ByName(
  "model",
  {
    "agcn": agcn.AGCN,
    "fusion": fusion.Fusion,
    "interfusion": interfusion.InterFusion,
    "mvit": mvit.MViT,
    "posec3d": posec3d.PoseC3D,
    "swinface": swinface.SwinFace,
  },
)
