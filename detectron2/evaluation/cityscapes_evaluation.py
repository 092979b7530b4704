"""Cityscapes's own scores, computed by its package cityscapesscripts, which is optional.

Shapes: R instances of one image, C classes, H x W its size.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import logging
import os
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from detectron2.data.catalog import MetadataCatalog
from detectron2.data.datasets.builtin_meta import CITYSCAPES_CATEGORIES
from detectron2.evaluation.evaluator import DatasetEvaluator
from detectron2.evaluation.tables import format_metrics_table
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from detectron2.utils.user_errors import UserFileNotFoundError, UserImportError, UserValueError

logger = logging.getLogger(__name__)

__all__ = ["CityscapesEvaluator", "CityscapesInstanceEvaluator", "CityscapesSemSegEvaluator"]

_IDS_BY_TRAIN_ID = np.array([category["id"] for category in CITYSCAPES_CATEGORIES], dtype=np.uint8)
_ID_OF_NAME = {category["name"]: category["id"] for category in CITYSCAPES_CATEGORIES}


class CityscapesEvaluator(DatasetEvaluator):
    """What both evaluators share: predictions are files in a temporary folder, which all processes must see.

    So all processes have to run on one machine. A subclass writes files into `_temp_dir` and scores them.
    Called itself, this class makes a `CityscapesInstanceEvaluator`, which in the first releases had its name.
    """

    _script: str | None = None  # of cityscapesscripts.evaluation
    _truth_suffix: str
    _prediction_suffix: str

    def __new__(cls, *_args: Any, **_kwargs: Any) -> CityscapesEvaluator:
        return super().__new__(CityscapesInstanceEvaluator if cls is CityscapesEvaluator else cls)

    def __init__(self, dataset_name: str) -> None:
        """
        Args:
            dataset_name: a registered data set with `gt_dir` in its metadata.
        """
        self._dataset_name = dataset_name
        self._metadata = MetadataCatalog.get(dataset_name)
        self._cpu_device = torch.device("cpu")
        self._logger = logger
        self._module = None if self._script is None else _import_script(self._script)
        self._remove_folder: Callable[[], Any] = lambda: None

    def reset(self) -> None:
        self._remove_folder()
        self._working_dir = tempfile.TemporaryDirectory(prefix="cityscapes_eval_")
        # Also when this evaluator is dropped before it has evaluated.
        self._remove_folder = weakref.finalize(self, self._working_dir.cleanup)
        self._temp_dir = comm.all_gather(self._working_dir.name)[0]
        if self._temp_dir != self._working_dir.name:
            self._remove_folder()  # that of the main process is everyone's
        if not os.path.isdir(self._temp_dir):
            raise RuntimeError(
                f"The folder {self._temp_dir!r} of the main process is not seen by another one: evaluation "
                "on Cityscapes needs all processes on one machine"
            )

    def _prediction_path(self, image_name: str, suffix: str) -> str:
        """Path of a prediction for an image, which is given by its path or that of its ground truth."""
        scene = "_".join(os.path.basename(image_name).split("_")[:3])
        return os.path.join(self._temp_dir, f"{scene}_{suffix}")

    def _evaluate_files(self) -> dict[str, Any]:
        """Pair predictions with the ground truth and score them."""
        comm.synchronize()
        if not comm.is_main_process():
            return {}
        gt_dir = PathManager.get_local_path(os.fspath(self._metadata.gt_dir))
        truth = list(_files_below(gt_dir, self._truth_suffix))
        if not truth:
            raise UserFileNotFoundError(
                f"There is no ground truth, <city>/*{self._truth_suffix}, in {gt_dir!r}"
            )
        predictions = [self._prediction_path(path, self._prediction_suffix) for path in truth]
        missing = [path for path, prediction in zip(truth, predictions) if not os.path.isfile(prediction)]
        if missing:
            raise UserValueError(
                f"{len(missing)} of {len(truth)} images of '{self._dataset_name}' have no prediction, "
                f"{missing[0]!r} among them; Cityscapes scores whole splits"
            )
        script: Any = self._module
        args = copy.copy(script.args)  # the script keeps its settings in a global object
        args.predictionPath = os.path.abspath(self._temp_dir)
        args.predictionWalk = None
        args.JSONOutput = args.colorized = False
        args.quiet = True
        args.gtInstancesFile = os.path.join(self._temp_dir, "gtInstances.json")
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                scores = self._run_script(predictions, truth, args)
        except SystemExit as e:
            raise RuntimeError(
                "cityscapesscripts could not score the predictions; see its message above"
            ) from e
        logger.info("Evaluation results of Cityscapes:\n%s", format_metrics_table(scores))
        self._remove_folder()
        return scores

    def _run_script(self, predictions: list[str], truth: list[str], args: Any) -> dict[str, float]:
        raise NotImplementedError


class CityscapesInstanceEvaluator(CityscapesEvaluator):
    """Score masks with Cityscapes's AP and AP50."""

    _script = "evalInstanceLevelSemanticLabeling"
    _truth_suffix = "_gtFine_instanceIds.png"
    _prediction_suffix = "pred.txt"

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Take in one batch.

        Args:
            inputs: with "file_name", one per image.
            outputs: with "instances" that have `pred_masks` (R, H, W), in the frame of the original image;
                without them the image counts as one in which nothing was found.
        """
        for image, output in zip(inputs, outputs):
            lines = []
            if "instances" in output and len(output["instances"]):
                instances = output["instances"].to(self._cpu_device)
                rows = zip(instances.pred_classes.tolist(), instances.scores.tolist(), instances.pred_masks)
                for number, (category, score, mask) in enumerate(rows):
                    name = self._metadata.thing_classes[category]
                    if name not in _ID_OF_NAME:
                        raise UserValueError(
                            f"Cityscapes has no class {name!r}; it has {sorted(_ID_OF_NAME)}"
                        )
                    path = self._prediction_path(image["file_name"], f"{number}.png")
                    Image.fromarray(mask.numpy().astype(np.uint8) * 255).save(path)
                    lines.append(f"{os.path.basename(path)} {_ID_OF_NAME[name]} {score}\n")
            with open(self._prediction_path(image["file_name"], self._prediction_suffix), "w") as file:
                file.writelines(lines)

    def evaluate(self) -> dict[str, Any]:
        """Score what was collected: "segm" with AP and AP50 in percent; empty on other processes."""
        scores = self._evaluate_files()
        return OrderedDict(segm=scores) if scores else {}

    def _run_script(self, predictions: list[str], truth: list[str], args: Any) -> dict[str, float]:
        script: Any = self._module
        # Its evaluateImgLists does the same, and leaves a file in the working directory.
        script.setInstanceLabels(args)
        objects = script.getGtInstances(truth, args)
        matches = script.matchGtWithPreds(predictions, truth, objects, args)
        averages = script.computeAverages(script.evaluateMatches(matches, args), args)
        return {"AP": 100 * float(averages["allAp"]), "AP50": 100 * float(averages["allAp50%"])}


class CityscapesSemSegEvaluator(CityscapesEvaluator):
    """Score semantic segmentation with Cityscapes's IoU and its instance-weighted form."""

    _script = "evalPixelLevelSemanticLabeling"
    _truth_suffix = "_gtFine_labelIds.png"
    _prediction_suffix = "pred.png"

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Take in one batch.

        Args:
            inputs: with "file_name", one per image.
            outputs: with "sem_seg", (C, H, W) scores of the 19 training ids, in the frame of the original
                image.
        """
        for image, output in zip(inputs, outputs):
            train_ids = output["sem_seg"].argmax(dim=0).cpu().numpy()  # (H, W)
            path = self._prediction_path(image["file_name"], self._prediction_suffix)
            Image.fromarray(_IDS_BY_TRAIN_ID[train_ids]).save(path)

    def evaluate(self) -> dict[str, Any]:
        """Score what was collected.

        Returns:
            "sem_seg" with IoU and iIoU over classes, IoU_sup and iIoU_sup over their groups, in percent;
            empty on other processes.
        """
        scores = self._evaluate_files()
        return OrderedDict(sem_seg=scores) if scores else {}

    def _run_script(self, predictions: list[str], truth: list[str], args: Any) -> dict[str, float]:
        script: Any = self._module
        averages = script.evaluateImgLists(predictions, truth, args)
        keys = {
            "IoU": "Classes",
            "IoU_sup": "Categories",
            "iIoU": "InstClasses",
            "iIoU_sup": "InstCategories",
        }
        return {name: 100 * float(averages[f"averageScore{key}"]) for name, key in keys.items()}


def _files_below(folder: str, suffix: str) -> Iterator[str]:
    """Files `<folder>/<city>/*<suffix>`, in order."""
    for city in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if city.is_dir():
            yield from (
                os.path.join(city.path, name)
                for name in sorted(os.listdir(city.path))
                if name.endswith(suffix)
            )


class _NumpyOfScripts:
    """NumPy with the name `in1d`, which it has dropped and cityscapesscripts 2.3 still calls."""

    in1d = staticmethod(np.isin)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def _import_script(name: str) -> Any:
    try:
        script: Any = importlib.import_module(f"cityscapesscripts.evaluation.{name}")
        script.np = _NumpyOfScripts()
        return script
    except ImportError as e:
        raise UserImportError(
            f"Evaluation on Cityscapes needs its own package, which this one does not install ({e}). "
            "Install it with `pip install cityscapesscripts`"
        ) from e
