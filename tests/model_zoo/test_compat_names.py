"""Where published weights lie, under the name that others' code asks."""

from __future__ import annotations

import importlib

from detectron2 import model_zoo

urls = importlib.import_module("detectron2.model_zoo.model_zoo")._ModelZooUrls
CONFIG = "COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml"


def test_addresses() -> None:
    assert urls.query(CONFIG) == model_zoo.get_checkpoint_url(CONFIG)
    assert urls.query("nothing.yaml") is None
    suffix = urls.CONFIG_PATH_TO_URL_SUFFIX[CONFIG.removesuffix(".yaml")]
    assert urls.query(CONFIG) == f"{urls.S3_PREFIX}{CONFIG.removesuffix('.yaml')}/{suffix}"
