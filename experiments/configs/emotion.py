r"""InterFusion of the encoders of a whole video (Martirosyan et al., MiGA 2025; our reading).

  jaxmg train emotion:DATASET,POOL[,small][,fold=I[/N]] --workdir=DIR \
    --config.tokens=faces,video

DATASET: the name of a prepared set of whole videos with tracks of tokens (jaxmg train swinface,
jaxmg train mvit, jaxmg extract_tokens). POOL: mean, where what the windows of a video say is
averaged, or attention, by weights that are learned. With --config.encoders=RUN,RUN instead of
tokens the encoders are trained along, on one window of a video at a time. "small" is a network for
sets of some hundred videos.

docs/emotion.md says what comes out on synthetic interviews.
"""

import ml_collections

from jaxmg.models import interfusion

from . import grammar

STREAMS = interfusion.POOLS
VARIANTS = ("small",)


def get_config(argument: str = "") -> ml_collections.ConfigDict:
  argument = grammar.parse(argument, STREAMS, VARIANTS)
  config = grammar.training(argument)
  config.tokens = ""  # tracks of the set, without "tokens-": "faces,video"
  config.encoders = ""  # or run directories: "runs/faces,runs/video"
  # Of a video that training sees at a time: what they say together is right or wrong. 0: one,
  # which is by itself.
  config.windows = 8
  config.model = dict(
    name="interfusion",
    variant="base",
    pool=argument.stream,
    dropout=0.1,
    # How often a window of training loses one of its inputs. Above 0, one may be missing later.
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
