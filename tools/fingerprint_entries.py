"""What `fingerprint.py` records: models of the zoo, narrowed so that they train in seconds."""

from __future__ import annotations

from typing import Any, NamedTuple

Overrides = dict[str, Any]

# What makes random weights find something, quickly. Thresholds are low, as untrained scores are.
SMALL: Overrides = {
    "MODEL.DEVICE": "cpu",
    "MODEL.WEIGHTS": "",
    "MODEL.PIXEL_STD": [58.0, 57.0, 57.5],
    "MODEL.FPN.OUT_CHANNELS": 32,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 200,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 60,
    "MODEL.ROI_HEADS.NUM_CLASSES": 5,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 48,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.01,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 64,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 32,
    "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS": [32, 32, 32],
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 6,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 32,
    "MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT": 64,
    "MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH": 0.06,
    "MODEL.RETINANET.NUM_CLASSES": 5,
    "MODEL.RETINANET.SCORE_THRESH_TEST": 0.01,
    "TEST.DETECTIONS_PER_IMAGE": 30,
    "TEST.AUG.MIN_SIZES": [96, 128],
    "TEST.AUG.MAX_SIZE": 200,
    "SOLVER.BASE_LR": 0.002,
}
NARROW: Overrides = {
    "MODEL.RESNETS.WIDTH_PER_GROUP": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 32,
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 16,
}
SMALL_ANCHORS: Overrides = {"MODEL.ANCHOR_GENERATOR.SIZES": [[16], [32], [48], [64], [96]]}
NARROW_FPN = {**NARROW, **SMALL_ANCHORS}
WHOLE_RES2NET = {**NARROW_FPN, "MODEL.BACKBONE.FREEZE_AT": 0}
ROTATED: Overrides = {
    "MODEL.PROPOSAL_GENERATOR.NAME": "RRPN",
    "MODEL.ANCHOR_GENERATOR.NAME": "RotatedAnchorGenerator",
    "MODEL.ANCHOR_GENERATOR.ANGLES": [[-60, 0, 60]],
    "MODEL.RPN.BBOX_REG_WEIGHTS": (1.0, 1.0, 1.0, 1.0, 1.0),
    "MODEL.ROI_HEADS.NAME": "RROIHeads",
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlignRotated",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": (10.0, 10.0, 5.0, 5.0, 1.0),
}
MASK_R_CNN = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
PANOPTIC = "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml"
RETINANET = "COCO-Detection/retinanet_R_50_FPN_1x.yaml"


class Entry(NamedTuple):
    """A model to record: its config in the zoo, what differs from that, and what is done with the model."""

    config: str
    overrides: Overrides = NARROW_FPN
    action: str = "train"


ENTRIES = {
    "panoptic_fpn_R_50": Entry(PANOPTIC, SMALL_ANCHORS),
    "panoptic_fpn_R2_101": Entry(
        "COCO-PanopticSegmentation/panoptic_fpn_R2_101_3x.yaml",
        {**WHOLE_RES2NET, "MODEL.RES2NET.STAGE_POOL": "false"},
    ),
    "panoptic_fpn_R2_101_v1b": Entry(
        "COCO-PanopticSegmentation/panoptic_fpn_R2_101_v1b_3x.yaml",
        {**WHOLE_RES2NET, "MODEL.RES2NET.STAGE_POOL": "true"},
    ),
    "mask_rcnn_R2_50_BN": Entry(
        "COCO-InstanceSegmentation/mask_rcnn_R2_50_FPN_1x.yaml",
        {**WHOLE_RES2NET, "MODEL.RESNETS.NORM": "BN"},
    ),
    "mask_rcnn_R_50": Entry(MASK_R_CNN, {**NARROW_FPN, "INPUT.MASK_FORMAT": "bitmask"}),
    "mask_rcnn_R_50_C4": Entry(
        "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml",
        {**NARROW, "MODEL.ANCHOR_GENERATOR.SIZES": [[16, 32, 64]]},
    ),
    "mask_rcnn_dconv": Entry("Misc/mask_rcnn_R_50_FPN_3x_dconv_c3-c5.yaml"),
    "mask_rcnn_dconv_modulated": Entry(
        "Misc/mask_rcnn_R_50_FPN_3x_dconv_c3-c5.yaml", {**NARROW_FPN, "MODEL.RESNETS.DEFORM_MODULATED": True}
    ),
    "cascade_mask_rcnn": Entry("Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml"),
    "keypoint_rcnn": Entry(
        "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml", {**NARROW_FPN, "MODEL.ROI_HEADS.NUM_CLASSES": 1}
    ),
    "fast_rcnn": Entry("COCO-Detection/fast_rcnn_R_50_FPN_1x.yaml"),
    "rpn": Entry("COCO-Detection/rpn_R_50_FPN_1x.yaml"),
    "semantic": Entry("Misc/semantic_R_50_FPN_1x.yaml"),
    "retinanet": Entry(RETINANET, NARROW),
    "fcos": Entry("COCO-Detection/fcos_R_50_FPN_1x.py", {}),
    "rotated": Entry("Base-RCNN-FPN.yaml", {**NARROW_FPN, **ROTATED}),
    "tta_mask_rcnn": Entry(MASK_R_CNN, action="augment"),
    "tta_panoptic_fpn": Entry(PANOPTIC, action="augment"),
    "export_mask_rcnn": Entry(MASK_R_CNN, action="export"),
    "export_retinanet": Entry(RETINANET, NARROW, action="export"),
}
