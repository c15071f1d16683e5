import functools

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from jax import export

from jaxmg import models
from jaxmg.models import fusion, interfusion, layers

PARAMETERS = {  # of MViTv2-S's tokens and of a stream of 2s-AGCN's, and 32 classes
  "base": 1_857_312,
  "small": 170_976,
  "tiny": 12_440,
}
LENGTHS = {"video": 1 + 2 * 4, "pose": 4}  # class token, 2 moments of 4 places; 4 moments
WIDTHS = {"video": 12, "pose": 6}


def tiny(**options):
  return models.MODELS["fusion"](5, variant="tiny", **options)


@functools.cache
def compiled(**options):
  return jax.jit(tiny(**options).apply)


@pytest.fixture(scope="module")
def x():
  keys = dict(zip(LENGTHS, jax.random.split(jax.random.key(0), 2), strict=True))
  video = {"places": 4, "class_token": True}
  return {
    name: {
      "tokens": 3 * jax.random.normal(keys[name], (3, LENGTHS[name], WIDTHS[name])),
      "times": layers.token_times(3, *((2,) if name == "video" else (4,)), **options),
    }
    for name, options in (("video", video), ("pose", {}))
  }


def filled(variables):
  """Parameters that are all in use, and statistics that are no variance of 0."""
  leaves, tree = jax.tree.flatten(variables)
  rng = np.random.default_rng(0)
  signs = [rng.choice([-1, 1], x.shape) if len(x.shape) > 1 else 1 for x in leaves]
  leaves = [jnp.float32(rng.uniform(0.1, 0.6, x.shape)) for x in leaves]
  return jax.tree.unflatten(tree, [x * sign for x, sign in zip(leaves, signs, strict=True)])


@pytest.fixture(scope="module")
def variables(x):
  rng = np.random.default_rng(1)
  shapes = jax.eval_shape(tiny().init, jax.random.key(1), x)
  return jax.tree.map(
    lambda leaf: jnp.float32(0.4 * rng.standard_normal(leaf.shape) + (leaf.ndim == 1)), shapes
  )


@pytest.fixture(scope="module")
def logits(variables, x):
  return compiled()(variables, x)[0]


@pytest.mark.parametrize("variant", fusion.VARIANTS)
def test_variant_has_its_number_of_parameters(variant):
  def tokens(length, width):
    times = jax.ShapeDtypeStruct((1, length), jnp.float32)
    return {"tokens": jax.ShapeDtypeStruct((1, length, width), jnp.float32), "times": times}

  x = {"video": tokens(393, 768), "pose": tokens(16, 256)}
  params = jax.eval_shape(fusion.Fusion(32, variant=variant).init, jax.random.key(0), x)
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == PARAMETERS[variant]


def test_every_intermediate_has_its_shape(x):
  logits, out = jax.eval_shape(tiny(embedding_size=6).init_with_output, jax.random.key(0), x)[0]
  assert logits.shape == (3, 5)
  assert {name: leaf.shape[1:] for name, leaf in out.items()} == {
    "attention0": (2, 14, 14),
    "attention1": (2, 14, 14),
    "features": (8,),
    "embedding": (6,),
  }


def test_a_token_looks_at_all_or_at_the_other_inputs(variables, x):
  owner = np.array([-1, *[0] * 4, *[1] * 9])  # the class token, the pose, the video
  others = (owner[:, None] != owner) | (owner[:, None] < 0)
  for attention, allowed in (("joint", np.ones((14, 14), bool)), ("cross", others)):
    _, out = compiled(attention=attention)(variables, x)
    for name in ("attention0", "attention1"):
      np.testing.assert_allclose(out[name].sum(-1), 1, atol=1e-6)
      np.testing.assert_array_equal(out[name] > 0, np.broadcast_to(allowed, (3, 2, 14, 14)))


@pytest.mark.parametrize("attention", fusion.ATTENTION)
def test_what_is_missing_counts_for_nothing(variables, x, attention):
  present = {"video": jnp.array([True, False, True])}
  logits, out = compiled(attention=attention)(variables, x | {"present": present})
  broken = x["video"]["tokens"].at[1].set(jnp.nan)
  other = {"present": present, "video": x["video"] | {"tokens": broken}}
  np.testing.assert_array_equal(compiled(attention=attention)(variables, x | other)[0], logits)
  whole, _ = compiled(attention=attention)(variables, x)
  np.testing.assert_allclose(logits[::2], whole[::2], atol=1e-5)
  assert np.abs(logits[1] - whole[1]).max() > 1e-3
  assert (out["attention1"][1, ..., 5:] == 0).all()
  assert (out["attention1"][0, :, 0] > 0).all()


def windows(x, count=4):
  """The windows of a clip: tokens that differ, and times that do not."""
  return {
    name: {
      "tokens": jnp.stack([jnp.roll(one["tokens"], k, -1) for k in range(count)], 1),
      "times": one["times"],
    }
    for name, one in x.items()
  }


def inter(**options):
  return models.MODELS["interfusion"](5, variant="tiny", **options)


def test_interfusion_has_its_number_of_parameters():
  def tokens(length, width):
    times = jax.ShapeDtypeStruct((1, length), jnp.float32)
    return {"tokens": jax.ShapeDtypeStruct((1, length, width), jnp.float32), "times": times}

  x = {"video": tokens(393, 768), "faces": tokens(8, 512)}
  expected = {"base": 730_370, "small": 110_786, "tiny": 13_402}
  for variant in fusion.VARIANTS:
    params = jax.eval_shape(interfusion.InterFusion(2, variant=variant).init, jax.random.key(0), x)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected[variant]


@pytest.mark.parametrize("pool", interfusion.POOLS)
def test_a_clip_of_windows_is_their_weighted_mean(x, pool):
  model, x = inter(pool=pool), windows(x)
  variables = filled(jax.eval_shape(model.init, jax.random.key(0), x))
  variables = jax.tree.map(lambda leaf: 0.3 * leaf, variables)
  logits, out = jax.jit(model.apply)(variables, x)
  alone = [
    {name: {"tokens": one["tokens"][:, w], "times": one["times"]} for name, one in x.items()}
    for w in range(4)
  ]
  found = [jax.jit(model.apply)(variables, one) for one in alone]
  shares = np.full((4, 3), 0.25)
  if pool == "attention":
    gates = np.stack([out["gate"] for _, out in found])
    np.testing.assert_allclose(out["gate"].T, gates, rtol=1e-5, atol=1e-5)
    shares = np.asarray(jax.nn.softmax(gates, 0))
    assert np.ptp(shares) > 1e-4
  expected = (shares[..., None] * [jax.nn.softmax(one) for one, _ in found]).sum(0)
  np.testing.assert_allclose(jax.nn.softmax(logits), expected, atol=1e-5)
  np.testing.assert_allclose(
    out["features"], np.mean([out["features"] for _, out in found], 0), 1e-4
  )
  looks = np.asarray(out["attention0"])
  owner = np.array([0] * 4 + [1] * 9)
  np.testing.assert_array_equal(looks > 0, np.broadcast_to(owner[:, None] != owner, looks.shape))


def test_what_interfusion_lacks_counts_for_nothing(x):
  model = inter(pool="attention", modality_dropout=0.5)
  variables = filled(jax.eval_shape(model.init, jax.random.key(0), x))
  present = {"present": {"video": jnp.array([True, False, True])}}
  broken = {"tokens": x["video"]["tokens"].at[1].set(jnp.nan), "times": x["video"]["times"]}
  whole, (lacks, out), (other, _) = (
    jax.jit(model.apply)(variables, one)
    for one in (x, x | present, x | present | {"video": broken})
  )
  np.testing.assert_array_equal(lacks, other)
  np.testing.assert_allclose(lacks[::2], whole[0][::2], atol=1e-5)
  assert np.abs(lacks[1] - whole[0][1]).max() > 1e-3
  assert (out["attention0"][1, ..., 4:] == 0).all()

  def loss(variables, x):
    options = {"train": True, "rows": jnp.arange(3), "rngs": {"dropout": jax.random.key(1)}}
    return model.apply(variables, x, **options)[0].sum()

  gradient = jax.jit(jax.grad(loss))(variables, windows(x | {"video": broken}) | present)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_interfusion_takes_all_the_inputs_that_it_was_made_for(x):
  model = inter()
  variables = filled(jax.eval_shape(model.init, jax.random.key(0), x | {"other": x["video"]}))
  with pytest.raises(ValueError, match="expected other and pose and video, as its variables"):
    model.apply(variables, x)


def test_windows_of_all_inputs_are_as_many(x):
  with pytest.raises(ValueError, match=r"windows: expected as many of each input, got \[0, 4\]"):
    jax.eval_shape(inter().init, jax.random.key(0), x | {"video": windows(x)["video"]})
  with pytest.raises(ValueError, match="pool: expected mean or attention, got max"):
    inter(pool="max")


@jax.jit
def seen(there, rows):
  """Which of several inputs of one token the class token may look at, in training."""
  length = len(rows)
  one = {"tokens": jnp.ones((length, 1, 2)), "times": layers.token_times(length, 1)}
  names = "abc"[: there.shape[1]]
  given = dict.fromkeys(names, one)
  present = {name: there[:, i] for i, name in enumerate(names)}
  module = fusion.Sequence(8, "joint", 16, modality_dropout=0.5)
  rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
  (_, found, _), _ = module.init_with_output(rngs, given, present, train=True, rows=rows)
  return found[:, 1:]


def test_in_training_one_input_is_left_out_at_its_rate_and_never_the_last():
  there = jnp.ones((2000, 3), bool).at[:1000, 1].set(False).at[:500, 2].set(False)
  found = np.asarray(seen(there, jnp.arange(2000)))
  assert not (found & ~there).any()
  np.testing.assert_array_equal(found[:500], there[:500])
  lost = there.sum(-1) - found.sum(-1)
  assert set(lost.tolist()) == {0, 1}
  np.testing.assert_allclose(lost[1000:].mean(), 0.5, atol=0.05)
  np.testing.assert_allclose((~found[1000:]).mean(0), 1 / 6, atol=0.04)


def test_which_input_is_left_out_goes_by_the_clips_name():
  rows, there = jnp.arange(64), jnp.ones((64, 2), bool)
  found = seen(there, rows)
  np.testing.assert_array_equal(seen(there, rows[::-1])[::-1], found)
  assert not np.array_equal(seen(there, rows + 64), found)


def test_order_of_the_clips_changes_no_clip_in_training(variables, x):
  model = tiny(dropout=0.5, modality_dropout=0.5)
  rngs = {"dropout": jax.random.key(2)}

  @jax.jit
  def train(x, rows):
    return model.apply(variables, x, train=True, rows=rows, rngs=rngs)[0]

  rows = jnp.array([11, 4, 7])
  turned = jax.tree.map(lambda leaf: leaf[::-1], x)
  logits = train(x, rows)
  np.testing.assert_allclose(train(turned, rows[::-1])[::-1], logits, atol=1e-5)
  assert np.abs(train(turned, rows)[::-1] - logits).max() > 1e-3


def test_inference_leaves_nothing_out(variables, x, logits):
  found, _ = compiled(dropout=0.9, modality_dropout=0.9)(variables, x)
  np.testing.assert_array_equal(found, logits)


def test_times_are_interpolated_between_the_middles_of_rows():
  times = jnp.array([[0, 0.125, 0.25, 0.375, 0.4375, 1, -1]])
  np.testing.assert_allclose(
    fusion.time_weights(times, 4)[0],
    [
      [1, 0, 0, 0],
      [1, 0, 0, 0],
      [0.5, 0.5, 0, 0],
      [0, 1, 0, 0],
      [0, 0.75, 0.25, 0],
      [0, 0, 0, 1],
      [0, 0, 0, 0],
    ],
  )


def test_tokens_have_the_times_of_their_moments():
  found = layers.token_times(2, 2, places=3, class_token=True)
  np.testing.assert_array_equal(found, [[-1, *[0.25] * 3, *[0.75] * 3]] * 2)


def test_any_number_of_tokens_goes(variables, x, logits):
  longer = {"tokens": jnp.ones((3, 11, 6)), "times": layers.token_times(3, 11)}
  found, _ = compiled()(variables, x | {"pose": longer})
  assert found.shape == logits.shape
  # In another order with their times, they are the same tokens.
  turned = {name: leaf[:, ::-1] for name, leaf in x["video"].items()}
  np.testing.assert_allclose(compiled()(variables, x | {"video": turned})[0], logits, atol=1e-5)
  turned["times"] = x["video"]["times"]
  assert np.abs(compiled()(variables, x | {"video": turned})[0] - logits).max() > 1e-3


def test_bfloat16_keeps_float32_parameters_and_logits(variables, x, logits):
  found, out = compiled(dtype=jnp.bfloat16)(variables, x)
  assert found.dtype == out["features"].dtype == out["attention0"].dtype == jnp.float32
  np.testing.assert_allclose(found, logits, atol=0.05 * np.abs(logits).max())
  assert np.abs(found - logits).max() > 0


def test_its_gradient_lowers_for_every_platform(x):
  model = tiny(dtype=jnp.bfloat16, modality_dropout=0.2)
  params = jax.eval_shape(model.init, jax.random.key(0), x)

  @jax.jit
  def gradient(params, x, rows, key):
    def loss(params):
      return model.apply(params, x, train=True, rows=rows, rngs={"dropout": key})[0].sum()

    return jax.grad(loss)(params)

  arguments = jax.eval_shape(lambda: (x, jnp.arange(3), jax.random.key(0)))
  exported = export.export(gradient, platforms=("cpu", "cuda", "tpu"))(params, *arguments)
  assert "xbf16>" in exported.mlir_module()


@pytest.fixture(scope="module")
def towers():
  """A fusion of a tiny PoseC3D and a tiny 2s-AGCN, what they see, and variables."""
  encoders = {
    "drawn": models.MODELS["posec3d"](7, width=2, depths=(1,), stem=(3, 1)),
    "joints": models.MODELS["agcn"](3, (0, 0, 1), width=4, depths=(1,)),
  }
  model = tiny(encoders=encoders)
  x = {
    "drawn": jax.random.uniform(jax.random.key(0), (2, 6, 8, 8, 3)),
    "joints": jax.random.normal(jax.random.key(1), (2, 7, 2, 3, 3)),
  }
  return model, encoders, x, filled(jax.eval_shape(model.init, jax.random.key(2), x))


def test_encoders_tokens_are_fused_as_if_they_were_given(towers):
  model, encoders, x, variables = towers
  logits, out = jax.jit(model.apply)(variables, x)
  assert np.abs(logits[0] - logits[1]).max() > 0.005
  given = {}
  for name, encoder in encoders.items():
    own = {kind: tree[f"encoders_{name}"] for kind, tree in variables.items()}
    theirs, seen = jax.jit(encoder.apply)(own, x[name])
    np.testing.assert_allclose(out[f"{name}/logits"], theirs, atol=1e-4)
    np.testing.assert_allclose(seen["tokens"].mean(1), seen["features"], atol=1e-4)
    assert {f"{name}/{key}" for key in seen} <= out.keys()
    given[name] = {key: seen[key] for key in ("tokens", "times")}
  folded = model.folded(variables)
  assert folded["batch_stats"].keys() == {"encoders_joints"}
  assert variables["batch_stats"].keys() == {"encoders_drawn", "encoders_joints"}
  np.testing.assert_allclose(jax.jit(model.apply)(folded, x)[0], logits, atol=1e-4)
  params = {key: x for key, x in variables["params"].items() if not key.startswith("encoders_")}
  found, _ = compiled()({"params": params}, given)
  np.testing.assert_allclose(found, logits, atol=1e-4)
  # One of them as tokens, beside an encoder.
  mixed = model.clone(encoders={"joints": encoders["joints"]})
  found, _ = jax.jit(mixed.apply)(variables, x | {"drawn": given["drawn"]})
  np.testing.assert_allclose(found, logits, atol=1e-4)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda x: {"video": x["video"]}, "inputs: expected two, got video"),
    (
      lambda x: x | {"present": {"pse": jnp.ones(3, bool)}},
      "present: expected pose and vid",
    ),
    (
      lambda x: x | {"pose": x["pose"] | {"times": jnp.zeros((3, 5))}},
      r"pose: times: expected float\[3, 4\], got float32\[3, 5\]",
    ),
    (
      lambda x: x | {"pose": x["pose"] | {"tokens": jnp.zeros((3, 4))}},
      r"pose: tokens: expected float\[B, L, D\], got float32\[3, 4\]",
    ),
  ],
)
def test_inputs_that_cannot_be_are_named(x, change, message):
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(tiny().init, jax.random.key(0), change(x))


def test_an_input_that_is_left_out_is_one_that_all_clips_lack(x):
  three = x | {"sound": {"tokens": jnp.ones((3, 2, 5)), "times": jnp.zeros((3, 2))}}
  params = filled(jax.eval_shape(tiny().init, jax.random.key(0), three))
  lacked, _ = compiled()(params, three | {"present": {"sound": jnp.zeros(3, bool)}})
  np.testing.assert_allclose(compiled()(params, x)[0], lacked, atol=1e-5)


@pytest.mark.parametrize("make", [tiny, inter])
@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda x: x["pose"]["tokens"], "^inputs: expected inputs by name, "),
    (lambda x: x | {"present": jnp.ones(3)}, "^inputs: expected inputs by name, "),
    (lambda x: {"pose": x["pose"], "sound": x["video"]}, "^inputs: expected pose and video, as "),
    (lambda x: x | {"sound": x["pose"]}, "^inputs: expected pose and video, .*sound"),
    (lambda x: x | {"pose": x["pose"]["tokens"]}, "^pose: expected tokens and times, got "),
    (lambda x: x | {"pose": {"tokens": x["pose"]["tokens"]}}, "^pose: expected tokens and times,"),
    (
      lambda x: x | {"pose": x["pose"] | {"tokens": x["pose"]["tokens"][..., :2]}},
      r"^pose: tokens: expected float\[B, L, \d+\], got float32\[3, 4, 2\]",
    ),
    (lambda x: x | {"present": {"pose": jnp.ones(2, bool)}}, r"^present: pose: expected bool\[3\]"),
  ],
)  # fmt: skip
def test_a_call_on_other_inputs_than_its_own_is_named(x, make, change, message):
  variables = jax.eval_shape(make().init, jax.random.key(0), x)
  jaxtyping.config.update("jaxtyping_disable", True)  # as users have it
  try:
    with pytest.raises(ValueError, match=message):
      jax.eval_shape(lambda variables: make().apply(variables, change(x)), variables)
  finally:
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize(
  "model",
  [
    tiny(),
    tiny(dropout=0.0, modality_dropout=0.1),
    inter(dropout=0.0, modality_dropout=0.1),
  ],
)
def test_training_without_a_key_is_named(x, model):
  variables = jax.eval_shape(model.init, jax.random.key(0), x)
  with pytest.raises(ValueError, match=r'^train=True: expected rngs={"dropout": key} in apply'):
    jax.eval_shape(lambda variables: model.apply(variables, x, train=True), variables)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"attention": "self"}, "^attention: expected joint or cross, got self$"),
    ({"width": 9}, "^width: expected a multiple of 2 heads, got 9$"),
  ],
)
def test_options_that_cannot_be_are_named(options, message):
  with pytest.raises(ValueError, match=message):
    tiny(**options)


def test_an_encoder_without_its_input_is_named(towers):
  model, _, x, _ = towers
  with pytest.raises(ValueError, match="expected two or more, drawn and joints among them, got dr"):
    jax.eval_shape(model.init, jax.random.key(0), {"drawn": x["drawn"], "sound": x["joints"]})
