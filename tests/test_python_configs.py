"""The shipped Python configs: the values that were published, and models that train and predict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from detectron2.config import LazyConfig, get_cfg, instantiate
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances, Keypoints, PolygonMasks
from detectron2.utils.events import EventStorage

ROOT = Path(__file__).resolve().parents[1] / "configs"
RUN_SECTIONS = {"model", "dataloader", "optimizer", "lr_multiplier", "train"}
BASELINES = ["R_50", "R_101", "regnetx_4gf_dds", "regnety_4gf_dds"]
HEIGHT, WIDTH = 64, 96


def run_configs() -> list[str]:
    found = (path.relative_to(ROOT).as_posix() for path in sorted(ROOT.rglob("*.py")))
    return [name for name in found if not name.startswith("common/")]


def load(name: str) -> DictConfig:
    return LazyConfig.load(str(ROOT / name))


def model_configs() -> list[str]:
    """One config of every model; longer runs of the same model are left out."""
    longer = tuple(f"{epochs}ep_LSJ.py" for epochs in (50, 200, 400))
    found = [name for name in run_configs() if not name.endswith(longer)]
    return [*found, "common/models/cascade_rcnn.py", "common/models/mask_rcnn_vitdet.py"]


def test_the_published_files_are_there() -> None:
    instance, new = "COCO-InstanceSegmentation/mask_rcnn", "new_baselines/mask_rcnn"
    expected = {f"COCO-Detection/{name}_R_50_FPN_1x.py" for name in ("fcos", "retinanet")}
    expected |= {f"{instance}_{name}_1x.py" for name in ("R_50_C4", "R_50_FPN")}
    expected |= {f"{instance}_{name}_fpn_1x.py" for name in BASELINES[2:]}
    expected |= {
        "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.py",
        "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.py",
    }
    expected |= {f"{new}_{name}_FPN_{epochs}ep_LSJ.py" for name in BASELINES for epochs in (100, 200, 400)}
    expected |= {f"{new}_R_50_FPN_50ep_LSJ.py"}
    assert set(run_configs()) == expected


@pytest.mark.parametrize("name", run_configs())
def test_config_of_a_run_is_complete(name: str, tmp_path: Path) -> None:
    cfg = load(name)
    assert set(cfg) == RUN_SECTIONS
    path = tmp_path / "config.yaml"
    LazyConfig.save(cfg, str(path))
    # What was saved builds the same model.
    assert LazyConfig.load(str(path)).model.backbone._target_.endswith(("FPN", "ResNet"))
    scheduler = instantiate(cfg.lr_multiplier)
    assert (
        scheduler(0.0) < 0.1
        and scheduler(0.5) == pytest.approx(1.0)
        and scheduler(0.99) == pytest.approx(0.01)
    )


@pytest.mark.parametrize(
    ("name", "yaml"),
    [
        ("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py", None),
        ("COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.py", None),
        ("COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.py", None),
        ("COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.py", None),
        ("COCO-Detection/retinanet_R_50_FPN_1x.py", None),
        ("common/models/cascade_rcnn.py", "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml"),
    ],
)
def test_same_run_as_the_yaml_config(name: str, yaml: str | None) -> None:
    cfg, twin = load(name), get_cfg()
    twin.merge_from_file(str(ROOT / (yaml or name.replace(".py", ".yaml"))))
    if yaml:  # this file alone trains on more proposals
        twin.MODEL.RPN.POST_NMS_TOPK_TRAIN = 1000
    twin.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        model, twin_model = instantiate(cfg.model), build_model(twin)
    expected = {key: value.shape for key, value in twin_model.state_dict().items()}
    assert {key: value.shape for key, value in model.state_dict().items()} == expected
    assert settings_of(model) == settings_of(twin_model)
    if "train" not in cfg:
        return
    trained = {key for key, value in twin_model.named_parameters() if value.requires_grad}
    assert {key for key, value in model.named_parameters() if value.requires_grad} == trained
    assert cfg.train.init_checkpoint == twin.MODEL.WEIGHTS
    assert cfg.train.max_iter == twin.SOLVER.MAX_ITER
    assert cfg.lr_multiplier.scheduler.milestones == list(twin.SOLVER.STEPS)
    assert (cfg.optimizer.lr, cfg.optimizer.weight_decay) == (twin.SOLVER.BASE_LR, twin.SOLVER.WEIGHT_DECAY)
    loader = cfg.dataloader
    assert (loader.train.dataset.names,) == twin.DATASETS.TRAIN
    assert (loader.test.dataset.names,) == twin.DATASETS.TEST
    assert loader.train.total_batch_size == twin.SOLVER.IMS_PER_BATCH
    assert tuple(loader.train.mapper.augmentations[0].short_edge_length) == twin.INPUT.MIN_SIZE_TRAIN
    assert (
        loader.train.mapper.use_keypoint
        if twin.MODEL.KEYPOINT_ON
        else "use_keypoint" not in loader.train.mapper
    )
    assert loader.train.mapper.use_instance_mask == twin.MODEL.MASK_ON


def settings_of(model: torch.nn.Module) -> dict[str, Any]:
    """What modules keep as plain attributes; what only steers drawing is left out."""
    kept: dict[str, Any] = {}
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if key in ("training", "vis_period", "input_format") or key.startswith("_"):
                continue
            if key == "loss_weight" and isinstance(value, dict):
                value = {"loss_cls": 1.0, **value}  # which is 1 where it is not said
            value = as_plain(value)
            if isinstance(value, (int, float, str, list, dict)):
                kept[f"{name}.{key}"] = value
    return kept


def as_plain(value: Any) -> Any:
    """Sequences of any kind as lists, small objects such as matchers as dicts."""
    if type(value).__module__.startswith("detectron2."):
        return {key: as_plain(part) for key, part in vars(value).items()}
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    return [as_plain(item) for item in value] if is_list else value


def test_large_scale_jitter_runs() -> None:
    for model in BASELINES:
        base = load(f"new_baselines/mask_rcnn_{model}_FPN_100ep_LSJ.py")
        assert base.train.max_iter == 184375 and base.dataloader.train.total_batch_size == 64
        assert list(base.lr_multiplier.scheduler.milestones) == [163889, 177546]
        assert base.lr_multiplier.warmup_length == pytest.approx(500 / 184375)
        assert (base.optimizer.lr, base.optimizer.weight_decay) == (0.1, 4e-5)
        for epochs in (200, 400):
            cfg = load(f"new_baselines/mask_rcnn_{model}_FPN_{epochs}ep_LSJ.py")
            factor = epochs // 100
            assert cfg.train.max_iter == cfg.lr_multiplier.scheduler.num_updates == 184375 * factor
            assert list(cfg.lr_multiplier.scheduler.milestones) == [163889 * factor, 177546 * factor]
            for section in ("model", "optimizer", "dataloader"):
                assert plain(cfg[section]) == plain(base[section])
    half = load("new_baselines/mask_rcnn_R_50_FPN_50ep_LSJ.py")
    assert half.train.max_iter == 92187
    assert list(half.lr_multiplier.scheduler.milestones) == [81944, 88773]
    assert load("new_baselines/mask_rcnn_R_101_FPN_400ep_LSJ.py").model.backbone.bottom_up.stages.depth == 101


def plain(cfg: DictConfig) -> Any:
    return OmegaConf.to_container(cfg, resolve=False)


def test_schedules_of_every_length() -> None:
    expected = {
        1: (60000, 80000),
        2: (120000, 160000),
        3: (210000, 250000),
        6: (480000, 520000),
        9: (750000, 790000),
    }
    for length, drops in expected.items():
        schedule = LazyConfig.load(str(ROOT / "common/coco_schedule.py"), f"lr_multiplier_{length}x")
        assert tuple(schedule.scheduler.milestones) == drops
        multiplier = instantiate(schedule)
        max_iter = 90000 * length
        assert multiplier(0.0) == pytest.approx(0.001)
        assert multiplier(500 / max_iter) == pytest.approx(0.5005)
        assert multiplier((drops[0] - 1) / max_iter) == pytest.approx(1)
        assert multiplier((drops[0] + 1) / max_iter) == pytest.approx(0.1)
        assert multiplier((drops[1] + 1) / max_iter) == pytest.approx(0.01)


def test_optimizers_of_a_model() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.LayerNorm(3))
    for name, lr in (("SGD", 0.02), ("AdamW", 1e-4)):
        cfg = LazyConfig.load(str(ROOT / "common/optim.py"), name)
        cfg.params.model = model
        optimizer = instantiate(cfg)
        assert type(optimizer).__name__ == name
        decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
        assert all(group["lr"] == lr for group in optimizer.param_groups)
        assert decay[id(model[0].weight)] == cfg.weight_decay > 0
        assert decay[id(model[1].weight)] == 0


def make_input(num_classes: int, num_stuff: int) -> dict[str, Any]:
    """One image with two objects and all that any of the models wants to know about it."""
    rng = np.random.default_rng(0)
    boxes = np.array([[5, 6, 50, 40], [30, 20, 90, 60]], "float32")
    keypoints = np.full((2, 17, 3), 2, "float32")
    keypoints[:, :, :2] = boxes[:, None, :2] + rng.uniform(1, 30, (2, 17, 2))
    instances = Instances((HEIGHT, WIDTH))
    instances.gt_boxes = Boxes(torch.from_numpy(boxes))
    instances.gt_classes = torch.tensor([0, num_classes - 1])
    instances.gt_masks = PolygonMasks([[np.array([x0, y0, x1, y0, x1, y1])] for x0, y0, x1, y1 in boxes])
    instances.gt_keypoints = Keypoints(keypoints)
    return {
        "image": torch.from_numpy(rng.integers(0, 256, (3, HEIGHT, WIDTH))).to(torch.uint8),
        "sem_seg": torch.from_numpy(rng.integers(0, num_stuff, (HEIGHT, WIDTH))),
        "instances": instances,
    }


def narrow(model: DictConfig) -> None:
    """Make what takes long small; what the model is made of stays."""
    if "square_pad" in model.backbone:
        model.backbone.square_pad = 128
        model.backbone.net.update(depth=2, window_block_indexes=[0])
        return
    net = model.backbone.get("bottom_up", model.backbone)
    if "stages" in net:
        net.stages.depth = 50
    if "proposal_generator" in model:
        model.proposal_generator.update(pre_nms_topk=(60, 60), post_nms_topk=(20, 20))
        model.roi_heads.batch_size_per_image = 16
        if "box_head" in model.roi_heads:
            model.roi_heads.box_head.fc_dims = [1024]
        if "keypoint_head" in model.roi_heads:
            model.roi_heads.keypoint_head.conv_dims = [32, 32]


@pytest.mark.parametrize("name", model_configs())
def test_model_trains_and_predicts(name: str) -> None:
    torch.manual_seed(0)
    cfg = load(name)
    narrow(cfg.model)
    has_heads = "roi_heads" in cfg.model
    model = without_sync(instantiate(cfg.model))
    num_classes = cfg.model.roi_heads.num_classes if has_heads else cfg.model.num_classes
    image = make_input(num_classes, cfg.model.get("sem_seg_head", {}).get("num_classes", 1))

    optimizer_cfg = cfg.get("optimizer", LazyConfig.load(str(ROOT / "common/optim.py"), "SGD"))
    optimizer_cfg.params.model = model
    optimizer_cfg.lr = 1e-4
    optimizer = instantiate(optimizer_cfg)
    with EventStorage():
        losses = model.train()([image])
    assert losses and all(loss.isfinite() for loss in losses.values()), losses
    sum(losses.values()).backward()
    trained = [(key, value) for key, value in model.named_parameters() if value.requires_grad]
    assert [key for key, value in trained if value.grad is None] == []
    before = trained[-1][1].detach().clone()
    optimizer.step()
    assert not torch.equal(trained[-1][1], before)

    with torch.no_grad():
        (result,) = model.eval()([image])
    assert result["instances"].image_size == (HEIGHT, WIDTH)
    assert ("panoptic_seg" in result) == ("sem_seg_head" in cfg.model)
    assert result["instances"].has("pred_masks") == (has_heads and "mask_head" in cfg.model.roi_heads)
    assert result["instances"].has("pred_keypoints") == (has_heads and "keypoint_head" in cfg.model.roi_heads)


def without_sync(model: torch.nn.Module) -> torch.nn.Module:
    """Replace `SyncBatchNorm`, which runs on GPUs only, by the norm that it equals in one process."""
    for name, child in model.named_children():
        if isinstance(child, torch.nn.SyncBatchNorm):
            norm = torch.nn.BatchNorm2d(child.num_features, child.eps, child.momentum)
            norm.load_state_dict(child.state_dict())
            setattr(model, name, norm)
        else:
            without_sync(child)
    return model
