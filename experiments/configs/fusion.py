r"""Cross-Modal Token Fusion of two or more encoders (Martirosyan et al., MiGA 2025; our reading).

  jaxmg train fusion:DATASET,ATTENTION[,small][,fold=I[/N]] --workdir=DIR \
    --config.tokens=depth,joint

DATASET: the name of a prepared set with tracks of tokens (jaxmg extract_tokens). ATTENTION:
joint, where every token looks at all of them, or cross, where it looks at those of the other
inputs. With --config.encoders=RUN,RUN instead of tokens the encoders are trained along, or
stay as they are (--config.train.trainable). "small" is a network for sets of some hundred clips.

docs/fusion.md says what comes out on UTD-MHAD.
"""

import ml_collections

from jaxmg.models import fusion

from . import grammar

STREAMS = fusion.ATTENTION
VARIANTS = ("small",)


def get_config(argument: str = "") -> ml_collections.ConfigDict:
  argument = grammar.parse(argument, STREAMS, VARIANTS)
  config = grammar.training(argument)
  config.tokens = ""  # tracks of the set, without "tokens-": "depth,joint"
  config.encoders = ""  # or run directories: "runs/depth,runs/joint"
  config.model = dict(
    name="fusion",
    variant="base",
    attention=argument.stream,
    dropout=0.1,
    # How often a clip of training loses one of its inputs. Above 0, an input may be missing later.
    modality_dropout=0.0,
  )
  config.optimizer.update(
    name="adamw", learning_rate=5e-4, reference_batch=16, weight_decay=0.05, decay="kernels"
  )
  config.optimizer.clip_norm = 1.0
  config.schedule.update(epochs=30, warmup_epochs=3.0)
  config.train.update(batch_size=16, label_smoothing=0.1)
  if argument.variant == "small":
    config.model.variant = "small"
    config.optimizer.learning_rate = 1e-3
  return config
