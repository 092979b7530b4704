"""Saving a model with all that training needs to go on, and loading weights from wherever they come."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import torch
from fvcore.common.checkpoint import Checkpointer
from torch import Tensor, nn

from detectron2.utils import comm
from detectron2.utils.file_io import PathManager, atomic_write, set_aside
from detectron2.utils.user_errors import UserFileNotFoundError, UserValueError

from .class_names import classes_in_notes, describe_difference, expected_classes, remember_learned
from .class_rows import Classes, move_rows
from .load_report import describe_differences, describe_load
from .notes import NOTES_KEY, versions
from .placing import as_tensors, describe_no_match, find_aliases, find_places, is_obsolete
from .published_weights import advise_on_missing
from .reading import CheckpointFileError, read_checkpoint_file
from .vetting import Exchange, refuse_unusable

__all__ = ["DetectionCheckpointer"]

logger = logging.getLogger(__name__)

_LAST = "last_checkpoint"

_written_here: set[str] = set()
"""Files that this process has written: it may train several times in one folder."""


class IncompatibleKeys(NamedTuple):
    """What of a checkpoint and a model found no partner.

    Attributes:
        missing_keys: of the model, absent from the checkpoint.
        unexpected_keys: of the checkpoint, absent from the model.
        incorrect_shapes: (name in the model, shape in the checkpoint, shape in the model).
    """

    missing_keys: list[str]
    unexpected_keys: list[str]
    incorrect_shapes: list[tuple[str, tuple[int, ...], tuple[int, ...]]]


class _LoadSummary(NamedTuple):
    """What is logged about a load beside the incompatible keys."""

    num_matched: int
    num_tensors: int
    skipped: list[str]
    is_surprise: bool


class DetectionCheckpointer(Checkpointer):  # type: ignore[misc]  # fvcore has no type information
    """Save and load a model and everything that belongs to its training.

    Loads its own files, the model zoo's and Detectron's `.pkl`, `.safetensors`, and ImageNet backbones under
    the names of other packages, as far as the backbone has registered a `WeightTranslator` for them. Reading
    a file never runs code from it. Files appear under their name only when they are complete, and a load
    that fails leaves the model as it was.

    Attributes:
        notes: plain data about the run that `save` puts into every file, under the key "detectron2", which
            other loaders ignore.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        save_to_disk: bool | None = None,
        **checkpointables: Any,
    ) -> None:
        """
        Args:
            model: wrapped in DistributedDataParallel or not.
            save_dir: where `save` writes and `resume_or_load` looks.
            save_to_disk: None means: only in the main process.
            checkpointables: objects with `state_dict` and `load_state_dict` to save along, such as
                `optimizer`.
        """
        if save_to_disk is None:
            save_to_disk = comm.is_main_process()
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)
        self.path_manager = PathManager
        self.logger = logger
        self.notes: Mapping[str, Any] = {}
        self._exchange: Exchange | None = None
        self._last_load: _LoadSummary | None = None
        self._classes: Classes | None = None
        self._is_fine_tuning = False
        self._continues = False

    def save(self, name: str, **kwargs: Any) -> None:
        """Write `<save_dir>/<name>.pth` and mark it as the last checkpoint.

        A file of this name that an earlier training left is kept under another, unless this one continues it.

        Args:
            name: a file name without suffix.
            kwargs: plain data to save along, such as `iteration`.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        if os.path.basename(name) != name:
            raise UserValueError(f"a checkpoint is named by a file name without folders, got {name!r}")
        data = {"model": self.model.state_dict()}
        data |= {key: item.state_dict() for key, item in self.checkpointables.items()}
        data[NOTES_KEY] = {"versions": versions(), **self.notes}
        data |= kwargs
        path = os.path.join(self.save_dir, f"{name}.pth")
        if self.checkpointables and not self._continues and path not in _written_here:
            set_aside(path)  # what a training in another process has left
        _written_here.add(path)
        logger.info("Saving checkpoint to %s", path)
        with atomic_write(path) as file:
            torch.save(data, file)
        self.tag_last_checkpoint(os.path.basename(path))

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Remember which file of `save_dir` training resumes from."""
        with atomic_write(os.path.join(self.save_dir, _LAST), "w") as file:
            file.write(last_filename_basename)

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load weights and, if the file has them, the states of the checkpointables.

        Args:
            path: a file or address; "?matching_heuristics=True" at its end matches names by their endings.
                Nothing is loaded from "".
            args, kwargs: `checkpointables`, the names of those to load; None means all.

        Returns:
            What else the file holds, such as `iteration`.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, or its weights are not those of this model.
        """
        return self._load(path, *args, **kwargs)

    def _load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        if not path:
            logger.info("No checkpoint given, the model starts from its own initialisation")
            return {}
        address, query = _split_query(path)
        logger.info("Loading checkpoint %s", address)
        checkpoint = self._read(address)
        if query.get("matching_heuristics") == ["True"]:
            checkpoint["matching_heuristics"] = True
        self._exchange, self._last_load = Exchange(self.model), None
        self._classes = classes_in_notes(checkpoint.get(NOTES_KEY))
        # A training that starts from a file, and does not go on with it, may be for other classes.
        self._is_fine_tuning = bool(self.checkpointables) and checkpointables == []
        try:
            with self._exchange.undone_on_error():
                self._load_weights(checkpoint, address)
                for key in self.checkpointables if checkpointables is None else checkpointables:
                    if key in checkpoint:
                        logger.info("Loading the state of %s from %s", key, address)
                        self._load_checkpointable(key, checkpoint.pop(key), address)
        finally:
            self._exchange = None
        remember_learned(self.model, self._classes, address)
        self._continues = checkpointables is None and os.path.dirname(address) == self.save_dir.rstrip("/")
        return checkpoint

    def _load_weights(self, checkpoint: dict[str, Any], address: str) -> None:
        try:
            incompatible = self._load_model(checkpoint)
        except CheckpointFileError as error:
            raise CheckpointFileError(f"{address}: {error}{self._advise_on(address)}") from error
        except ValueError as error:
            raise UserValueError(f"{address}: {error}") from error
        if incompatible is not None:  # a subclass may say nothing
            self._log_incompatible_keys(incompatible)

    def _load_checkpointable(self, key: str, state: Any, address: str) -> None:
        try:
            self.checkpointables[key].load_state_dict(state)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError) as error:
            raise UserValueError(
                f"{address}: the state of {key} does not fit ({type(error).__name__}: {error}); to take only"
                " the weights, give the file as MODEL.WEIGHTS of a run that does not resume"
            ) from error

    def get_checkpoint_file(self) -> str:
        """Return the path of the last checkpoint in `save_dir`, "" if there is none."""
        try:
            with self.path_manager.open(os.path.join(self.save_dir, _LAST), "r") as file:
                name: str = file.read().strip()
        except OSError:
            return ""  # another process may just have removed it
        return os.path.join(self.save_dir, name)

    def _read(self, address: str) -> dict[str, Any]:
        """Read a checkpoint in every process, through the main one where some do not see the file."""
        path = self.path_manager.get_local_path(address)
        is_here = os.path.isfile(path)
        everywhere = comm.all_gather(is_here)
        if not any(everywhere):
            advice = self._advise_on(address) or advise_on_missing(address)
            raise UserFileNotFoundError(f"there is no checkpoint {address}{advice}")
        if not all(everywhere):
            source = everywhere.index(True)
            logger.warning("Not every process can read %s: it is sent over from process %d", address, source)
            sent = comm.all_gather(self._load_file(path) if comm.get_rank() == source else None)
            checkpoint: dict[str, Any] = sent[source]
            return checkpoint
        try:
            return self._load_file(path)
        except CheckpointFileError as error:
            raise CheckpointFileError(f"{error}{self._advise_on(address)}") from error

    def _advise_on(self, address: str) -> str:
        """Name the checkpoint to go on from when one in `save_dir` is of no use."""
        if not self.save_dir or os.path.dirname(address) != self.save_dir.rstrip("/"):
            return ""
        others = (
            [p for p in self.get_all_checkpoint_files() if p != address]
            if os.path.isdir(self.save_dir)
            else []
        )
        if not others:
            return ". There is no other checkpoint in its folder; start again without resuming"
        previous = max(others, key=os.path.getmtime)
        return (
            f". The previous checkpoint is {previous}: to go on from it, write"
            f" {os.path.basename(previous)} into {os.path.join(self.save_dir, _LAST)}"
        )

    def _load_file(self, f: str) -> dict[str, Any]:
        """Read a local file; the result has the tensors under "model". Subclasses may override it."""
        if f.endswith((".pkl", ".safetensors")):
            return read_checkpoint_file(f)
        return self._torch_load(f)

    def _torch_load(self, f: str) -> dict[str, Any]:
        """Read a local file that torch has written; a step as well."""
        return read_checkpoint_file(f)

    def _load_model(self, checkpoint: dict[str, Any]) -> IncompatibleKeys:
        """Copy the tensors that fit into the model.

        Raises:
            ValueError: none fits, or they are of a backbone of another architecture.
        """
        model_state = self.model.state_dict()
        found = find_places(as_tensors(checkpoint.pop("model")), model_state, checkpoint)
        weights = found.weights
        self._keep_rows_of_classes(weights, model_state)
        num_tensors = sum(not is_obsolete(name) for name in weights)
        incorrect_shapes = [
            (name, tuple(value.shape), tuple(model_state[name].shape))
            for name, value in weights.items()
            if name in model_state and value.shape != model_state[name].shape
        ]
        for name, _, _ in incorrect_shapes:
            del weights[name]
        matched = [name for name in weights if name in model_state and not is_obsolete(name)]
        if model_state and not matched:
            raise UserValueError(describe_no_match(list(weights), list(model_state), incorrect_shapes))
        refuse_unusable(weights, model_state)

        missing, unexpected = (self._exchange or Exchange(self.model)).load(weights)
        accounted = {name for name, _, _ in incorrect_shapes} | find_aliases(self.model, matched)
        incompatible = IncompatibleKeys(
            [name for name in missing if name not in accounted],
            [name for name in unexpected if not is_obsolete(name)],
            incorrect_shapes,
        )
        # That a backbone brings no heads surprises nobody.
        surprises = incompatible._replace(missing_keys=[]) if found.is_part else incompatible
        self._last_load = _LoadSummary(len(matched), num_tensors, found.skipped, is_surprise=any(surprises))
        return incompatible

    def _keep_rows_of_classes(self, weights: dict[str, Tensor], model_state: Mapping[str, Tensor]) -> None:
        """Where a training starts from a file of other classes, take the rows of those that both have."""
        if not self._is_fine_tuning or not self._classes:
            return
        target = expected_classes(self.model)
        for kind in move_rows(weights, model_state, self._classes, target):
            kept = [name for name in target[kind] if name in self._classes[kind]]
            logger.warning(
                "The %s of the checkpoint are not those of the data: %s. By name the predictors keep the rows"
                " of %s; other classes start anew",
                kind,
                describe_difference(self._classes[kind], target[kind]),
                ", ".join(kept),
            )
        # The classes of the file are forgotten, also where nobody knows what those of the data are called.
        self._classes = target or None

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        load = self._last_load
        if load is None:  # a subclass has a `_load_model` of its own
            text = describe_differences(*incompatible) or "all tensors found their place"
            logger.log(logging.WARNING if any(incompatible) else logging.INFO, "%s", text)
            return
        text = describe_load(load.num_matched, load.num_tensors, load.skipped, *incompatible)
        logger.log(logging.WARNING if load.is_surprise else logging.INFO, "%s", text)


def _split_query(path: str) -> tuple[str, dict[str, list[str]]]:
    """Split "address?key=value"; other question marks belong to the address."""
    address, mark, query = path.rpartition("?")
    options = parse_qs(query)
    return (address, options) if mark and "matching_heuristics" in options else (path, {})
