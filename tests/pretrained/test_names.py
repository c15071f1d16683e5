import numpy as np
import pytest

from jaxmg import errors
from jaxmg.pretrained import names

WEIGHT, BIAS, COUNT = np.ones((2, 3), np.float32), np.zeros(2, np.float32), np.array(7)


def under(*prefixes):
  """The weights of a layer, once under each prefix; every copy is another array."""
  return {
    f"{prefix}fc.{name}": array + i
    for i, prefix in enumerate(prefixes)
    for name, array in (("weight", WEIGHT), ("bias", BIAS))
  }


@pytest.mark.parametrize(
  "prefix", ["", "module.", "model.", "_orig_mod.", "module._orig_mod.", "model.module.module."]
)
def test_what_wrappers_put_before_names_is_taken_off(prefix):
  found, copy, others = names.unwrap(under(prefix) | {"n_averaged": COUNT})
  assert list(found) == ["fc.weight", "fc.bias"]
  assert (copy, others) == ("", [])


def test_a_name_that_only_begins_like_a_wrappers_stays():
  assert list(names.unwrap({"modules.fc": BIAS, "fc.model.x": BIAS})[0]) == [
    "modules.fc",
    "fc.model.x",
  ]


def test_the_weights_are_taken_and_their_average_where_it_is_named_or_alone():
  both = under("model.", "ema.module.", "state_dict_ema.") | {"ema.decay": COUNT}
  for asked, taken, others in (
    (None, 0, ["ema", "state_dict_ema"]),
    ("ema", 1, ["state_dict_ema"]),
    ("state_dict_ema", 2, ["ema"]),
  ):
    found, copy, left = names.unwrap(both, asked)
    assert (copy, left) == (asked or "", others)
    np.testing.assert_array_equal(found["fc.bias"], BIAS + taken)
    assert found.keys() == {"fc.weight", "fc.bias"}
  assert names.unwrap(under("ema_model."))[1] == "ema_model"
  with pytest.raises(errors.CheckpointError, match="expected 'ema' or 'state_dict_ema', got none"):
    names.unwrap(under("ema.", "state_dict_ema."))
  with pytest.raises(
    errors.CheckpointError, match="expected 'ema' or 'state_dict_ema', got averag"
  ):
    names.unwrap(both, "average")


def test_two_tensors_of_one_name_are_refused():
  with pytest.raises(errors.CheckpointError, match=r"'fc.weight' once, got fc.weight and module"):
    names.unwrap(under("", "module."))


@pytest.mark.parametrize(
  ("name", "whose"),
  [
    ("backbone.gcn.0.gcn.conv_ta.weight", "AAGCN, or another graph network, of PYSKL or mmaction2"),
    ("module.backbone.gcn.9.gcn.PA", "AAGCN, or another"),
    ("l1.gcn1.fc1c.weight", "AAGCN, 2s-AGCN's successor"),
    ("backbone.conv1a.conv.weight", "C3D, as PYSKL's C3D-light"),
  ],
)
def test_known_models_that_are_not_covered_are_named(name, whose):
  message = f"expected PoseC3D's or 2s-AGCN's, got those of {whose}"
  with pytest.raises(errors.CheckpointError, match=message):
    names.unwrap(under("") | {name: WEIGHT})
