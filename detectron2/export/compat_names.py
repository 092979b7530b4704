"""Names that other people's code takes from modules of this package, and that nothing of ours uses.

What is left out is named all the same, so that files which import it can be imported; a call says why.
"""

from __future__ import annotations

from detectron2.config.instantiate import dotted_path
from detectron2.structures.boxes import Boxes
from detectron2.structures.instances import Instances
from detectron2.structures.masks import ROIMasks
from detectron2.utils.env import import_file
from detectron2.utils.offer import left_out, left_out_class, offer
from detectron2.utils.registry import locate

_SCRIPT = "torch has deprecated torch.jit.script"
_CAFFE2 = "Caffe2 is no longer part of torch"
_BY_TORCH = "it wrote an operator to ONNX for torch 1.11"

_USE_PROGRAM = "Use detectron2.export.export_program, or torch.jit.trace with TracingAdapter"
_USE_ONNX = "Use detectron2.export.export_onnx"

scripting_with_instances = left_out("scripting_with_instances", _SCRIPT, _USE_PROGRAM)
export_torchscript_with_instances = left_out("export_torchscript_with_instances", _SCRIPT, _USE_PROGRAM)
freeze_training_mode = left_out("freeze_training_mode", _SCRIPT, _USE_PROGRAM)
patch_instances = left_out("patch_instances", _SCRIPT, _USE_PROGRAM)
patch_nonscriptable_classes = left_out("patch_nonscriptable_classes", _SCRIPT, _USE_PROGRAM)
convert_scripted_instances = left_out(
    "convert_scripted_instances",
    _SCRIPT,
    "TracingAdapter makes Instances of what traced models give",
)
symbolic_to = left_out("_pytorch1111_symbolic_opset9_to", _BY_TORCH, "torch does it now")
symbolic_repeat_interleave = left_out(
    "_pytorch1111_symbolic_opset9_repeat_interleave", _BY_TORCH, "torch does it now"
)
add_export_config = left_out("add_export_config", "its keys steered the Caffe2 export", "Leave the call out")

offer("detectron2.export", add_export_config)
offer(
    "detectron2.export.torchscript_patch",
    Boxes,
    Instances,
    *(
        left_out(name, _SCRIPT, _USE_PROGRAM)
        for name in (
            "_add_instances_conversion_methods",
            "_clear_jit_cache",
            "_gen_instance_class",
            "_gen_instance_module",
            "_import",
        )
    ),
    _import_file=import_file,
    lazily={"detectron2": "detectron2"},
)
offer(
    "detectron2.export.api",
    add_export_config,
    Caffe2Tracer=left_out_class("Caffe2Tracer", _CAFFE2, _USE_ONNX),
    Caffe2Model=left_out_class("Caffe2Model", _CAFFE2, "Run the ONNX file with ONNX Runtime"),
)
offer(
    "detectron2.export.flatten",
    Boxes,
    ROIMasks,
    locate,
    _convert_target_to_string=dotted_path,
    lazily={"patch_builtin_len": "detectron2.export.torchscript_patch:patch_builtin_len"},
)
