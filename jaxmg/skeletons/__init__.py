"""What a pose is, and what may be done to it; needs numpy and jax only.

skeleton = skeletons.get("imigue22")
pose = pose_137[..., skeleton.indices_in("openpose137"), :]
mirrored = pose[..., skeleton.mirror, :]
"""

from jaxmg.skeletons import augment as augment
from jaxmg.skeletons import geometry as geometry
from jaxmg.skeletons import heatmaps as heatmaps
from jaxmg.skeletons import sampling as sampling
from jaxmg.skeletons import topology as topology
from jaxmg.skeletons.topology import SKELETONS as SKELETONS
from jaxmg.skeletons.topology import Skeleton as Skeleton
from jaxmg.skeletons.topology import get as get
