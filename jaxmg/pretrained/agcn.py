"""2s-AGCN: the original's names -> ours."""

import numpy as np

from jaxmg.pretrained.convert import Rule, Shape, linear


def temporal(array: np.ndarray, shape: Shape) -> np.ndarray:
  return np.einsum("oitv->tvio", array).squeeze(1)  # its kernels are T x 1


_BLOCK = r"l(\d+)\."
_GRAPH, _OURS = rf"{_BLOCK}gcn1\.", r"block\1/graph"
_DOWN = rf"{_GRAPH}(?:down|conv_res)"  # conv_res in some of the published weights
_NAMES = {"conv_a": "theta", "conv_b": "phi", "conv_d": "value"}
# Layers with a convolution and a norm: names of both there, our layer.
_LAYERS = (
  (rf"{_BLOCK}tcn1\.conv", rf"{_BLOCK}tcn1\.bn", r"block\1/temporal"),
  (rf"{_BLOCK}residual\.conv", rf"{_BLOCK}residual\.bn", r"block\1/residual"),
  (rf"{_DOWN}\.0", rf"{_DOWN}\.1", rf"{_OURS}/down"),
)


def _conv(theirs, ours):
  yield Rule(rf"{theirs}\.weight", f"params/{ours}/kernel", temporal)
  yield Rule(rf"{theirs}\.bias", f"params/{ours}/bias")


def _norm(theirs, ours):
  yield Rule(rf"{theirs}\.weight", f"params/{ours}/scale")
  yield Rule(rf"{theirs}\.bias", f"params/{ours}/bias")
  yield Rule(rf"{theirs}\.running_mean", f"batch_stats/{ours}/mean")
  yield Rule(rf"{theirs}\.running_var", f"batch_stats/{ours}/var")


RULES = (
  *_norm(r"data_bn", "data_bn"),
  Rule(rf"{_GRAPH}PA", rf"params/{_OURS}/edges"),
  *_norm(rf"{_GRAPH}bn", rf"{_OURS}/bn"),
  *(
    rule
    for theirs, name in _NAMES.items()
    for rule in _conv(rf"{_GRAPH}{theirs}\.(\d)", rf"{_OURS}/subset\2/{name}")
  ),
  *(rule for conv, _, ours in _LAYERS for rule in _conv(conv, rf"{ours}/conv")),
  *(rule for _, norm, ours in _LAYERS for rule in _norm(norm, rf"{ours}/bn")),
  Rule(r"fc\.weight", "params/head/kernel", linear),
  Rule(r"fc\.bias", "params/head/bias"),
)
IGNORE = (r".*\.num_batches_tracked",)
