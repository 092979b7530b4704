"""Python configs: files whose variables are the config, with calls that are made later.

# model.py
from detectron2.config import LazyCall as L
head = L(Head)(in_channels=8)

cfg = LazyConfig.load("model.py")
head = instantiate(cfg.head)
"""

from __future__ import annotations

import builtins
import inspect
import logging
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import is_dataclass
from types import ModuleType
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf, SCMode

from detectron2.config.compat_names import make_package_name as _random_package_name  # noqa: F401  # for others
from detectron2.config.compat_names import validate_py_syntax as _validate_py_syntax  # noqa: F401  # for others
from detectron2.config.compat_names import visit_dict_config as _visit_dict_config  # noqa: F401  # for others
from detectron2.config.config.yaml_reader import load_yaml
from detectron2.config.instantiate import dotted_path, dump_dataclass
from detectron2.config.instantiate import dotted_path as _convert_target_to_string  # noqa: F401  # for others
from detectron2.config.override_values import read_value
from detectron2.config.python_text import as_python
from detectron2.utils.file_io import PathManager, atomic_write
from detectron2.utils.registry import locate
from detectron2.utils.user_errors import (
    UserFileNotFoundError,
    UserImportError,
    UserKeyError,
    UserTypeError,
    UserValueError,
)

logger = logging.getLogger(__name__)

__all__ = ["LazyCall", "LazyConfig"]

_CFG_PACKAGE_NAME = "detectron2._cfg_loader"
"""Config files are modules of this made-up package, so that they do not collide with real ones."""


class LazyCall:
    """Record a call instead of making it: `LazyCall(f)(x=1)` is a config that `instantiate` turns into
    `f(x=1)`."""

    def __init__(self, target: Any) -> None:
        """
        Args:
            target: a callable, its dotted path, or a config that stands for one.
        """
        if not (callable(target) or isinstance(target, (str, Mapping))):
            raise UserTypeError(f"LazyCall takes a callable or the dotted path of one, got {target!r}")
        self._target = target

    def __call__(self, **kwargs: Any) -> DictConfig:
        """Return the config; values may be configs themselves."""
        target = self._target
        if is_dataclass(target):
            # omegaconf would read the class itself as a schema.
            target = dotted_path(target)
        # "_target_" goes first, where a reader looks for it.
        call: dict[Any, Any] = {"_target_": target, **kwargs}
        return DictConfig(call, flags={"allow_objects": True})


class LazyConfig:
    """Load, change, print and save Python configs."""

    @staticmethod
    def load_rel(filename: str, keys: str | tuple[str, ...] | None = None) -> Any:
        """Load a config file whose path is relative to the file of the caller. Meant for use in config files.

        Args:
            filename: relative path.
            keys: as in `load`.
        """
        caller = _caller_file()
        return LazyConfig.load(os.path.join(os.path.dirname(caller), filename), keys)

    @staticmethod
    def load(filename: str, keys: str | tuple[str, ...] | None = None) -> Any:
        """Load a config file. A `.py` file is executed: load only what you trust.

        Relative imports in it (`from .common.train import train`) load other config files, each as a fresh
        copy.

        Args:
            filename: a `.py` or `.yaml` file, or an address that the path manager knows.
            keys: variables to return; all that are configs when None.

        Returns:
            A config that holds all variables, or, with `keys`, the variable or a tuple of them.
        """
        filename = filename.replace("/./", "/")
        suffix = os.path.splitext(filename)[1]
        if suffix not in (".py", ".yaml", ".yml"):
            raise UserValueError(f"a config file ends in .py or .yaml, got {filename!r}")
        if suffix == ".py":
            variables = _run_config_file(filename)
        else:
            with PathManager.open(filename, "r") as stream:
                variables = load_yaml(stream, filename)
        if keys is None:
            if suffix == ".py":  # a Python file also has helpers and modules among its variables
                variables = {
                    name: value
                    for name, value in variables.items()
                    if isinstance(value, (dict, DictConfig, ListConfig)) and not name.startswith("_")
                }
            return _cast_to_config(variables)
        missing = [key for key in ([keys] if isinstance(keys, str) else keys) if key not in variables]
        if missing:
            known = ", ".join(sorted(variables))
            raise UserKeyError(f"{filename} defines no {', '.join(missing)}; it defines {known}")
        if isinstance(keys, str):
            return _cast_to_config(variables[keys])
        return tuple(_cast_to_config(variables[key]) for key in keys)

    @staticmethod
    def save(cfg: Any, filename: str) -> None:
        """Write a config as YAML that `load` reads again, callables as their dotted paths.

        Callables are written under the path that users import them from. What YAML cannot hold (an object, a
        lambda) is written as text, with a warning: such a file shows the config but does not load to the
        same. Where cloudpickle is installed, `<filename>.pkl` then holds the config itself, for those who
        trust it.

        Args:
            cfg: an omegaconf config.
            filename: a `.yaml` file.
        """
        # Interpolations stay as they are written, so that a changed value still reaches its users.
        plain = OmegaConf.to_container(
            _cast_to_config(cfg), resolve=False, structured_config_mode=SCMode.INSTANTIATE
        )
        unsaved: list[str] = []
        tree = _to_yaml_types(plain, (), unsaved)
        text = yaml.dump(tree, Dumper=_Dumper, default_flow_style=None, width=9999, sort_keys=False)
        if unsaved:
            names = ", ".join(unsaved)
            logger.warning("%s does not load to the same config: %s written as text", filename, names)
            _save_pickled(cfg, f"{filename}.pkl")
        with atomic_write(filename, "w") as file:
            file.write(text)

    @staticmethod
    def apply_overrides(cfg: DictConfig, overrides: list[str]) -> DictConfig:
        """Change a config in place by `path.to.key=value` strings, as a command line gives them.

        A value is a Python literal, null, true, false, a list or a dict of values, as [a, 2] or {x: [3]}, or
        else text. `~key` deletes a key, or the entry of a list. A key that does not exist is added, in a
        section that does; `+key=value` adds its section too.

        Args:
            cfg: the config.
            overrides: the strings.

        Returns:
            The same config.
        """
        for override in overrides:
            if override.startswith("~"):
                _delete_key(cfg, override[1:].partition("=")[0])
                continue
            key, equals, text = override.lstrip("+").partition("=")
            if not equals or not key:
                raise UserValueError(f"an override has the form path.to.key=value, got {override!r}")
            if not override.startswith("+"):
                _require_section(cfg, key, override)
            OmegaConf.update(cfg, key, read_value(text), merge=True, force_add=True)
        return cfg

    @staticmethod
    def to_py(cfg: Any, prefix: str = "cfg.") -> str:
        """Draw a config as Python-like text for people to read; it is not meant to be run.

        Keys are sorted, and lines are broken as formatters do it.

        Args:
            cfg: an omegaconf config.
            prefix: stands before every key.
        """
        plain = (
            OmegaConf.to_container(cfg, resolve=True) if isinstance(cfg, (DictConfig, ListConfig)) else cfg
        )
        return as_python(plain, prefix)


def _cast_to_config(value: Any) -> Any:
    """A dictionary as an omegaconf config, anything else as it is."""
    return DictConfig(value, flags={"allow_objects": True}) if isinstance(value, dict) else value


def _caller_file() -> str:
    """File of the first frame outside this one."""
    for frame in inspect.stack()[1:]:
        if frame.filename != __file__:
            return frame.filename
    raise RuntimeError("load_rel needs a caller that is a file")


def _run_config_file(filename: str, name: str = "") -> dict[str, Any]:
    """Variables of the module that a file becomes; nothing else knows this module by its name."""
    if not PathManager.isfile(filename):
        raise UserFileNotFoundError(f"config file {filename} does not exist")
    with PathManager.open(filename, "r") as stream:
        source = stream.read()
    name = name or _make_module_name(os.path.splitext(os.path.basename(filename))[0])
    namespace: dict[str, Any] = {"__name__": name, "__file__": filename, "__package__": _CFG_PACKAGE_NAME}
    try:
        code = compile(source, filename, "exec")
    except SyntaxError as e:
        raise SyntaxError(f"config file {filename} has a syntax error in line {e.lineno}: {e.msg}") from e
    with _patch_import():
        exec(code, namespace)  # a Python config is a program by design
    return {name: value for name, value in namespace.items() if name != "__builtins__"}


@contextmanager
def _patch_import() -> Iterator[None]:
    """While a config file runs, its relative imports load config files instead of package modules."""
    original = builtins.__import__

    def import_(
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        in_config = (globals or {}).get("__package__", "") or ""
        if level == 0 or not in_config.startswith(_CFG_PACKAGE_NAME):
            return original(name, globals, locals, fromlist or (), level)
        assert globals is not None
        return _import_config(globals["__file__"], name, level, tuple(fromlist or ()))

    builtins.__import__ = import_
    try:
        yield
    finally:
        builtins.__import__ = original


def _import_config(from_file: str, name: str, level: int, variables: tuple[str, ...]) -> ModuleType:
    """What `from <level dots><name> import <variables>` gives in a config file."""
    # A path such as "model.py" has no folder above it to go to.
    folder = os.path.dirname(from_file if "://" in from_file else os.path.abspath(from_file))
    for _ in range(level - 1):
        folder = os.path.dirname(folder)
    path = os.path.join(folder, *name.split(".")) if name else folder
    module = ModuleType(_make_module_name(name))
    if name and PathManager.isfile(path + ".py"):
        values = _run_config_file(path + ".py", module.__name__)
    elif PathManager.isfile(os.path.join(path, "__init__.py")):
        values = _run_config_file(os.path.join(path, "__init__.py"), module.__name__)
    elif PathManager.isdir(path):
        values = {}
    else:
        raise UserImportError(f"{from_file} imports {'.' * level}{name}, but there is no {path}.py")
    for variable in variables:
        if variable in values or variable == "*":
            continue
        if not PathManager.isfile(os.path.join(path, variable + ".py")):
            raise UserImportError(
                f"{from_file} imports {variable} from {'.' * level}{name}, which has no such variable, and"
                f" there is no config file {os.path.join(path, variable)}.py; folders are not imported"
            )
        values[variable] = _import_config(from_file, f"{name}.{variable}".lstrip("."), level, ())
    # Whoever imports a config may change it: every import gets its own copy.
    for key, value in values.items():
        setattr(
            module,
            key,
            deepcopy(value) if isinstance(value, (DictConfig, ListConfig)) else _cast_to_config(value),
        )
    return module


def _make_module_name(name: str) -> str:
    return f"{_CFG_PACKAGE_NAME}.{uuid.uuid4().hex}.{name}"


class _Dumper(yaml.SafeDumper):
    """Plain YAML, and the one tag that keeps a tuple a tuple."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_tuple(self, data: tuple[Any, ...]) -> yaml.Node:
        return self.represent_sequence("tag:yaml.org,2002:python/tuple", data)


_Dumper.add_representer(tuple, _Dumper.represent_tuple)


def _save_pickled(cfg: Any, filename: str) -> None:
    try:
        import cloudpickle  # optional dependency
    except ImportError:
        return
    try:
        data = cloudpickle.dumps(cfg)
    except Exception as error:  # objects raise what they like
        logger.warning("the config cannot be pickled either: %s", error)
        return
    with atomic_write(filename) as file:
        file.write(data)


def _to_yaml_types(value: Any, path: tuple[str, ...], unsaved: list[str]) -> Any:
    if isinstance(value, dict):
        return {key: _to_yaml_types(item, (*path, str(key)), unsaved) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_to_yaml_types(item, (*path, str(i)), unsaved) for i, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    if value is None or type(value) in (str, int, float, bool):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return _to_yaml_types(dump_dataclass(value), path, unsaved)
    if callable(value) and _is_found_by_path(value):
        return dotted_path(value)
    unsaved.append(".".join(path))
    return str(value)


def _is_found_by_path(value: Any) -> bool:
    if not isinstance(getattr(value, "__qualname__", None), str) or not getattr(value, "__module__", None):
        return False
    try:
        return locate(dotted_path(value)) is value
    except ImportError:
        return False


def _require_section(cfg: DictConfig, key: str, override: str) -> None:
    parts = key.split(".")
    for length in range(1, len(parts)):
        path = ".".join(parts[:length])
        section = OmegaConf.select(cfg, path)
        if not isinstance(section, (DictConfig, ListConfig)):
            found = "does not exist" if section is None else f"is the value {section!r}"
            raise UserKeyError(f"cannot apply {override!r}: {path} {found}, it must be a section")


def _delete_key(cfg: DictConfig, key: str) -> None:
    section_name, _, name = key.replace("[", ".").replace("]", "").rpartition(".")
    section = OmegaConf.select(cfg, section_name) if section_name else cfg
    if isinstance(section, ListConfig) and name.isdigit() and int(name) < len(section):
        del section[int(name)]
    elif isinstance(section, DictConfig) and name in section:
        del section[name]
    else:
        raise UserKeyError(f"cannot delete {key}: there is no such key")
