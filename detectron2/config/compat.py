"""Configs written for other versions, read as if they were current.

Everything here works on any nested dictionary, a `CfgNode` or what a YAML file holds.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any, TypeVar

from detectron2.utils.user_errors import UserValueError

from .key_paths import ABSENT, copy_flags, get_key, move_key, pop_key, set_key

logger = logging.getLogger(__name__)

__all__ = ["downgrade_config", "upgrade_config"]

LATEST_VERSION = 2

_Cfg = TypeVar("_Cfg", bound=MutableMapping[str, Any])


def upgrade_config(cfg: _Cfg, to_version: int | None = None) -> _Cfg:
    """Return a copy of a whole config, rewritten for a newer version.

    Args:
        cfg: a config with the key `VERSION`.
        to_version: the latest version when None.
    """
    target = LATEST_VERSION if to_version is None else to_version
    version = cfg["VERSION"]
    if not version <= target <= LATEST_VERSION:
        raise UserValueError(
            f"cannot upgrade a config of version {version} to {target}; the latest is {LATEST_VERSION}"
        )
    cfg = _copy(cfg)
    for step in range(version + 1, target + 1):
        _CONVERTERS[step].upgrade(cfg)
        cfg["VERSION"] = step
    return cfg


def downgrade_config(cfg: _Cfg, to_version: int) -> _Cfg:
    """Return a copy of a whole config, rewritten for an older version; keys that it did not know stay.

    Args:
        cfg: a config with the key `VERSION`.
        to_version: 0 or more.
    """
    version = cfg["VERSION"]
    if not 0 <= to_version <= version:
        raise UserValueError(f"cannot downgrade a config of version {version} to {to_version}")
    cfg = _copy(cfg)
    for step in range(version, to_version, -1):
        _CONVERTERS[step].downgrade(cfg)
        cfg["VERSION"] = step - 1
    return cfg


def guess_version(cfg: MutableMapping[str, Any], filename: str) -> int:
    """Tell the version of a partial config that does not say it, from keys that only version 1 had.

    Args:
        cfg: what the file holds.
        filename: for the log.
    """
    if any(get_key(cfg, key) is not ABSENT for key in ("MODEL.WEIGHT", "TEST.AUG_ON")):
        logger.warning("%s has no VERSION; its keys are those of version 1, so it is read as such", filename)
        return 1
    return LATEST_VERSION


def _copy(cfg: _Cfg) -> _Cfg:
    """Copy the nodes of a tree with their flags; leaves are shared."""
    clone = type(cfg)()
    for key, value in cfg.items():
        clone[key] = _copy(value) if isinstance(value, MutableMapping) else value
    copy_flags(cfg, clone)
    return clone


class _RenameConverter:
    """A step between two versions that renames keys."""

    RENAME: Sequence[tuple[str, str]] = ()
    """(old key, new key) pairs."""

    @classmethod
    def upgrade(cls, cfg: MutableMapping[str, Any]) -> None:
        for old, new in cls.RENAME:
            move_key(cfg, old, new)

    @classmethod
    def downgrade(cls, cfg: MutableMapping[str, Any]) -> None:
        for old, new in cls.RENAME:
            move_key(cfg, new, old)


class ConverterV1(_RenameConverter):
    """Between versions 0 and 1."""

    RENAME = (("MODEL.RPN_HEAD.NAME", "MODEL.RPN.HEAD_NAME"),)


def _prefixed(old_prefix: str, new_prefix: str, names: dict[str, str]) -> Iterator[tuple[str, str]]:
    return ((old_prefix + old, new_prefix + new) for old, new in names.items())


class ConverterV2(_RenameConverter):
    """Between versions 1 and 2: one spelling for thresholds and weights, and one node for all anchors."""

    RENAME = (
        ("MODEL.WEIGHT", "MODEL.WEIGHTS"),
        ("MODEL.PANOPTIC_FPN.SEMANTIC_LOSS_SCALE", "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT"),
        ("MODEL.PANOPTIC_FPN.RPN_LOSS_SCALE", "MODEL.RPN.LOSS_WEIGHT"),
        ("MODEL.PANOPTIC_FPN.INSTANCE_LOSS_SCALE", "MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT"),
        *_prefixed(
            "MODEL.PANOPTIC_FPN.COMBINE_",
            "MODEL.PANOPTIC_FPN.COMBINE.",
            {
                "ON": "ENABLED",
                "OVERLAP_THRESHOLD": "OVERLAP_THRESH",
                "STUFF_AREA_LIMIT": "STUFF_AREA_LIMIT",
                "INSTANCES_CONFIDENCE_THRESHOLD": "INSTANCES_CONFIDENCE_THRESH",
            },
        ),
        *_prefixed(
            "MODEL.ROI_HEADS.",
            "MODEL.ROI_HEADS.",
            {"SCORE_THRESH": "SCORE_THRESH_TEST", "NMS": "NMS_THRESH_TEST"},
        ),
        *_prefixed(
            "MODEL.RETINANET.INFERENCE_",
            "MODEL.RETINANET.",
            {
                "SCORE_THRESHOLD": "SCORE_THRESH_TEST",
                "TOPK_CANDIDATES": "TOPK_CANDIDATES_TEST",
                "NMS_THRESHOLD": "NMS_THRESH_TEST",
            },
        ),
        ("TEST.DETECTIONS_PER_IMG", "TEST.DETECTIONS_PER_IMAGE"),
        *_prefixed(
            "TEST.AUG_",
            "TEST.AUG.",
            {"ON": "ENABLED", "MIN_SIZES": "MIN_SIZES", "MAX_SIZE": "MAX_SIZE", "FLIP": "FLIP"},
        ),
    )

    _ANCHOR_KEYS = (("ANCHOR_SIZES", "SIZES"), ("ANCHOR_ASPECT_RATIOS", "ASPECT_RATIOS"))

    @classmethod
    def upgrade(cls, cfg: MutableMapping[str, Any]) -> None:
        super().upgrade(cfg)
        # Version 1 kept two sets of anchors; the one that the model uses survives.
        sections = ["RPN", "RETINANET"]
        used = "RETINANET" if get_key(cfg, "MODEL.META_ARCHITECTURE") == "RetinaNet" else "RPN"
        for old, new in cls._ANCHOR_KEYS:
            values = {section: pop_key(cfg, f"MODEL.{section}.{old}") for section in sections}
            if values[used] is not ABSENT:
                set_key(cfg, f"MODEL.ANCHOR_GENERATOR.{new}", values[used])
        pop_key(cfg, "MODEL.RETINANET.ANCHOR_STRIDES")

    @classmethod
    def downgrade(cls, cfg: MutableMapping[str, Any]) -> None:
        super().downgrade(cfg)
        for old, new in cls._ANCHOR_KEYS:
            value = pop_key(cfg, f"MODEL.ANCHOR_GENERATOR.{new}")
            if value is not ABSENT:
                set_key(cfg, f"MODEL.RPN.{old}", value)
                set_key(cfg, f"MODEL.RETINANET.{old}", value)
        set_key(cfg, "MODEL.RETINANET.ANCHOR_STRIDES", [])


_CONVERTERS: dict[int, type[_RenameConverter]] = {1: ConverterV1, 2: ConverterV2}
