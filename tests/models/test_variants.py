import pytest

from jaxmg import models

OTHERS = {"agcn": (5, (0, 0, 1))}  # than the number of classes


@pytest.mark.parametrize("name", models.MODELS)
def test_a_variant_gives_the_sizes_that_are_not_given(name):
  tables, make = getattr(models, name).VARIANTS, models.MODELS[name]
  for variant, sizes in tables.items():
    model = make(*OTHERS.get(name, (5,)), variant=variant)
    assert {field: getattr(model, field) for field in sizes} == sizes
    assert sizes.keys() == tables["tiny"].keys()
  model = make(*OTHERS.get(name, (5,)), variant="tiny", width=6)
  sizes = tables["tiny"] | {"width": 6}
  assert {field: getattr(model, field) for field in sizes} == sizes
  assert model.clone() == model


def test_the_variant_of_its_name_is_the_published_network_and_the_default():
  assert models.MODELS["posec3d"](5) == models.MODELS["posec3d"](5, variant="slowonly-r50")
  assert models.MODELS["mvit"](5) == models.MODELS["mvit"](5, variant="mvitv2-s")
  assert models.MODELS["swinface"](5) == models.MODELS["swinface"](5, variant="swin-t")
  assert models.MODELS["fusion"](5) == models.MODELS["fusion"](5, variant="base")
  assert models.MODELS["agcn"](5, (0, 0)) == models.MODELS["agcn"](5, (0, 0), variant="agcn")


def test_an_unknown_variant_is_named():
  with pytest.raises(ValueError, match=r"^variant: expected agcn or small or tiny, got huge$"):
    models.MODELS["agcn"](5, (0, 0), variant="huge")
