"""PoseC3D: mmaction2's names -> ours."""

from jaxmg.pretrained.convert import Rule, conv3d, linear

_LAYER = r"backbone\.layer(\d)\.(\d+)\.(conv\d|downsample)"
_OURS = r"stage\1/block\2/\3"

RULES = (
  Rule(r"backbone\.conv1\.conv\.weight", "params/stem/conv/kernel", conv3d),
  Rule(r"backbone\.conv1\.bn\.weight", "params/stem/bn/scale"),
  Rule(r"backbone\.conv1\.bn\.bias", "params/stem/bn/bias"),
  Rule(r"backbone\.conv1\.bn\.running_(mean|var)", r"batch_stats/stem/bn/\1"),
  Rule(rf"{_LAYER}\.conv\.weight", rf"params/{_OURS}/conv/kernel", conv3d),
  Rule(rf"{_LAYER}\.bn\.weight", rf"params/{_OURS}/bn/scale"),
  Rule(rf"{_LAYER}\.bn\.bias", rf"params/{_OURS}/bn/bias"),
  Rule(rf"{_LAYER}\.bn\.running_(mean|var)", rf"batch_stats/{_OURS}/bn/\4"),
  Rule(r"cls_head\.fc_cls\.weight", "params/head/kernel", linear),
  Rule(r"cls_head\.fc_cls\.bias", "params/head/bias"),
)
IGNORE = (r".*\.num_batches_tracked",)
