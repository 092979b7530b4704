"""A whole run from a config: order of hooks, resuming, evaluation, what is said about empty runs."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.engine import AMPTrainer, DefaultTrainer, HookBase, SimpleTrainer, build_evaluator, hooks
from detectron2.engine.evaluators import find_evaluator_type
from detectron2.evaluation import COCOEvaluator, DatasetEvaluators
from detectron2.layers import get_norm
from detectron2.utils.user_errors import UserValueError

from .tiny import equal_weights, weights_of
from .tiny_run import NUM_IMAGES, NumberEvaluator, TinyColourModel, TinyTrainer
from .tiny_run import tiny_cfg as tiny_cfg  # a fixture


def train(cfg: CfgNode, resume: bool = False, cls: type[TinyTrainer] = TinyTrainer) -> TinyTrainer:
    torch.manual_seed(0)
    trainer = cls(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return trainer


def test_a_run_leaves_checkpoints_metrics_and_results(tiny_cfg: CfgNode) -> None:
    trainer = TinyTrainer(tiny_cfg)
    trainer.resume_or_load(resume=False)
    results = trainer.train()
    assert results["number"]["count"] == NUM_IMAGES
    files = set(os.listdir(tiny_cfg.OUTPUT_DIR))
    assert {"model_0000002.pth", "model_0000005.pth", "model_final.pth", "metrics.json"} <= files
    lines = [json.loads(line) for line in Path(tiny_cfg.OUTPUT_DIR, "metrics.json").read_text().splitlines()]
    assert lines[-1]["number/error"] == results["number"]["error"]
    assert lines[0]["iteration"] == 5
    assert {"loss_number", "total_loss", "lr", "time", "data_time"} <= lines[0].keys()


def test_hooks_come_in_the_order_that_they_need(tiny_cfg: CfgNode) -> None:
    tiny_cfg.TEST.PRECISE_BN.ENABLED = True
    trainer = TinyTrainer(tiny_cfg)
    assert [type(hook) for hook in trainer._hooks] == [
        hooks.IterationTimer,
        hooks.LRScheduler,
        hooks.PreciseBN,
        hooks.PeriodicCheckpointer,
        hooks.EvalHook,
        hooks.PeriodicWriter,
    ]


def test_hooks_of_the_outer_trainer_see_the_gradients(tiny_cfg: CfgNode) -> None:
    class SeesGradients(HookBase):
        count = 0

        def after_backward(self) -> None:
            grad = self.trainer.model.linear.weight.grad
            self.count += grad is not None and bool(grad.any())

    hook = SeesGradients()
    trainer = TinyTrainer(tiny_cfg)
    trainer.register_hooks([hook])
    trainer.train()
    assert hook.count == 6


class FixedTrainer(TinyTrainer):
    fixed_order = True


class FixedTrainerFromBatch3(FixedTrainer):
    first_batch = 3


class OwnStep(SimpleTrainer):
    """Writes the step out, as many users do."""

    written: list[tuple[int, str]]

    def run_step(self) -> None:
        loss_dict = self.model(next(self._data_loader_iter))
        self.optimizer.zero_grad()
        sum(loss_dict.values()).backward()
        self.after_backward()
        self._write_metrics(loss_dict, 0.25)
        self.optimizer.step()

    def _write_metrics(self, loss_dict: Any, data_time: float, prefix: str = "") -> None:
        self.written.append((self.iter, prefix))
        super()._write_metrics(loss_dict, data_time, prefix)


class OwnStepTrainer(FixedTrainer):
    """Replaces the inner trainer behind the constructor's back, and adds a hook before the writers."""

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__(cfg)
        own = OwnStep(self.model, self.data_loader, self.optimizer)
        own.written = []
        self._trainer = own

    def build_hooks(self) -> list[HookBase | None]:
        found = super().build_hooks()
        found.insert(-1, hooks.CallbackHook(after_step=lambda trainer: self.ended.append(trainer.iter)))
        return found

    def build_writers(self) -> list[Any]:
        self.ended: list[int] = []
        return super().build_writers()


def test_subclasses_with_a_step_of_their_own_train_to_the_same_bits(tiny_cfg: CfgNode) -> None:
    gradients: list[int] = []

    class SeesGradients(HookBase):
        def after_backward(self) -> None:
            gradients.append(self.trainer.iter)

    usual = train(tiny_cfg, cls=FixedTrainer)
    torch.manual_seed(0)
    own = OwnStepTrainer(tiny_cfg)
    own.register_hooks([SeesGradients()])
    own.train()
    assert equal_weights(weights_of(usual.model), weights_of(own.model))
    for name in ("loss_number", "total_loss"):
        assert own.storage.history(name).values() == usual.storage.history(name).values()
    assert own.storage.latest()["data_time"] == (0.25, 5)
    assert own._trainer.written == [(iteration, "") for iteration in range(6)]
    assert own.ended == gradients == list(range(6))


def test_delayed_losses_of_the_last_step_are_written_by_the_outer_trainer(tiny_cfg: CfgNode) -> None:
    torch.manual_seed(0)
    trainer = TinyTrainer(tiny_cfg)
    trainer._trainer.async_write_metrics = True
    trainer.train()
    assert [iteration for _, iteration in trainer.storage.history("loss_number").values()] == [*range(6)]


@pytest.mark.parametrize("dtype", ["", "bfloat16"])
def test_resumed_run_equals_an_uninterrupted_one(tiny_cfg: CfgNode, dtype: str) -> None:
    tiny_cfg.SOLVER.AMP.ENABLED = bool(dtype)
    tiny_cfg.SOLVER.AMP.DTYPE = dtype or "float16"
    whole = train(tiny_cfg, cls=FixedTrainer)

    os.remove(os.path.join(tiny_cfg.OUTPUT_DIR, "model_final.pth"))
    os.remove(os.path.join(tiny_cfg.OUTPUT_DIR, "model_0000005.pth"))
    Path(tiny_cfg.OUTPUT_DIR, "last_checkpoint").write_text("model_0000002.pth")  # as if killed after it
    resumed = train(tiny_cfg, resume=True, cls=FixedTrainerFromBatch3)
    assert resumed.start_iter == 3
    assert equal_weights(weights_of(whole.model), weights_of(resumed.model))
    rates = [trainer.storage.history("lr").values() for trainer in (whole, resumed)]
    assert rates[0][3:] == rates[1]


def test_finished_run_says_that_nothing_is_trained_and_evaluates(
    tiny_cfg: CfgNode, caplog: pytest.LogCaptureFixture
) -> None:
    first = train(tiny_cfg)
    with caplog.at_level(logging.WARNING):
        second = train(tiny_cfg, resume=True)
    (message,) = [m for m in caplog.messages if "Nothing is trained" in m]
    assert "SOLVER.MAX_ITER is 6" in message
    assert "finished iteration 5" in message
    assert equal_weights(weights_of(first.model), weights_of(second.model))
    assert second._last_eval_results == first._last_eval_results


def test_a_raised_max_iter_trains_on(tiny_cfg: CfgNode) -> None:
    train(tiny_cfg)
    tiny_cfg.SOLVER.MAX_ITER = 8
    second = train(tiny_cfg, resume=True)
    assert [iteration for _, iteration in second.storage.history("lr").values()] == [6, 7]


def test_resume_without_a_checkpoint_starts_at_zero_and_says_so(
    tiny_cfg: CfgNode, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        trainer = train(tiny_cfg, resume=True)
    assert trainer.start_iter == 0
    assert "No checkpoint in" in caplog.text


def test_evaluating_the_checkpoint_repeats_the_numbers_of_the_end(tiny_cfg: CfgNode) -> None:
    trainer = train(tiny_cfg)
    model = TinyTrainer.build_model(tiny_cfg)
    trainer.checkpointer.__class__(model).load(os.path.join(tiny_cfg.OUTPUT_DIR, "model_final.pth"))
    assert TinyTrainer.test(tiny_cfg, model) == trainer._last_eval_results


def test_periodic_evaluation_keeps_training_mode(tiny_cfg: CfgNode) -> None:
    tiny_cfg.TEST.EVAL_PERIOD = 2
    trainer = train(tiny_cfg)
    evaluations = trainer.storage.history("number/error").values()
    assert [iteration for _, iteration in evaluations] == [1, 3, 6]
    assert trainer.model.training


def test_results_of_several_test_sets_are_kept_apart(tiny_cfg: CfgNode) -> None:
    tiny_cfg.DATASETS.TEST = ("tiny_pictures", "tiny_pictures")
    model = TinyTrainer.build_model(tiny_cfg)
    results = TinyTrainer.test(tiny_cfg, model)
    assert list(results) == ["tiny_pictures"]
    assert "number" in results["tiny_pictures"]
    with pytest.raises(ValueError, match="2 test sets need as many evaluators, got 1"):
        TinyTrainer.test(tiny_cfg, model, NumberEvaluator())


def test_given_evaluators_are_used(tiny_cfg: CfgNode) -> None:
    results = DefaultTrainer.test(tiny_cfg, TinyTrainer.build_model(tiny_cfg), NumberEvaluator())
    assert results["number"]["count"] == NUM_IMAGES


def test_a_set_without_evaluator_is_left_out_with_a_warning(
    tiny_cfg: CfgNode, caplog: pytest.LogCaptureFixture
) -> None:
    results = DefaultTrainer.test(tiny_cfg, TinyTrainer.build_model(tiny_cfg))
    assert results == {}
    assert "evaluator_type" in caplog.text


@pytest.mark.parametrize(("expected", "passes"), [(NUM_IMAGES, True), (NUM_IMAGES + 1, False)])
def test_expected_results_are_verified(tiny_cfg: CfgNode, expected: int, passes: bool) -> None:
    tiny_cfg.TEST.EXPECTED_RESULTS = [["number", "count", expected, 0.1]]
    if passes:
        train(tiny_cfg)
    else:
        with pytest.raises(SystemExit):
            train(tiny_cfg)


@pytest.mark.parametrize(
    ("enabled", "dtype", "kind"), [(False, "float16", SimpleTrainer), (True, "bfloat16", AMPTrainer)]
)
def test_precision_comes_from_the_config(tiny_cfg: CfgNode, enabled: bool, dtype: str, kind: Any) -> None:
    tiny_cfg.SOLVER.AMP.ENABLED = enabled
    tiny_cfg.SOLVER.AMP.DTYPE = dtype
    trainer = TinyTrainer(tiny_cfg)
    assert type(trainer._trainer) is kind


def test_unknown_precision_is_an_error(tiny_cfg: CfgNode) -> None:
    tiny_cfg.SOLVER.AMP.ENABLED = True
    tiny_cfg.SOLVER.AMP.DTYPE = "float8"
    with pytest.raises(ValueError, match="SOLVER.AMP.DTYPE.*float16, bfloat16.*float8"):
        TinyTrainer(tiny_cfg)


def test_schedule_is_scaled_to_the_number_of_processes(tiny_cfg: CfgNode) -> None:
    solver = tiny_cfg.SOLVER
    solver.REFERENCE_WORLD_SIZE, solver.IMS_PER_BATCH, solver.BASE_LR = 8, 16, 0.02
    solver.MAX_ITER, solver.STEPS, solver.WARMUP_ITERS, solver.CHECKPOINT_PERIOD = 1000, (600, 800), 100, 50
    tiny_cfg.TEST.EVAL_PERIOD = 500
    tiny_cfg.freeze()
    scaled = DefaultTrainer.auto_scale_workers(tiny_cfg, 16)
    assert scaled.is_frozen()
    assert (scaled.SOLVER.REFERENCE_WORLD_SIZE, scaled.SOLVER.IMS_PER_BATCH) == (16, 32)
    assert scaled.SOLVER.BASE_LR == pytest.approx(0.04)
    assert (scaled.SOLVER.MAX_ITER, scaled.SOLVER.STEPS) == (500, (300, 400))
    assert (scaled.SOLVER.WARMUP_ITERS, scaled.SOLVER.CHECKPOINT_PERIOD) == (50, 25)
    assert scaled.TEST.EVAL_PERIOD == 250
    assert tiny_cfg.SOLVER.MAX_ITER == 1000
    assert DefaultTrainer.auto_scale_workers(tiny_cfg, 8) is tiny_cfg
    assert DefaultTrainer.auto_scale_workers(scaled, 8).SOLVER.MAX_ITER == 1000


def test_a_batch_that_does_not_split_is_an_error(tiny_cfg: CfgNode) -> None:
    tiny_cfg.SOLVER.REFERENCE_WORLD_SIZE = 4
    with pytest.raises(ValueError, match="IMS_PER_BATCH 2"):
        DefaultTrainer.auto_scale_workers(tiny_cfg, 8)


class FakeEvaluator(NumberEvaluator):
    """Takes the place of evaluators that read annotation files."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args = args
        self.kwargs = kwargs


def test_evaluators_follow_the_metadata(tiny_cfg: CfgNode, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {name: type(name, (FakeEvaluator,), {}) for name in ("SemSegEvaluator", "COCOEvaluator")}
    kinds["COCOPanopticEvaluator"] = type("COCOPanopticEvaluator", (FakeEvaluator,), {})
    for name, kind in kinds.items():
        monkeypatch.setattr(f"detectron2.engine.evaluators.{name}", kind)
    tiny_cfg.TEST.DETECTIONS_PER_IMAGE = 300

    boxes = build_evaluator(tiny_cfg, "coco_2017_val")
    assert isinstance(boxes, kinds["COCOEvaluator"])
    assert boxes.kwargs["output_dir"] == os.path.join(tiny_cfg.OUTPUT_DIR, "inference")
    assert boxes.kwargs["max_dets_per_image"] == [1, 10, 300]

    panoptic = build_evaluator(tiny_cfg, "coco_2017_val_panoptic_separated", "elsewhere")
    assert isinstance(panoptic, DatasetEvaluators)
    assert [type(evaluator) for evaluator in panoptic._evaluators] == list(kinds.values())
    assert panoptic._evaluators[2].args == ("coco_2017_val_panoptic_separated", "elsewhere")
    for model, kind in (("SemanticSegmentor", "SemSegEvaluator"), ("GeneralizedRCNN", "COCOEvaluator")):
        tiny_cfg.MODEL.META_ARCHITECTURE = model
        part = build_evaluator(tiny_cfg, "coco_2017_val_panoptic_separated")
        assert isinstance(part, kinds[kind])


def test_an_unknown_kind_of_evaluator_is_an_error_that_lists_the_known(tiny_cfg: CfgNode) -> None:
    MetadataCatalog.get("tiny_pictures").evaluator_type = "tarot"
    with pytest.raises(NotImplementedError, match="'tarot'.*coco_panoptic_seg"):
        build_evaluator(tiny_cfg, "tiny_pictures")


def test_the_kind_of_evaluator_follows_from_the_metadata_where_it_is_forgotten(
    tiny_cfg: CfgNode, caplog: pytest.LogCaptureFixture
) -> None:
    metadata = MetadataCatalog.get("tiny_pictures")
    with pytest.raises(NotImplementedError, match=r"evaluator_type=None.*Set MetadataCatalog"):
        find_evaluator_type("tiny_pictures")
    metadata.stuff_classes = ["sky"]
    assert find_evaluator_type("tiny_pictures") == "sem_seg"
    metadata.thing_classes = ["cat"]
    assert isinstance(build_evaluator(tiny_cfg, "tiny_pictures"), COCOEvaluator)
    assert "no evaluator_type" in caplog.text and "evaluated as 'coco'" in caplog.text


def test_own_evaluators_may_get_along_with_other_metadata(tiny_cfg: CfgNode) -> None:
    MetadataCatalog.get("tiny_pictures").set(evaluator_type="pascal_voc", json_file=["a.json", "b.json"])
    TinyTrainer(tiny_cfg)
    with pytest.raises(UserValueError, match="evaluated as 'pascal_voc', which needs 'dirname'"):
        DefaultTrainer(tiny_cfg)


def test_a_set_that_cannot_be_evaluated_is_found_before_training(
    tiny_cfg: CfgNode, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    DefaultTrainer(tiny_cfg)
    assert "tiny_pictures will not be evaluated" in caplog.text
    MetadataCatalog.get("tiny_pictures").evaluator_type = "sem_seg"
    with pytest.raises(UserValueError, match="needs 'stuff_classes' in its metadata"):
        DefaultTrainer(tiny_cfg)
    MetadataCatalog.get("tiny_pictures").stuff_classes = ["sky", "sea"]
    keys = {"stuff": "MODEL.SEM_SEG_HEAD.NUM_CLASSES"}
    monkeypatch.setattr(TinyColourModel, "class_count_keys", keys, raising=False)
    with pytest.raises(UserValueError, match=r"2 stuff_classes.*NUM_CLASSES is 54.*stands in DATASETS.TEST"):
        DefaultTrainer(tiny_cfg)
    MetadataCatalog.get("tiny_pictures").json_file = str(Path(tiny_cfg.OUTPUT_DIR, "truth.json"))
    DefaultTrainer(tiny_cfg)
    assert "truth.json does not exist" in caplog.text
    Path(tiny_cfg.OUTPUT_DIR, "truth.json").touch()
    TinyTrainer(tiny_cfg)  # whose evaluator may get along with it
    assert "NUM_CLASSES is 54" in caplog.text
    tiny_cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = -1
    assert DefaultTrainer(tiny_cfg).cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 2


@pytest.mark.parametrize(("norm", "weights", "warns"), [("FrozenBN", "", True), ("BN", "", False)])
def test_random_weights_behind_frozen_norms_are_a_warning(
    tiny_cfg: CfgNode, caplog: pytest.LogCaptureFixture, norm: str, weights: str, warns: bool
) -> None:
    class WithNorm(TinyTrainer):
        @classmethod
        def build_model(cls, cfg: CfgNode) -> torch.nn.Module:
            model = super().build_model(cfg)
            model.norm = get_norm(cfg.MODEL.RESNETS.NORM, 1)
            return model

    tiny_cfg.MODEL.RESNETS.NORM, tiny_cfg.MODEL.WEIGHTS = norm, weights
    with caplog.at_level(logging.WARNING):
        WithNorm(tiny_cfg).resume_or_load(resume=False)
    assert ("MODEL.RESNETS.NORM BN" in caplog.text) is warns
