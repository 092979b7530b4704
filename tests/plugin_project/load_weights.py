"""Build the backbone of a config and load a file into it: load_weights.py CONFIG WEIGHTS [KEY VALUE ...]."""

import json
import sys

from plugin import add_plugin_config

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.modeling import build_backbone
from detectron2.utils.user_errors import exit_on_user_error


def main(config_file, weights, *opts):
    cfg = get_cfg()
    add_plugin_config(cfg)
    cfg.merge_from_file(config_file)
    cfg.merge_from_list(opts)
    backbone = build_backbone(cfg)
    DetectionCheckpointer(backbone).load(weights)
    sums = {name: value.double().sum().item() for name, value in backbone.state_dict().items()}
    json.dump(
        {"name": cfg.MODEL.BACKBONE.NAME, "channels": cfg.MODEL.STRIPED.CHANNELS, "sums": sums}, sys.stdout
    )


if __name__ == "__main__":
    with exit_on_user_error():
        main(*sys.argv[1:])
