"""`CfgNode`: a tree of settings that takes values from files, lists and other trees, and checks every one."""

from __future__ import annotations

import os
from ast import literal_eval
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from copy import deepcopy
from typing import IO, Any

import yaml
from fvcore.common.config import BASE_KEY
from fvcore.common.config import CfgNode as _CfgNode

from detectron2.config.compat import downgrade_config, guess_version, upgrade_config
from detectron2.config.config.yaml_reader import load_yaml
from detectron2.config.foreign_keys import read_foreign_list, read_foreign_tree
from detectron2.config.key_paths import copy_flags_of_tree
from detectron2.utils.file_io import PathManager
from detectron2.utils.user_errors import (
    UserFileNotFoundError,
    UserKeyError,
    UserTypeError,
    UserValueError,
    near,
    suggest_files,
)

REMOTE_BASE_VARIABLE = "DETECTRON2_REMOTE_BASE"
"""Environment variable; any value but "" and "0" lets `_BASE_` name files of another place than its own."""


class CfgNode(_CfgNode):  # type: ignore[misc]  # fvcore has no type information
    """A section of a config: a dictionary whose keys are attributes too.

    It is a `fvcore.common.config.CfgNode` and keeps its meaning: values keep the type of the default that
    they replace (list and tuple are interchangeable, an int may stand for a float, None and anything too),
    and a key must exist before it can be merged into. Different is how files are read: never with code, and
    every error names file and key.
    """

    @classmethod
    def _open_cfg(cls, filename: str) -> IO[str]:
        file: IO[str] = PathManager.open(filename, "r")
        return file

    @classmethod
    def load_yaml_with_base(cls, filename: str, allow_unsafe: bool = False) -> dict[str, Any]:
        """Read a YAML file together with the files that its `_BASE_` names.

        Args:
            filename: path, or an address that the path manager knows. `_BASE_` is one path or a list of them,
                of which later ones win; it is relative to the file that says it, or may start with `~`. An
                address is followed from a file of the same host only, unless DETECTRON2_REMOTE_BASE is set.
            allow_unsafe: kept for callers that pass it; it changes nothing, files are never read unsafely.

        Returns:
            The merged keys, nested, without `_BASE_`.
        """
        return _FileReader(cls._open_cfg).read(os.fspath(filename))

    def merge_from_file(self, cfg_filename: str, allow_unsafe: bool = True) -> None:
        """Take over the values of a YAML file and its bases.

        A file of an older version is upgraded, and registered keys of other packages are understood
        (`register_foreign_key`).

        Args:
            cfg_filename: as in `load_yaml_with_base`.
            allow_unsafe: kept for callers that pass it; it changes nothing, files are never read unsafely.

        Raises:
            FileNotFoundError: the file or one of its bases is not there.
            KeyError: a key is unknown.
            ValueError: the file is broken, or a value has the wrong type.
        """
        filename = os.fspath(cfg_filename)
        reader = _FileReader(self._open_cfg)
        tree = reader.read(filename)
        self._require_mutable()
        version = tree.get("VERSION")
        if "VERSION" not in self or version == self.VERSION:
            self._merge_file_tree(tree, reader, filename)
            return
        if version is None:
            version = guess_version(tree, filename)
        if not isinstance(version, int) or not 0 <= version <= self.VERSION:
            raise UserValueError(
                f"{filename}: VERSION must be a number from 0 to {self.VERSION}, got {version!r}; "
                "a newer config needs a newer detectron2"
            )
        if version == self.VERSION:
            self._merge_file_tree(tree, reader, filename)
            return
        # The file means the keys of its own time, so that is what they are merged into.
        old = downgrade_config(self, version)
        old._merge_file_tree({**tree, "VERSION": version}, reader, filename)
        upgraded = upgrade_config(old, self.VERSION)
        copy_flags_of_tree(self, upgraded)
        self.clear()
        self.update(upgraded)

    def _merge_file_tree(self, tree: dict[str, Any], reader: _FileReader, filename: str) -> None:
        read_foreign_tree(tree, self, filename)
        _merge(type(self)(tree), self, root=self, path=(), source=lambda key: reader.file_of(key, filename))

    def merge_from_other_cfg(self, cfg_other: _CfgNode) -> None:
        """Take over all values of another config.

        Raises:
            KeyError: a key of the other config is unknown here.
            ValueError: a value has the wrong type.
        """
        if BASE_KEY in cfg_other:
            raise UserKeyError(f"{BASE_KEY} is understood in files only, not in a config that is merged")
        self._require_mutable()
        _merge(cfg_other, self, root=self, path=(), source=lambda key: "the merged config")

    def merge_from_list(self, cfg_list: Sequence[Any]) -> None:
        """Take over values from a flat list KEY, VALUE, KEY, VALUE, ... as a command line gives it.

        Text is read as a Python literal where that is possible: "0.5", "[1, 2]", "None", "some/path".

        Raises:
            KeyError: a key is unknown.
            ValueError: a key has no value, or a value has the wrong type.
        """
        if len(cfg_list) % 2:
            raise UserValueError(
                f"overrides are pairs KEY VALUE, got {len(cfg_list)} words, the last one {cfg_list[-1]!r}; "
                "separate key and value by a space, and quote values that contain spaces"
            )
        self._require_mutable()
        pairs = list(zip(cfg_list[0::2], cfg_list[1::2]))
        for full_key, value in read_foreign_list(pairs, self):
            if self.key_is_deprecated(full_key):
                continue
            if self.key_is_renamed(full_key):
                self.raise_key_rename_error(full_key)
            *parents, name = str(full_key).split(".")
            section: Any = self
            for part in parents:
                section = section.get(part) if isinstance(section, _CfgNode) else None
            if not isinstance(section, _CfgNode) or name not in section:
                raise UserKeyError(_describe_unknown_key(self, str(full_key), "overrides"))
            section[name] = _coerce(value, section[name], full_key, "overrides", type(self), typed=False)

    def dump(self, *args: Any, **kwargs: Any) -> Any:
        """Write the tree as YAML that `merge_from_file` reads back equal.

        Args:
            args, kwargs: go to `yaml.dump`, such as a stream.

        Returns:
            The text, when no stream is given.
        """
        kwargs["Dumper"] = _ConfigDumper
        return yaml.dump(_as_plain(self, ()), *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        hint = "" if name.startswith("_") else near(name, self)
        raise AttributeError(f"this config section has no key {name!r}.{hint}")

    def _require_mutable(self) -> None:
        if self.is_frozen():
            raise AttributeError("the config is frozen; call defrost() on it, or change a clone()")


class _ConfigDumper(yaml.SafeDumper):
    """Plain YAML in which a list that is used twice is written twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _as_plain(value: Any, path: tuple[str, ...]) -> Any:
    if isinstance(value, Mapping):  # also in a list, where it is no section
        return {key: _as_plain(child, (*path, str(key))) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_plain(item, path) for item in value]
    # NumPy scalars are subclasses of some of these, and YAML would not know them.
    if value is None or type(value) in (str, int, float, bool):
        return value
    raise UserTypeError(
        f"{'.'.join(path)} holds {value!r} of type {type(value).__name__}; a config to dump may hold "
        "text, numbers, bools, None, lists, tuples and dictionaries"
    )


class _FileReader:
    """Reads one YAML file with its bases, and remembers which file every key came from."""

    def __init__(self, open_file: Callable[[str], IO[str]]) -> None:
        self._open_file = open_file
        self._origin: dict[str, str] = {}

    def read(self, filename: str, chain: tuple[str, ...] = ()) -> dict[str, Any]:
        """Keys of the file over those of its bases; `chain` holds the files that led here."""
        identity = filename if "://" in filename else os.path.realpath(filename)
        if identity in chain:
            cycle = " -> ".join((*chain[chain.index(identity) :], identity))
            raise UserValueError(f"{chain[-1]}: {BASE_KEY} leads back to a file that is being read: {cycle}")
        try:
            with self._open_file(filename) as stream:
                tree = load_yaml(stream, filename)
        except (FileNotFoundError, IsADirectoryError) as e:
            asked = f", which {chain[-1]} names as {BASE_KEY}," if chain else ""
            raise UserFileNotFoundError(
                f"config file {filename}{asked} does not exist.{suggest_files(filename)}"
            ) from e
        except UnicodeDecodeError as e:
            raise UserValueError(f"{filename}: a config is UTF-8 text, this file is not ({e})") from e
        merged: dict[str, Any] = {}
        for base in self._base_files(tree.pop(BASE_KEY, None), filename):
            self._override(merged, self.read(base, (*chain, identity)), ())
        self._override(merged, tree, (), origin=filename)
        return merged

    def file_of(self, full_key: str, default: str) -> str:
        """The file that set a key, or the last one that set something in the section of this name."""
        if full_key in self._origin:
            return self._origin[full_key]
        inside = [file for key, file in self._origin.items() if key.startswith(full_key + ".")]
        return inside[-1] if inside else default

    @staticmethod
    def _base_files(bases: Any, filename: str) -> Iterator[str]:
        if bases is None:
            return
        for base in bases if isinstance(bases, list) else [bases]:
            if not isinstance(base, str) or not base:
                raise UserValueError(
                    f"{filename}: {BASE_KEY} must be a path or a list of paths, got {bases!r}"
                )
            base = os.path.expanduser(base)
            # os.path.join leaves an absolute path alone.
            base = base if "://" in base else os.path.join(os.path.dirname(filename), base)
            _require_same_place(base, filename)
            yield base

    def _override(
        self,
        target: dict[str, Any],
        changes: Mapping[str, Any],
        path: tuple[str, ...],
        origin: str | None = None,
    ) -> None:
        """Put `changes` over `target`, section by section; `origin` is the file that they stand in."""
        for key, value in changes.items():
            full_key = ".".join((*path, key))
            if isinstance(value, dict):
                section = target.setdefault(key, {})
                if not isinstance(section, dict):
                    raise UserValueError(
                        f"{origin or self.file_of(full_key, '')}: {full_key} is a section here and the value "
                        f"{section!r} in the base"
                    )
                self._override(section, value, (*path, key), origin)
                continue
            target[key] = value
            if origin is not None:
                self._origin[full_key] = origin


def _place(filename: str) -> str:
    """Scheme and host of an address, empty for what lies on this machine."""
    scheme, found, rest = filename.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}" if found and scheme != "file" else ""


def _require_same_place(base: str, filename: str) -> None:
    """Keep a config that is read from making us read from elsewhere."""
    if _place(base) == _place(filename) or os.environ.get(REMOTE_BASE_VARIABLE, "") not in ("", "0"):
        return
    raise UserValueError(
        f"{filename}: {BASE_KEY} names {base}, which lies in another place than the file itself. Save both in"
        f" one place, or set {REMOTE_BASE_VARIABLE}=1 to allow it for files that you trust."
    )


def _merge(
    source_tree: Mapping[str, Any],
    target: Any,
    *,
    root: CfgNode,
    path: tuple[str, ...],
    source: Callable[[str], str],
) -> None:
    """Write every value of `source_tree` into the section `target`; `source(key)` names its origin."""
    for key, value in source_tree.items():
        full_key = ".".join((*path, str(key)))
        if key in target:
            current = target[key]
            if isinstance(current, _CfgNode) and isinstance(value, Mapping):
                _merge(value, current, root=root, path=(*path, key), source=source)
            else:
                target[key] = _coerce(value, current, full_key, source(full_key), type(root), typed=True)
        elif target.is_new_allowed():
            target[key] = root._decode_cfg_value(deepcopy(value))
        elif root.key_is_renamed(full_key):
            root.raise_key_rename_error(full_key)
        elif not root.key_is_deprecated(full_key):
            raise UserKeyError(_describe_unknown_key(root, full_key, source(full_key)))


def _describe_unknown_key(root: CfgNode, full_key: str, source: str) -> str:
    known = list(_all_keys(root, ""))
    name = full_key.rpartition(".")[2]
    namesakes = [key for key in known if key.rpartition(".")[2] == name]
    hint = near(full_key, known) or near(name, namesakes, cutoff=0.0)
    return f"{source}: unknown config key {full_key}.{hint} Own keys must be added to the config first."


def _all_keys(node: MutableMapping[str, Any], prefix: str) -> Iterator[str]:
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, _CfgNode):
            yield from _all_keys(value, f"{prefix}{key}.")


def _coerce(
    value: Any, current: Any, full_key: str, source: str, node_type: type[CfgNode], *, typed: bool
) -> Any:
    """Make `value` fit for a key that now holds `current`.

    Args:
        value: what to write; not changed.
        current: what the key holds; its type is what the key expects.
        full_key, source: for the message.
        node_type: class of sections.
        typed: the value comes from YAML or Python and has a type already; text for a text key is taken as it
            is.
    """
    value = deepcopy(value)
    if isinstance(value, str) and not (typed and isinstance(current, str)):
        decoded = _decode(value)
        # A text key takes any text, also one that reads like a number.
        keeps_text = isinstance(current, str) and not _fits(decoded, current)
        value = value if keeps_text else decoded
    if isinstance(value, dict) and isinstance(current, _CfgNode):
        section = current.clone()
        _merge(value, section, root=section, path=(), source=lambda key: f"{source}: in {full_key}")
        return section
    if current is None or (value is None and not isinstance(current, _CfgNode)):
        return node_type(value) if isinstance(value, dict) else value
    value = _like(value, current)
    if _fits(value, current):
        return value
    raise UserValueError(
        f"{source}: {full_key} must be {_describe_type(current)}, got {type(value).__name__} {value!r}"
        + (f'; in quotes, "{value}", it is text' if _could_be_text(value, current) else "")
    )


def _decode(text: str) -> Any:
    try:
        return literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _fits(value: Any, current: Any) -> bool:
    return type(value) is type(current)


def _could_be_text(value: Any, current: Any) -> bool:
    return isinstance(current, str) and isinstance(value, (bool, int, float))


def _like(value: Any, template: Any) -> Any:
    """Exchange list and tuple, int and float, as the template has them, also inside sequences."""
    if isinstance(value, (list, tuple)) and isinstance(template, (list, tuple)):
        first = template[0] if template else None
        if isinstance(first, (list, tuple)):
            value = [_like(item, first) for item in value]
        return type(template)(value)
    if type(value) is int and type(template) is float:
        return float(value)
    return value


def _describe_type(current: Any) -> str:
    if isinstance(current, _CfgNode):
        return f"a section with the keys {', '.join(map(str, current))}"
    return f"{type(current).__name__} such as {current!r}"
