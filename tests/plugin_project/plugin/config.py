from detectron2.config import CfgNode as CN


def add_plugin_config(cfg):
    """Add the keys of this project."""
    cfg.MODEL.STRIPED = CN()
    cfg.MODEL.STRIPED.CHANNELS = 8
    cfg.MODEL.STRIPED.OUT_FEATURES = ["s4"]

    cfg.MODEL.WEIGHTED = CN({"BOX_WEIGHT": 1.0})
    cfg.MODEL.ROI_HEADS.TAG = 0
    cfg.INPUT.MAX_BRIGHTNESS = 1.5
