"""TorchScript of traced models as text; compiling models with `torch.jit.script` is left out."""

from __future__ import annotations

import os

import torch

from detectron2.utils.file_io import PathManager
from detectron2.utils.user_errors import UserTypeError

from .compat_names import export_torchscript_with_instances as export_torchscript_with_instances
from .compat_names import freeze_training_mode as freeze_training_mode
from .compat_names import patch_instances as patch_instances
from .compat_names import scripting_with_instances as scripting_with_instances

__all__ = ["dump_torchscript_IR", "scripting_with_instances"]


def dump_torchscript_IR(model: torch.jit.ScriptModule, dir: str) -> None:
    """Write what a TorchScript module consists of into text files: `model.txt` and `model_ts_*.txt`.

    Args:
        model: such as `torch.jit.trace` makes it.
        dir: folder for the files; it is made where it does not exist.
    """
    if not isinstance(model, torch.jit.ScriptModule):
        raise UserTypeError(
            f"expected a TorchScript module, got {type(model).__name__}: trace the model first"
        )
    inlined = model.inlined_graph
    texts = {
        "model.txt": str(model),
        "model_ts_code.txt": "\n".join(_describe_code(model)),
        "model_ts_IR.txt": "\n".join(_describe_graphs(model)),
        "model_ts_IR_inlined.txt": str(inlined),
    }
    PathManager.mkdirs(dir)
    for name, text in texts.items():
        with PathManager.open(os.path.join(dir, name), "w") as file:
            file.write(text + "\n")


def _describe_code(model: torch.jit.ScriptModule) -> list[str]:
    """The code of every part that has some, the outermost first; parts of one class differ in their sizes."""
    return [f"# {name or 'model'}: {part.original_name}\n{part.code}" for name, part in _parts(model)]


def _describe_graphs(model: torch.jit.ScriptModule) -> list[str]:
    return [f"# {name or 'model'}: {part.original_name}\n{part.graph}" for name, part in _parts(model)]


def _parts(model: torch.jit.ScriptModule) -> list[tuple[str, torch.jit.ScriptModule]]:
    scripted = [(n, m) for n, m in model.named_modules() if isinstance(m, torch.jit.ScriptModule)]
    return [(name, part) for name, part in scripted if part._c._has_method("forward")]
