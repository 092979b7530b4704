"""Facade: the public path of what lives in `detectron2.analysis`."""

from detectron2.analysis import ACTIVATIONS_MODE as ACTIVATIONS_MODE
from detectron2.analysis import FLOPS_MODE as FLOPS_MODE
from detectron2.analysis import FlopCountAnalysis as FlopCountAnalysis
from detectron2.analysis import activation_count_operators as activation_count_operators
from detectron2.analysis import count_operators as _wrapper_count_operators
from detectron2.analysis import find_unused_parameters as find_unused_parameters
from detectron2.analysis import flop_count_operators as flop_count_operators
from detectron2.analysis import parameter_count as parameter_count
from detectron2.analysis import parameter_count_table as parameter_count_table
from detectron2.export.flatten import TracingAdapter as TracingAdapter

__all__ = [
    "ACTIVATIONS_MODE",
    "FLOPS_MODE",
    "FlopCountAnalysis",
    "activation_count_operators",
    "find_unused_parameters",
    "flop_count_operators",
    "parameter_count",
    "parameter_count_table",
]
