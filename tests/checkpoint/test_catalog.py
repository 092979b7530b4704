"""Names of published models become addresses."""

from __future__ import annotations

from pathlib import Path

import pytest

from detectron2.checkpoint import ModelCatalog
from detectron2.utils.file_io import PathManager


def test_imagenet_model_has_an_address() -> None:
    address = ModelCatalog.get("ImageNetPretrained/MSRA/R-50")
    assert address == "https://dl.fbaipublicfiles.com/detectron/ImageNetPretrained/MSRA/R-50.pkl"


def test_every_detector_has_an_address_of_its_own() -> None:
    names = [f"Caffe2Detectron/COCO/{name}" for name in ModelCatalog.C2_DETECTRON_MODELS]
    addresses = {ModelCatalog.get(name) for name in names}
    assert len(addresses) == len(names) == 13
    assert all(address.endswith("/model_final.pkl") for address in addresses)
    keypoints = ModelCatalog.get("Caffe2Detectron/COCO/37697547/e2e_keypoint_rcnn_R-50-FPN_1x")
    assert "/keypoints_coco_2014_train%3Akeypoints_coco_2014_valminusminival/generalized_rcnn/" in keypoints
    assert "/coco_2014_train%3Acoco_2014_valminusminival/rpn/" in ModelCatalog.get(
        "Caffe2Detectron/COCO/35998355/rpn_R-50-C4_1x"
    )


def test_unknown_name_lists_near_ones() -> None:
    with pytest.raises(KeyError, match="Did you mean ImageNetPretrained/MSRA/R-50"):
        ModelCatalog.get("ImageNetPretrained/MSRA/R-51")
    with pytest.raises(KeyError, match="has no"):
        ModelCatalog.get("")


def test_catalog_addresses_are_resolved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ImageNetPretrained" / "MSRA").mkdir(parents=True)
    (tmp_path / "ImageNetPretrained" / "MSRA" / "R-50.pkl").write_bytes(b"weights")
    monkeypatch.setattr(ModelCatalog, "S3_C2_DETECTRON_PREFIX", str(tmp_path))
    with PathManager.open("catalog://ImageNetPretrained/MSRA/R-50", "rb") as file:
        assert file.read() == b"weights"
