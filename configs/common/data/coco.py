"""COCO 2017 with boxes and masks."""

from omegaconf import OmegaConf

from detectron2.config import LazyCall as L
from detectron2.data import DatasetMapper
from detectron2.data import build_detection_test_loader as make_test_loader
from detectron2.data import build_detection_train_loader as make_train_loader
from detectron2.data import get_detection_dataset_dicts as read
from detectron2.data import transforms as T
from detectron2.evaluation import COCOEvaluator

_resize_train = L(T.ResizeShortestEdge)(
    short_edge_length=tuple(range(640, 801, 32)), max_size=1333, sample_style="choice"
)
_resize_test = L(T.ResizeShortestEdge)(short_edge_length=800, max_size=1333)

dataloader = OmegaConf.create({"train": None, "test": None, "evaluator": None}, flags={"allow_objects": True})
dataloader.train = L(make_train_loader)(
    dataset=L(read)(names="coco_2017_train"),
    mapper=L(DatasetMapper)(
        is_train=True,
        image_format="BGR",
        augmentations=[_resize_train, L(T.RandomFlip)(horizontal=True)],
        use_instance_mask=True,
    ),
    total_batch_size=16,
    num_workers=4,
)
dataloader.test = L(make_test_loader)(
    dataset=L(read)(names="coco_2017_val", filter_empty=False),
    mapper=L(DatasetMapper)(
        is_train=False,
        image_format="${...train.mapper.image_format}",
        augmentations=[_resize_test],
    ),
    num_workers=4,
)
dataloader.evaluator = L(COCOEvaluator)(dataset_name="${..test.dataset.names}")
