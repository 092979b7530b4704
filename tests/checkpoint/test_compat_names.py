"""Names of `checkpoint` for others' code do what they did."""

from __future__ import annotations

import importlib

names = importlib.import_module("detectron2.checkpoint.c2_model_loading")


def test_common_beginnings() -> None:
    assert names._longest_common_prefix_str(["conv1.bias", "conv12"]) == "conv1"
    assert names._longest_common_prefix_str(["ab", "abc"]) == "ab"
    assert names._longest_common_prefix(["a.bc.d", "a.be.d"]) == "a."
    assert names._longest_common_prefix(["ab.c", "ac.c"]) == ""


def test_names_of_a_module_in_one() -> None:
    assert names._group_str(["conv.bias", "conv.weight"]) == "conv.{bias,weight}"
    norm = [f"res_bn_{name}" for name in ("beta", "running_mean", "running_var", "gamma")]
    assert names._group_str(norm) == "res_bn_*"


def test_parameters_of_a_module_stand_together() -> None:
    keys = ["conv.weight", "conv.norm.weight", "conv.norm.bias", "fc.weight", "odd.weight", "odd.bias"]
    elsewhere = ["c_w", "c_bn_g", "c_bn_b", "fc_w", "x", "y"]
    groups = names._group_keys_by_module(keys, dict(zip(keys, elsewhere)))
    assert groups == dict.fromkeys(keys[:3], keys[:3])
