"""Programs from models: torch.export and ONNX, and flattening of structured inputs and outputs."""

from . import compat_names as compat_names
from .api import export_onnx as export_onnx
from .api import export_program as export_program
from .api import to_instances as to_instances
from .flatten import TracingAdapter as TracingAdapter
from .flatten import flatten_to_tuple as flatten_to_tuple
from .networks import make_network as make_network
from .onnx_operators import STABLE_ONNX_OPSET_VERSION as STABLE_ONNX_OPSET_VERSION
from .torchscript import dump_torchscript_IR as dump_torchscript_IR
from .torchscript import scripting_with_instances as scripting_with_instances
