"""The default config: every key, what it means, and its default.

Sizes are in pixels and ordered (height, width) unless a key says otherwise. Thresholds are inclusive lower
bounds. `get_cfg()` returns a copy of this tree, with the keys that plug-ins declare in their own folders
(`detectron2.config.plugin_keys`).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from detectron2.config.config.node import CfgNode as CN
from detectron2.config.plugin_keys import add_declared_keys

_BACKBONE = {
    # Registered builder of the network that turns images into feature maps.
    "NAME": "build_resnet_backbone",
    # Freeze the stem and the first stages: 0 nothing, 1 the stem, 2 the stem and res2, and so on.
    "FREEZE_AT": 2,
}

_FPN = {
    # Backbone features that enter the pyramid, finest first.
    "IN_FEATURES": [],
    # Channels of every pyramid level.
    "OUT_CHANNELS": 256,
    # Norm after the pyramid's convolutions; "" for none.
    "NORM": "",
    # How the top-down and the lateral path meet: "sum" or "avg".
    "FUSE_TYPE": "sum",
}

_PROPOSAL_GENERATOR = {
    # "RPN", "RRPN" or another registered generator; "PrecomputedProposals" reads them from files.
    "NAME": "RPN",
    # Drop proposals with a side shorter than this, in input pixels.
    "MIN_SIZE": 0,
}

_ANCHOR_GENERATOR = {
    # "DefaultAnchorGenerator", or "RotatedAnchorGenerator" with ANGLES.
    "NAME": "DefaultAnchorGenerator",
    # Square root of anchor area in input pixels: one list per feature map, or one list that serves all maps.
    "SIZES": [[32, 64, 128, 256, 512]],
    # Height / width, combined with every size; one list per feature map or one for all.
    "ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
    # Degrees, counter-clockwise; for rotated anchors only.
    "ANGLES": [[-90, 0, 90]],
    # Where in its grid cell an anchor is centred, as a fraction of the stride: 0 its corner, 0.5 its middle.
    "OFFSET": 0.0,
}

_RPN = {
    # Registered head that predicts objectness and deltas.
    "HEAD_NAME": "StandardRPNHead",
    # Feature maps that it runs on.
    "IN_FEATURES": ["res4"],
    # Anchors that leave the image by more than this many pixels are ignored in training; -1 keeps all of
    # them.
    "BOUNDARY_THRESH": -1,
    # IoU of anchor and ground truth splits anchors into the classes of IOU_LABELS: 0 background, -1 ignored,
    # 1 object.
    "IOU_THRESHOLDS": [0.3, 0.7],
    "IOU_LABELS": [0, -1, 1],
    # Anchors per image that enter the loss, and the largest part of them that are objects.
    "BATCH_SIZE_PER_IMAGE": 256,
    "POSITIVE_FRACTION": 0.5,
    # "smooth_l1", "giou", "diou" or "ciou", and its weight on top of LOSS_WEIGHT.
    "BBOX_REG_LOSS_TYPE": "smooth_l1",
    "BBOX_REG_LOSS_WEIGHT": 1.0,
    # Factors of the deltas (dx, dy, dw, dh); rotated boxes need a fifth for the angle.
    "BBOX_REG_WEIGHTS": (1.0, 1.0, 1.0, 1.0),
    # Where smooth L1 turns from quadratic to linear; 0 is plain L1.
    "SMOOTH_L1_BETA": 0.0,
    # Weight of both RPN losses.
    "LOSS_WEIGHT": 1.0,
    # Best-scoring proposals kept before NMS, on each feature map of each image.
    "PRE_NMS_TOPK_TRAIN": 12000,
    "PRE_NMS_TOPK_TEST": 6000,
    # Proposals kept after NMS, over all feature maps: of the batch in training, of each image at test time.
    "POST_NMS_TOPK_TRAIN": 2000,
    "POST_NMS_TOPK_TEST": 1000,
    # IoU above which NMS drops the lower-scoring proposal.
    "NMS_THRESH": 0.7,
    # Output channels of the head's 3x3 convolutions; -1 keeps the number of input channels.
    "CONV_DIMS": [-1],
}

_ROI_HEADS = {
    # Registered heads that work on proposals.
    "NAME": "Res5ROIHeads",
    # Foreground ("thing") classes; background is not counted. -1: as many as the data has.
    "NUM_CLASSES": 80,
    # Feature maps that regions are pooled from.
    "IN_FEATURES": ["res4"],
    # IoU of proposal and ground truth splits proposals into the classes of IOU_LABELS, as for the RPN.
    "IOU_THRESHOLDS": [0.5],
    "IOU_LABELS": [0, 1],
    # Proposals per image that enter the losses, and the largest part of them that are objects.
    "BATCH_SIZE_PER_IMAGE": 512,
    "POSITIVE_FRACTION": 0.25,
    # Detections below this score are dropped at test time.
    "SCORE_THRESH_TEST": 0.05,
    # IoU above which NMS drops the lower-scoring detection of the same class.
    "NMS_THRESH_TEST": 0.5,
    # Add ground-truth boxes to the proposals of a training image.
    "PROPOSAL_APPEND_GT": True,
}

_ROI_BOX_HEAD = {
    # Registered head between pooling and the box predictor, such as "FastRCNNConvFCHead".
    "NAME": "",
    # "smooth_l1", "giou", "diou" or "ciou", and the weight of the box loss.
    "BBOX_REG_LOSS_TYPE": "smooth_l1",
    "BBOX_REG_LOSS_WEIGHT": 1.0,
    # Factors of the deltas (dx, dy, dw, dh).
    "BBOX_REG_WEIGHTS": (10.0, 10.0, 5.0, 5.0),
    # Where smooth L1 turns from quadratic to linear; 0 is plain L1.
    "SMOOTH_L1_BETA": 0.0,
    # Side of the pooled feature map, samples per bin (0: as many as the bin has pixels), and the pooling:
    # "ROIAlignV2", "ROIAlign" (shifted by half a pixel, for old models), "ROIPool" or "ROIAlignRotated".
    "POOLER_RESOLUTION": 14,
    "POOLER_SAMPLING_RATIO": 0,
    "POOLER_TYPE": "ROIAlignV2",
    # Fully connected layers after the convolutions, and their width.
    "NUM_FC": 0,
    "FC_DIM": 1024,
    # 3x3 convolutions before them, their channels and norm.
    "NUM_CONV": 0,
    "CONV_DIM": 256,
    "NORM": "",
    # Predict one box for all classes instead of one per class.
    "CLS_AGNOSTIC_BBOX_REG": False,
    # Give later heads the boxes that this head predicts instead of the proposals, in training.
    "TRAIN_ON_PRED_BOXES": False,
    # Federated loss of LVIS: the classes of an image and some sampled others; needs USE_SIGMOID_CE.
    "USE_FED_LOSS": False,
    # Classify with a sigmoid per class instead of one softmax.
    "USE_SIGMOID_CE": False,
    # Classes are sampled with probability proportional to (images with the class) ** this power.
    "FED_LOSS_FREQ_WEIGHT_POWER": 0.5,
    # Classes in the loss of an image, those present included.
    "FED_LOSS_NUM_CLASSES": 50,
}

_ROI_BOX_CASCADE_HEAD = {
    # One entry per stage: the factors of its deltas, and the IoU at which it calls a box an object.
    "BBOX_REG_WEIGHTS": ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0)),
    "IOUS": (0.5, 0.6, 0.7),
}

_ROI_MASK_HEAD = {
    # Registered head that predicts a mask per region.
    "NAME": "MaskRCNNConvUpsampleHead",
    # Pooling as in ROI_BOX_HEAD; the masks are twice this resolution.
    "POOLER_RESOLUTION": 14,
    "POOLER_SAMPLING_RATIO": 0,
    # 3x3 convolutions before the upsampling, their channels and norm.
    "NUM_CONV": 0,
    "CONV_DIM": 256,
    "NORM": "",
    # Predict one mask for all classes instead of one per class.
    "CLS_AGNOSTIC_MASK": False,
    # As in ROI_BOX_HEAD.
    "POOLER_TYPE": "ROIAlignV2",
}

_ROI_KEYPOINT_HEAD = {
    # Registered head that predicts a heatmap per keypoint.
    "NAME": "KRCNNConvDeconvUpsampleHead",
    # Pooling as in ROI_BOX_HEAD; the heatmaps are four times this resolution.
    "POOLER_RESOLUTION": 14,
    "POOLER_SAMPLING_RATIO": 0,
    # Channels of the 3x3 convolutions.
    "CONV_DIMS": (512, 512, 512, 512, 512, 512, 512, 512),
    # Keypoints per instance; COCO persons have 17.
    "NUM_KEYPOINTS": 17,
    # Images with fewer visible keypoints than this are left out of training.
    "MIN_KEYPOINTS_PER_IMAGE": 1,
    # Divide the loss by the visible keypoints of the batch. False divides by the number that a full batch
    # could have, which makes an image with few keypoints count less.
    "NORMALIZE_LOSS_BY_VISIBLE_KEYPOINTS": True,
    # Weight of the keypoint loss.
    "LOSS_WEIGHT": 1.0,
    # As in ROI_BOX_HEAD.
    "POOLER_TYPE": "ROIAlignV2",
}

_SEM_SEG_HEAD = {
    # Registered head that predicts a class per pixel.
    "NAME": "SemSegFPNHead",
    # Feature maps that it merges.
    "IN_FEATURES": ["p2", "p3", "p4", "p5"],
    # Pixels with this label take no part in the loss.
    "IGNORE_VALUE": 255,
    # Classes, for COCO panoptic: 53 stuff classes and one for all things together. -1: as many as the data
    # has.
    "NUM_CLASSES": 54,
    # Channels of the head, and the stride at which it predicts.
    "CONVS_DIM": 128,
    "COMMON_STRIDE": 4,
    # Norm of the head's convolutions.
    "NORM": "GN",
    # Weight of the semantic loss.
    "LOSS_WEIGHT": 1.0,
}

_PANOPTIC_FPN = {
    # Weight of all detection losses against the semantic one.
    "INSTANCE_LOSS_WEIGHT": 1.0,
    # How instances and stuff become one map without overlap.
    "COMBINE": {
        "ENABLED": True,
        # An instance is dropped when more than this part of it is taken by better-scoring ones.
        "OVERLAP_THRESH": 0.5,
        # A stuff region of fewer pixels than this becomes void.
        "STUFF_AREA_LIMIT": 4096,
        # Instances below this score are left out.
        "INSTANCES_CONFIDENCE_THRESH": 0.5,
    },
}

_RETINANET = {
    # Foreground classes; -1: as many as the data has.
    "NUM_CLASSES": 80,
    # Feature maps that the head runs on.
    "IN_FEATURES": ["p3", "p4", "p5", "p6", "p7"],
    # 3x3 convolutions in each of the two towers.
    "NUM_CONVS": 4,
    # IoU of anchor and ground truth splits anchors into the classes of IOU_LABELS, as for the RPN.
    "IOU_THRESHOLDS": [0.4, 0.5],
    "IOU_LABELS": [0, -1, 1],
    # Score of every anchor at the start of training; keeps the many background anchors from drowning the
    # rest.
    "PRIOR_PROB": 0.01,
    # At test time: least score, candidates per feature map before NMS, and IoU of NMS.
    "SCORE_THRESH_TEST": 0.05,
    "TOPK_CANDIDATES_TEST": 1000,
    "NMS_THRESH_TEST": 0.5,
    # Factors of the deltas (dx, dy, dw, dh).
    "BBOX_REG_WEIGHTS": (1.0, 1.0, 1.0, 1.0),
    # Focal loss: how strongly easy anchors are discounted, and the weight of objects against background.
    "FOCAL_LOSS_GAMMA": 2.0,
    "FOCAL_LOSS_ALPHA": 0.25,
    # Box loss: where smooth L1 turns linear, and its type ("smooth_l1", "giou", "diou", "ciou").
    "SMOOTH_L1_LOSS_BETA": 0.1,
    "BBOX_REG_LOSS_TYPE": "smooth_l1",
    # Norm of the towers. Statistics are kept per feature map for "BN" and "SyncBN".
    "NORM": "",
}

_RESNETS = {
    # Layers: 18, 34, 50, 101 or 152.
    "DEPTH": 50,
    # Stages whose output is returned, from "stem", "res2", ..., "res5".
    "OUT_FEATURES": ["res4"],
    # Groups of the 3x3 convolutions; above 1 it is a ResNeXt.
    "NUM_GROUPS": 1,
    # "FrozenBN", "GN", "SyncBN", "BN" or another norm of detectron2.layers.get_norm.
    "NORM": "FrozenBN",
    # Channels per group of the 3x3 convolutions in res2, doubled in every later stage.
    "WIDTH_PER_GROUP": 64,
    # Where a stage's first block strides: True the 1x1 convolution (original MSRA models), False the 3x3
    # (torch models).
    "STRIDE_IN_1X1": True,
    # Dilation of res5; 2 keeps the resolution of res4.
    "RES5_DILATION": 1,
    # Output channels of res2, doubled in every later stage (64 for depth 18 and 34), and of the stem.
    "RES2_OUT_CHANNELS": 256,
    "STEM_OUT_CHANNELS": 64,
    # Use deformable convolution in res2, res3, res4, res5.
    "DEFORM_ON_PER_STAGE": [False, False, False, False],
    # With a learned weight per sample (version 2).
    "DEFORM_MODULATED": False,
    # Channel groups that move independently.
    "DEFORM_NUM_GROUPS": 1,
}

# Read by the build_*timm* backbones only, which need the packages timm and torchvision. The maps are named by
# their stride: res2 has stride 4, res3 has 8, and so on.
_TIMM = {
    # Model of timm, such as "resnet50d" or "convnext_tiny".
    "NAME": "resnet50",
    # Let timm download its ImageNet weights. They expect RGB: set INPUT.FORMAT, PIXEL_MEAN and PIXEL_STD.
    "PRETRAINED": False,
    # Which of the model's maps to compute, counted as timm does; [] means all.
    "OUT_INDICES": [],
    # Keep batch norms as they are loaded.
    "FREEZE_BN": True,
    # Further arguments of timm.create_model, as ["strict_img_size=False"].
    "OPTIONS": [],
}

_MODEL = {
    # Read precomputed proposals along with the images.
    "LOAD_PROPOSALS": False,
    # Predict masks and keypoints of instances.
    "MASK_ON": False,
    "KEYPOINT_ON": False,
    # "cuda", "cuda:1", "cpu", ...; "auto" is CUDA where there is a GPU, else the CPU.
    "DEVICE": "cuda",
    # Registered class of the whole model.
    "META_ARCHITECTURE": "GeneralizedRCNN",
    # Checkpoint to start from: a path, https:// or detectron2:// address; "" starts from random weights.
    "WEIGHTS": "",
    # Subtracted from and divided into the image's channels, in the order of INPUT.FORMAT. The number of
    # entries is the number of input channels. The default suits models that were trained on unscaled BGR
    # values.
    "PIXEL_MEAN": [103.530, 116.280, 123.675],
    "PIXEL_STD": [1.0, 1.0, 1.0],
    "BACKBONE": _BACKBONE,
    "FPN": _FPN,
    "PROPOSAL_GENERATOR": _PROPOSAL_GENERATOR,
    "ANCHOR_GENERATOR": _ANCHOR_GENERATOR,
    "RPN": _RPN,
    "ROI_HEADS": _ROI_HEADS,
    "ROI_BOX_HEAD": _ROI_BOX_HEAD,
    "ROI_BOX_CASCADE_HEAD": _ROI_BOX_CASCADE_HEAD,
    "ROI_MASK_HEAD": _ROI_MASK_HEAD,
    "ROI_KEYPOINT_HEAD": _ROI_KEYPOINT_HEAD,
    "SEM_SEG_HEAD": _SEM_SEG_HEAD,
    "PANOPTIC_FPN": _PANOPTIC_FPN,
    "RETINANET": _RETINANET,
    "RESNETS": _RESNETS,
    "TIMM": _TIMM,
}

_INPUT = {
    # Length of the shorter side in training: values to choose from, or a range (low, high) to draw from.
    "MIN_SIZE_TRAIN": (800,),
    # "choice" or "range".
    "MIN_SIZE_TRAIN_SAMPLING": "choice",
    # The longer side never exceeds this.
    "MAX_SIZE_TRAIN": 1333,
    # The same at test time; MIN_SIZE_TEST 0 leaves images as they are.
    "MIN_SIZE_TEST": 800,
    "MAX_SIZE_TEST": 1333,
    # "horizontal", "vertical" or "none".
    "RANDOM_FLIP": "horizontal",
    # Random crop before resizing, in training.
    "CROP": {
        "ENABLED": False,
        # How SIZE is read: "relative" part of the image, "relative_range" between that part and all of it,
        # "absolute" pixels, "absolute_range" pixels between its two numbers.
        "TYPE": "relative_range",
        # Height and width, or the range that both are drawn from.
        "SIZE": [0.9, 0.9],
    },
    # Channel order that the model gets: a mode of Pillow, "BGR" or "YUV-BT.601".
    "FORMAT": "BGR",
    # Pixel values that become 0 and 255, for files of 16 bits or floating point numbers, as [0, 65535]. Empty
    # refuses files whose values do not fit into 8 bits.
    "VALUE_RANGE": [],
    # How the mapper hands on masks: "polygon" or "bitmask".
    "MASK_FORMAT": "polygon",
}

_DATASETS = {
    # Registered names; several are joined.
    "TRAIN": (),
    # With MODEL.LOAD_PROPOSALS: one proposal file per data set, and how many of the best are used per image.
    "PROPOSAL_FILES_TRAIN": (),
    "PRECOMPUTED_PROPOSAL_TOPK_TRAIN": 2000,
    # Each of these is evaluated on its own.
    "TEST": (),
    # As for training.
    "PROPOSAL_FILES_TEST": (),
    "PRECOMPUTED_PROPOSAL_TOPK_TEST": 1000,
}

_DATALOADER = {
    # Loading processes per training process; 0 loads in the training process itself.
    "NUM_WORKERS": 4,
    # Batch landscape images with landscape images and portrait with portrait, which saves padding.
    "ASPECT_RATIO_GROUPING": True,
    # "TrainingSampler", "RepeatFactorTrainingSampler" or "RandomSubsetTrainingSampler".
    "SAMPLER_TRAIN": "TrainingSampler",
    # RepeatFactorTrainingSampler repeats images of classes that fewer than this part of the images show ...
    "REPEAT_THRESHOLD": 0.0,
    # ... as often as the square root of the ratio, or with False as the ratio.
    "REPEAT_SQRT": True,
    # RandomSubsetTrainingSampler draws this part of the images once, in (0, 1], and trains on it alone.
    "RANDOM_SUBSET_RATIO": 1.0,
    # Leave images without any annotation out of training.
    "FILTER_EMPTY_ANNOTATIONS": True,
}

_SOLVER = {
    # "WarmupMultiStepLR", "WarmupCosineLR" or "WarmupStepWithFixedGammaLR".
    "LR_SCHEDULER_NAME": "WarmupMultiStepLR",
    # Iterations of the whole training.
    "MAX_ITER": 40000,
    # Learning rate after warm-up, and where a cosine schedule ends.
    "BASE_LR": 0.001,
    "BASE_LR_END": 0.0,
    # Stochastic gradient descent: its momentum, whether in Nesterov's form, and weight decay.
    "MOMENTUM": 0.9,
    "NESTEROV": False,
    "WEIGHT_DECAY": 0.0001,
    # Weight decay of the parameters of norm layers.
    "WEIGHT_DECAY_NORM": 0.0,
    # The learning rate is multiplied by GAMMA at each of STEPS (iterations).
    "GAMMA": 0.1,
    "STEPS": (30000,),
    # WarmupStepWithFixedGammaLR: number of equal decays.
    "NUM_DECAYS": 3,
    # The first WARMUP_ITERS iterations start at BASE_LR * WARMUP_FACTOR; "linear" rises from it, "constant"
    # stays.
    "WARMUP_FACTOR": 1.0 / 1000,
    "WARMUP_ITERS": 1000,
    "WARMUP_METHOD": "linear",
    # Shift the schedule to after the warm-up, instead of letting the warm-up replace its beginning.
    "RESCALE_INTERVAL": False,
    # Iterations between checkpoints.
    "CHECKPOINT_PERIOD": 5000,
    # How many of these checkpoints to keep, the newest; 0 keeps all. The one at the end is not counted.
    "CHECKPOINT_KEEP": 0,
    # Images per iteration, over all processes.
    "IMS_PER_BATCH": 16,
    # Number of processes that this schedule was made for. Where another number runs, batch size, learning
    # rate and lengths are scaled to fit; 0 leaves everything as it is written.
    "REFERENCE_WORLD_SIZE": 0,
    # Learning rate of biases relative to the rest, and their weight decay (None: as the rest).
    "BIAS_LR_FACTOR": 1.0,
    "WEIGHT_DECAY_BIAS": None,
    # Bound the gradients before each step.
    "CLIP_GRADIENTS": {
        "ENABLED": False,
        # "value" clips each element, "norm" the gradient of each parameter, "full_model" all gradients
        # together.
        "CLIP_TYPE": "value",
        # Largest absolute value or norm.
        "CLIP_VALUE": 1.0,
        # p of the norm; inf is the largest absolute value.
        "NORM_TYPE": 2.0,
    },
    # Automatic mixed precision. float16 scales the loss; bfloat16 needs no scaling and also works on CPUs
    # that have it.
    "AMP": {"ENABLED": False, "DTYPE": "float16"},
}

_TEST = {
    # What the final evaluation must reach, checked by verify_results: [task, metric, value, tolerance] each,
    # e.g. [["bbox", "AP", 38.5, 0.2]].
    "EXPECTED_RESULTS": [],
    # Iterations between evaluations; 0 evaluates at the end only.
    "EVAL_PERIOD": 0,
    # Spread of each keypoint in the OKS measure; [] takes COCO's.
    "KEYPOINT_OKS_SIGMAS": [],
    # Of all classes together; the best-scoring ones are kept.
    "DETECTIONS_PER_IMAGE": 100,
    # Refuse to evaluate a checkpoint whose classes have other names, or another order, than those of the
    # data set.
    "CHECK_CLASS_NAMES": True,
    # Test-time augmentation: predictions at several sizes and mirrored are merged.
    "AUG": {
        "ENABLED": False,
        "MIN_SIZES": (400, 500, 600, 700, 800, 900, 1000, 1100, 1200),
        "MAX_SIZE": 4000,
        "FLIP": True,
    },
    # Recompute the statistics of BatchNorm on this many training batches before each evaluation.
    "PRECISE_BN": {"ENABLED": False, "NUM_ITER": 200},
}

DEFAULTS = CN(
    {
        # Version of the keys; files of older versions are upgraded while they are read.
        "VERSION": 2,
        "MODEL": _MODEL,
        "INPUT": _INPUT,
        "DATASETS": _DATASETS,
        "DATALOADER": _DATALOADER,
        "SOLVER": _SOLVER,
        "TEST": _TEST,
        # Where everything that a run writes goes.
        "OUTPUT_DIR": "./output",
        # Seed of all random generators, made different in every process; negative draws one.
        # A fixed seed does not make CUDA kernels deterministic.
        "SEED": -1,
        # Let cuDNN measure which algorithm is quickest; worth it where image sizes repeat.
        "CUDNN_BENCHMARK": False,
        # torch.set_float32_matmul_precision: "highest", "high" or "medium"; "" leaves it.
        "FLOAT32_PRECISION": "",
        # Iterations between pictures of training data and predictions in the event storage; 0 draws none.
        "VIS_PERIOD": 0,
        # For experiments that need a number everywhere; detectron2.config.global_cfg holds it at run time.
        "GLOBAL": {"HACK": 1.0},
    }
)


@cache
def default_tree() -> CN:
    """Return the tree of defaults itself, with the keys that plug-ins of this package declare."""
    add_declared_keys(DEFAULTS, Path(__file__).resolve().parents[1])
    return DEFAULTS


def __getattr__(name: str) -> CN:
    # The name under which projects import the tree to add keys. Files are read when somebody asks for it.
    if name == "_C":
        return default_tree()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
