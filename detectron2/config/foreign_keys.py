"""Keys of other packages and of older times, understood where a config is merged.

A plug-in that has a key which the rest of the world writes under another name says so:

    register_foreign_key(
        ForeignKey(
            key="MODEL.RESNETS.WIDE",
            read_as="MODEL.WIDENET.FACTOR",
            origin="the fork of the authors",
            renames={"MODEL.BACKBONE.NAME": {"build_resnet_backbone": "build_widenet_backbone"}},
        )
    )
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from detectron2.utils.user_errors import UserValueError

from .key_paths import ABSENT, get_key, move_key, set_key

__all__ = ["ForeignKey", "read_foreign_list", "read_foreign_tree", "register_foreign_key"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ForeignKey:
    """A key that other files have, and how it is read here.

    It is looked at only where a config has the key `read_as` and not, added by a user, the key `key`.

    Attributes:
        key: full name of the foreign key, such as `MODEL.RESNETS.SCALE`.
        read_as: full name of the key that takes its value.
        origin: whose key it is, for the log: "the public fork".
        renames: where the foreign key is set, other keys whose values mean something else: full name of the
            key -> {value there: value here}. A value that is not listed stays.
    """

    key: str
    read_as: str
    origin: str
    renames: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


_FOREIGN_KEYS: dict[str, ForeignKey] = {}


def register_foreign_key(foreign: ForeignKey) -> None:
    """Let files and command lines that set `foreign.key` be understood from now on.

    Registering an equal one again changes nothing.

    Raises:
        ValueError: the key is read as something else already, or as itself.
    """
    if foreign.key == foreign.read_as:
        raise UserValueError(f"the foreign key {foreign.key} must be read as a key of another name")
    known = _FOREIGN_KEYS.setdefault(foreign.key, foreign)
    if known != foreign:
        raise UserValueError(
            f"the foreign key {foreign.key} is read as {known.read_as} ({known.origin}) already; it cannot "
            f"be read as {foreign.read_as} ({foreign.origin}) too"
        )


def read_foreign_tree(tree: MutableMapping[str, Any], cfg: MutableMapping[str, Any], source: str) -> None:
    """Translate foreign keys in what a file holds, in place.

    Args:
        tree: the keys that the file (with its bases) sets.
        cfg: the config that they will be merged into.
        source: the file, for the log.
    """
    for foreign in _understood_by(cfg):
        if get_key(tree, foreign.key) is ABSENT:
            continue
        move_key(tree, foreign.key, foreign.read_as)
        others: list[tuple[Any, Any]] = []
        for key, names in foreign.renames.items():
            value = get_key(tree, key)
            value = get_key(cfg, key) if value is ABSENT else value
            new_value = _translate(value, names)
            others.append((value, new_value))
            if new_value != value:
                set_key(tree, key, new_value)
        _log(foreign, source, others)


def read_foreign_list(pairs: list[tuple[str, Any]], cfg: MutableMapping[str, Any]) -> list[tuple[str, Any]]:
    """Return a list of (key, value) overrides of `cfg` with foreign keys translated."""
    for foreign in _understood_by(cfg):
        given = dict(pairs)
        if foreign.key not in given:
            continue
        pairs = [(foreign.read_as if key == foreign.key else key, value) for key, value in pairs]
        others: list[tuple[Any, Any]] = []
        for key, names in foreign.renames.items():
            value = given.get(key, get_key(cfg, key))
            new_value = _translate(value, names)
            others.append((value, new_value))
            if new_value != value:
                pairs.append((key, new_value))
        _log(foreign, "the list of overrides", others)
    return pairs


def _understood_by(cfg: MutableMapping[str, Any]) -> list[ForeignKey]:
    """The foreign keys that stand for a key of this config and are none of its own."""
    return [
        foreign
        for foreign in _FOREIGN_KEYS.values()
        if get_key(cfg, foreign.read_as) is not ABSENT and get_key(cfg, foreign.key) is ABSENT
    ]


def _translate(value: Any, names: Mapping[str, str]) -> Any:
    return names.get(value, value) if isinstance(value, str) else value


def _log(foreign: ForeignKey, source: str, others: list[tuple[Any, Any]]) -> None:
    logger.info(
        "%s sets %s, a key of %s: read as %s%s",
        source,
        foreign.key,
        foreign.origin,
        foreign.read_as,
        "".join(f", with {old} " + ("as it is" if new == old else f"as {new}") for old, new in others),
    )
