"""PoseC3D: the names of mmaction2 and PYSKL, which are the same -> ours."""

from jaxmg.pretrained.convert import Rule, conv3d, linear

_BACKBONE = r"(?:backbone\.)?"
_HEAD = r"cls_head\.fc_cls"
_STEM = rf"{_BACKBONE}conv1"
_LAYER = rf"{_BACKBONE}layer(\d)\.(\d+)\.(conv\d|downsample)"
_OURS = r"stage\1/block\2/\3"

RULES = (
  Rule(rf"{_STEM}\.conv\.weight", "params/stem/conv/kernel", conv3d),
  Rule(rf"{_STEM}\.bn\.weight", "params/stem/bn/scale"),
  Rule(rf"{_STEM}\.bn\.bias", "params/stem/bn/bias"),
  Rule(rf"{_STEM}\.bn\.running_(mean|var)", r"batch_stats/stem/bn/\1"),
  Rule(rf"{_LAYER}\.conv\.weight", rf"params/{_OURS}/conv/kernel", conv3d),
  Rule(rf"{_LAYER}\.bn\.weight", rf"params/{_OURS}/bn/scale"),
  Rule(rf"{_LAYER}\.bn\.bias", rf"params/{_OURS}/bn/bias"),
  Rule(rf"{_LAYER}\.bn\.running_(mean|var)", rf"batch_stats/{_OURS}/bn/\4"),
  Rule(rf"{_HEAD}\.weight", "params/head/kernel", linear),
  Rule(rf"{_HEAD}\.bias", "params/head/bias"),
)
# mmcv keeps a second set of weights as buffers, ema_backbone_conv1_...: when a checkpoint is saved,
# the averages are in the place of the weights, and these are the ones of the last step.
IGNORE = (r".*\.num_batches_tracked", r"ema_\w+")

# The limbs of published limb weights, in the order of their channels: the configs of both tools
# list them so, unlike the default of the code that draws them (which is `Skeleton.limbs`).
LIMBS = {
  "coco17": (
    *((0, 5), (0, 6), (5, 7), (7, 9), (6, 8), (8, 10), (5, 11), (11, 13), (13, 15)),
    *((6, 12), (12, 14), (14, 16), (0, 1), (0, 2), (1, 3), (2, 4), (11, 12)),
  )
}
