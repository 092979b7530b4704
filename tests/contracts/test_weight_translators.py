"""What every family of backbones knows about its own weights, and says about others'."""

from __future__ import annotations

import pytest
import torch

from detectron2.checkpoint.weight_translation import (
    WEIGHT_TRANSLATOR_REGISTRY,
    BackboneLayout,
    WeightTranslator,
)

from . import registered
from .models import make_cfg, make_model

# Translator: a model of `models.py` on a backbone of its family.
TRANSLATORS = {"ResNetWeights": "mask_rcnn", "Res2NetWeights": "res2net"}

translator_names = pytest.mark.parametrize("name", TRANSLATORS)


def test_every_translator_has_a_row() -> None:
    assert registered.entries("WEIGHT_TRANSLATOR") == sorted(TRANSLATORS)


def make(name: str) -> WeightTranslator:
    translator: WeightTranslator = WEIGHT_TRANSLATOR_REGISTRY.get(name)()
    return translator


def shapes_of(model_name: str) -> dict[str, tuple[int, ...]]:
    """Shapes of a model's backbone, without its pyramid, under the names of checkpoints."""
    bottom_up = make_model(model_name).backbone.bottom_up
    return {f"backbone.bottom_up.{key}": tuple(value.shape) for key, value in bottom_up.state_dict().items()}


def layout_of(name: str) -> BackboneLayout:
    layout = make(name).read_layout(shapes_of(TRANSLATORS[name]))
    assert layout is not None
    return layout


@translator_names
def test_the_layout_of_an_own_model_lists_all_its_tensors(name: str) -> None:
    shapes = shapes_of(TRANSLATORS[name])
    expected = layout_of(name).expected_shapes()
    assert expected == {key.removeprefix("backbone.bottom_up."): shape for key, shape in shapes.items()}


@translator_names
def test_the_config_values_of_a_layout_are_those_of_the_model(name: str) -> None:
    values, cfg = layout_of(name).config_values(), make_cfg(TRANSLATORS[name])
    assert values
    for key, value in values.items():
        node = cfg
        for part in key.split("."):
            node = node[part]
        assert node == value, key
    assert layout_of(name).title and make(name).sources


@translator_names
def test_a_model_needs_no_change_for_its_own_weights_and_some_for_anothers(name: str) -> None:
    layout = layout_of(name)
    assert layout.values_to_change(layout_of(name)) == {}
    for other in TRANSLATORS.keys() - {name}:
        assert layout.values_to_change(layout_of(other))


@translator_names
def test_own_names_are_not_foreign_and_other_families_are_not_recognized(name: str) -> None:
    for other, translator in TRANSLATORS.items():
        shapes = shapes_of(translator)
        assert not make(name).recognizes(shapes)
        assert (make(name).read_layout(shapes) is None) == (other != name)
    assert make(name).read_layout({}) is None
    assert make(name).read_layout({"roi_heads.weight": (3, 3)}) is None


@translator_names
def test_weights_that_are_no_backbone_are_refused_with_a_sentence(name: str) -> None:
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        make(name).translate({"something.weight": torch.zeros(1)})
