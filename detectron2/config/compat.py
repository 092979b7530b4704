"""Configs written for other versions, and for the public Res2Net fork, read as if they were current.

Everything here works on any nested dictionary, a `CfgNode` or what a YAML file holds.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any, TypeVar

from detectron2.utils.user_errors import UserValueError

logger = logging.getLogger(__name__)

__all__ = ["downgrade_config", "upgrade_config"]

LATEST_VERSION = 2

_Cfg = TypeVar("_Cfg", bound=MutableMapping[str, Any])

_ABSENT = object()


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
    if any(_get(cfg, key) is not _ABSENT for key in ("MODEL.WEIGHT", "TEST.AUG_ON")):
        logger.warning("%s has no VERSION; its keys are those of version 1, so it is read as such", filename)
        return 1
    return LATEST_VERSION


def _copy(cfg: _Cfg) -> _Cfg:
    """Copy the nodes of a tree; leaves are shared."""
    clone: Any = type(cfg)()
    for key, value in cfg.items():
        clone[key] = _copy(value) if isinstance(value, MutableMapping) else value
    return clone


def _get(cfg: MutableMapping[str, Any], full_key: str) -> Any:
    node: Any = cfg
    for part in full_key.split("."):
        if not isinstance(node, MutableMapping) or part not in node:
            return _ABSENT
        node = node[part]
    return node


def _set(cfg: MutableMapping[str, Any], full_key: str, value: Any) -> None:
    *parents, name = full_key.split(".")
    node: Any = cfg
    for part in parents:
        if part not in node:
            node[part] = type(cfg)()
        node = node[part]
    node[name] = value


def _pop(cfg: MutableMapping[str, Any], full_key: str) -> Any:
    """Take a key out, together with sections that it leaves empty."""
    section, _, name = full_key.rpartition(".")
    node = _get(cfg, section) if section else cfg
    if node is _ABSENT or name not in node:
        return _ABSENT
    value = node.pop(name)
    if section and not node:
        _pop(cfg, section)
    return value


def _move(cfg: MutableMapping[str, Any], source: str, target: str) -> None:
    value = _pop(cfg, source)
    if value is not _ABSENT:
        _set(cfg, target, value)


class _RenameConverter:
    """A step between two versions that renames keys."""

    RENAME: Sequence[tuple[str, str]] = ()
    """(old key, new key) pairs."""

    @classmethod
    def upgrade(cls, cfg: MutableMapping[str, Any]) -> None:
        for old, new in cls.RENAME:
            _move(cfg, old, new)

    @classmethod
    def downgrade(cls, cfg: MutableMapping[str, Any]) -> None:
        for old, new in cls.RENAME:
            _move(cfg, new, old)


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
        used = "RETINANET" if _get(cfg, "MODEL.META_ARCHITECTURE") == "RetinaNet" else "RPN"
        for old, new in cls._ANCHOR_KEYS:
            values = {section: _pop(cfg, f"MODEL.{section}.{old}") for section in sections}
            if values[used] is not _ABSENT:
                _set(cfg, f"MODEL.ANCHOR_GENERATOR.{new}", values[used])
        _pop(cfg, "MODEL.RETINANET.ANCHOR_STRIDES")

    @classmethod
    def downgrade(cls, cfg: MutableMapping[str, Any]) -> None:
        super().downgrade(cfg)
        for old, new in cls._ANCHOR_KEYS:
            value = _pop(cfg, f"MODEL.ANCHOR_GENERATOR.{new}")
            if value is not _ABSENT:
                _set(cfg, f"MODEL.RPN.{old}", value)
                _set(cfg, f"MODEL.RETINANET.{old}", value)
        _set(cfg, "MODEL.RETINANET.ANCHOR_STRIDES", [])


_CONVERTERS: dict[int, type[_RenameConverter]] = {1: ConverterV1, 2: ConverterV2}


# The public Res2Net fork edited ResNet in place: one key in MODEL.RESNETS, and the plain builders build a
# Res2Net.
_FORK_SCALE = "MODEL.RESNETS.SCALE"
_OWN_SCALE = "MODEL.RES2NET.SCALE"
_BACKBONE_NAME = "MODEL.BACKBONE.NAME"
_RES2NET_TWINS = {
    "build_resnet_backbone": "build_res2net_backbone",
    "build_resnet_fpn_backbone": "build_res2net_fpn_backbone",
    "build_retinanet_resnet_fpn_backbone": "build_retinanet_res2net_fpn_backbone",
}


def read_fork_tree(tree: MutableMapping[str, Any], cfg: MutableMapping[str, Any], source: str) -> None:
    """Translate the fork's Res2Net key in what a file holds, in place.

    Args:
        tree: the keys that the file (with its bases) sets.
        cfg: the config that they will be merged into.
        source: the file, for the log.
    """
    if not _speaks_fork(cfg) or _get(tree, _FORK_SCALE) is _ABSENT:
        return
    _move(tree, _FORK_SCALE, _OWN_SCALE)
    name = _get(tree, _BACKBONE_NAME)
    name = _get(cfg, _BACKBONE_NAME) if name is _ABSENT else name
    if name in _RES2NET_TWINS:
        _set(tree, _BACKBONE_NAME, _RES2NET_TWINS[name])
    _log_fork(source, name)


def read_fork_list(pairs: list[tuple[str, Any]], cfg: MutableMapping[str, Any]) -> list[tuple[str, Any]]:
    """Translate the fork's Res2Net key in a list of (key, value) overrides of `cfg`."""
    if not _speaks_fork(cfg) or _FORK_SCALE not in dict(pairs):
        return pairs
    name = dict(pairs).get(_BACKBONE_NAME, _get(cfg, _BACKBONE_NAME))
    pairs = [(_OWN_SCALE if key == _FORK_SCALE else key, value) for key, value in pairs]
    if name in _RES2NET_TWINS:
        pairs.append((_BACKBONE_NAME, _RES2NET_TWINS[name]))
    _log_fork("the list of overrides", name)
    return pairs


def _speaks_fork(cfg: MutableMapping[str, Any]) -> bool:
    """Whether the config has our key and not, added by the user, the fork's."""
    return _get(cfg, _OWN_SCALE) is not _ABSENT and _get(cfg, _FORK_SCALE) is _ABSENT


def _log_fork(source: str, backbone: Any) -> None:
    twin = _RES2NET_TWINS.get(backbone)
    logger.info(
        "%s sets %s, a key of the public Res2Net fork: read as %s, %s",
        source,
        _FORK_SCALE,
        _OWN_SCALE,
        f"and backbone {backbone} as {twin}" if twin else f"with backbone {backbone} as it is",
    )
