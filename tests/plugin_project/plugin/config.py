from detectron2.config import CfgNode as CN
from detectron2.config import ForeignKey, register_config_keys, register_foreign_key

# The backbone's keys are in every config of a process that imports this package.
register_config_keys({"MODEL": {"STRIPED": {"CHANNELS": 8, "OUT_FEATURES": ["s4"]}}}, owner=__name__)

# The first release called the key and the backbone otherwise.
register_foreign_key(
    ForeignKey(
        key="MODEL.STRIPED.WIDTH",
        read_as="MODEL.STRIPED.CHANNELS",
        origin="the first release of the plug-in",
        renames={"MODEL.BACKBONE.NAME": {"build_striped": "build_striped_backbone"}},
    )
)


def add_plugin_config(cfg):
    """Add the other keys of this project, in the way of older ones."""
    cfg.MODEL.WEIGHTED = CN({"BOX_WEIGHT": 1.0})
    cfg.MODEL.ROI_HEADS.TAG = 0
    cfg.INPUT.MAX_BRIGHTNESS = 1.5
