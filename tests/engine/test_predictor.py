"""From one image to what the model gets, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from detectron2.config import CfgNode, get_cfg
from detectron2.data import MetadataCatalog
from detectron2.engine import DefaultPredictor
from detectron2.modeling import META_ARCH_REGISTRY


@META_ARCH_REGISTRY.register()
class EchoModel(nn.Module):
    """Returns its input times a weight."""

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**sample, "image": sample["image"] * self.weight} for sample in batch]


def make_cfg(image_format: str = "BGR", min_size: int = 0) -> CfgNode:
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "EchoModel"
    cfg.MODEL.DEVICE = "cpu"
    cfg.INPUT.FORMAT = image_format
    cfg.INPUT.MIN_SIZE_TEST = min_size
    return cfg


def make_image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, size=(height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("image_format", "order"), [("BGR", [0, 1, 2]), ("RGB", [2, 1, 0])])
@pytest.mark.parametrize("size", [(5, 7), (1, 1)])
def test_model_gets_channels_in_its_order(image_format: str, order: list[int], size: tuple[int, int]) -> None:
    image = make_image(*size)
    output = DefaultPredictor(make_cfg(image_format))(image)
    expected = torch.stack([torch.from_numpy(image[:, :, channel].astype(np.float32)) for channel in order])
    assert torch.equal(output["image"], expected)
    assert (output["height"], output["width"]) == size
    assert not output["image"].requires_grad


def test_image_is_resized_as_the_config_says() -> None:
    cfg = make_cfg(min_size=8)
    cfg.INPUT.MAX_SIZE_TEST = 12
    output = DefaultPredictor(cfg)(make_image(4, 8))
    assert output["image"].shape == (3, 6, 12)  # 8 x 16 would pass the longest side
    assert (output["height"], output["width"]) == (4, 8)


def test_weights_are_loaded_and_the_config_is_kept(tmp_path: Path) -> None:
    cfg = make_cfg()
    cfg.MODEL.WEIGHTS = str(tmp_path / "model.pth")
    torch.save({"model": {"weight": torch.tensor(3.0)}}, cfg.MODEL.WEIGHTS)
    predictor = DefaultPredictor(cfg)
    cfg.MODEL.WEIGHTS = "changed later"
    assert not predictor.model.training
    assert predictor.cfg.MODEL.WEIGHTS.endswith("model.pth")
    assert predictor(np.ones((2, 2, 3), np.uint8))["image"].max() == 3


def test_formats_are_refused_before_the_model_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(cfg: CfgNode) -> nn.Module:
        raise AssertionError("the model was built")

    monkeypatch.setattr("detectron2.engine.defaults.predictor.build_model", build)
    with pytest.raises(ValueError, match="INPUT.FORMAT RGB or BGR, got 'YUV-BT.601'"):
        DefaultPredictor(make_cfg("YUV-BT.601"))


def test_metadata_is_that_of_the_test_set() -> None:
    cfg = make_cfg()
    cfg.DATASETS.TEST = ("coco_2017_val",)
    assert DefaultPredictor(cfg).metadata is MetadataCatalog.get("coco_2017_val")


@pytest.mark.parametrize(
    "image", [None, np.zeros((4, 5)), np.zeros((4, 5, 4)), np.zeros((0, 5, 3)), torch.zeros(4, 5, 3), "a.jpg"]
)
def test_what_is_no_image_is_refused(image: Any) -> None:
    with pytest.raises(ValueError, match=r"\(H, W, 3\)"):
        DefaultPredictor(make_cfg())(image)


def test_unknown_formats_are_refused() -> None:
    with pytest.raises(ValueError, match="RGB or BGR, got 'L'"):
        DefaultPredictor(make_cfg("L"))


def test_another_image_format_is_refused_before_a_model_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[CfgNode] = []
    monkeypatch.setattr("detectron2.engine.defaults.predictor.build_model", built.append)
    with pytest.raises(ValueError, match="INPUT.FORMAT RGB or BGR, got 'YUV-BT.601'"):
        DefaultPredictor(make_cfg("YUV-BT.601"))
    assert built == []


def test_what_came_instead_of_an_image_is_described_and_not_printed() -> None:
    predictor = DefaultPredictor(make_cfg())
    for wrong, what in (
        (torch.zeros(300, 400, 3), r"a Tensor of shape \(300, 400, 3\)"),
        ([[0] * 4000] * 10, "a list"),
        (np.zeros((40, 50)), r"a ndarray of shape \(40, 50\) and type float64"),
        (None, "got None"),
    ):
        with pytest.raises(ValueError, match=what) as caught:
            predictor(wrong)  # type: ignore[arg-type]  # the mistake
        assert len(str(caught.value)) < 300
