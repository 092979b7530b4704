"""Matching a checkpoint to a model when their names differ.

Two steps that each work alone: names of Caffe2 and Detectron models become ours, and names are matched by
their longest common ending, so that the weights of a backbone find it inside a detector.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from detectron2.utils.user_errors import UserValueError

__all__ = [
    "align_and_update_state_dicts",
    "convert_basic_c2_names",
    "convert_c2_detectron_names",
    "match_by_suffix",
]

logger = logging.getLogger(__name__)

# (pattern, replacement), applied in this order after "_" has become ".".
_BASIC_RULES = [
    # parameters of convolutions and norms
    (r"\.b$", ".bias"),
    (r"\.w$", ".weight"),
    (r"bn\.(s|gamma)$", "norm.weight"),
    (r"bn\.(bias|beta)$", "norm.bias"),
    (r"bn\.(rm|running\.mean)$", "norm.running_mean"),
    (r"bn\.(riv|running\.var)$", "norm.running_var"),
    (r"gn\.s$", "norm.weight"),
    (r"gn\.bias$", "norm.bias"),
    # stem
    (r"^res\.conv1\.norm\.", "conv1.norm."),
    (r"^conv1\.", "stem.conv1."),
    # residual blocks
    (r"\.branch1\.", ".shortcut."),
    (r"\.branch2a\.", ".conv1."),
    (r"\.branch2b\.", ".conv2."),
    (r"\.branch2c\.", ".conv3."),
]

_RPN_HEAD = "proposal_generator.rpn_head"
_DETECTRON_RULES = [
    # region proposals, with and without a feature pyramid
    (r"^conv\.rpn(\.fpn2)?\.", f"{_RPN_HEAD}.conv."),
    (r"^rpn\.bbox\.pred(\.fpn2)?\.", f"{_RPN_HEAD}.anchor_deltas."),
    (r"^rpn\.cls\.logits(\.fpn2)?\.", f"{_RPN_HEAD}.objectness_logits."),
    # box head
    (r"^bbox\.pred", "bbox_pred"),
    (r"^cls\.score", "cls_score"),
    (r"^fc6\.", "box_head.fc1."),
    (r"^fc7\.", "box_head.fc2."),
    (r"^head\.conv", "box_head.conv"),
    # feature pyramid: its norms and convolutions stand under the same prefix
    (r"^fpn\.inner\.res(\d)\.\d+\.sum(\.lateral)?\.", r"fpn_lateral\1."),
    (r"^fpn\.res(\d)\.\d+\.sum\.", r"fpn_output\1."),
    # mask head
    (r"^mask\.fcn\.logits\.", "mask_head.predictor."),
    (r"^(conv5\.mask|mask\.deconv)\.", "mask_head.deconv."),
    (r"^\.?\[mask\]\.fcn(\d)", r"mask_head.mask_fcn\1"),
    # keypoint head
    (r"^kps\.score\.lowres\.", "roi_heads.keypoint_head.score_lowres."),
    (r"^kps\.score\.", "roi_heads.keypoint_head.score."),
    (r"^conv\.fcn(\d)", r"roi_heads.keypoint_head.conv_fcn\1"),
]


def _apply(rules: Sequence[tuple[str, str]], name: str) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def convert_basic_c2_names(original_keys: Sequence[str]) -> list[str]:
    """Translate the names of a Caffe2 backbone, such as `res2_0_branch2a_bn_s`, one by one."""
    classifier = {"pred_b": "linear_b", "pred_w": "linear_w"}
    return [_apply(_BASIC_RULES, classifier.get(key, key).replace("_", ".")) for key in original_keys]


def convert_c2_detectron_names(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Translate names of a Detectron model, and its order of classes, which starts with the background.

    Returns:
        Weights under their new names, and a map from new names to those in `weights`.
    """
    converted: dict[str, Tensor] = {}
    origins: dict[str, str] = {}
    for basic_name, (original, weight) in zip(convert_basic_c2_names(list(weights)), weights.items()):
        name = _apply(_DETECTRON_RULES, basic_name)
        if name in origins:
            raise UserValueError(
                f"{origins[name]!r} and {original!r} of the Caffe2 checkpoint both mean {name!r}"
            )
        converted[name], origins[name] = _reorder_classes(name, weight), original
    return converted, origins


def _reorder_classes(name: str, weight: Tensor) -> Tensor:
    """Move the background from the first class to the last; its boxes are not predicted at all."""
    if name.startswith("cls_score."):
        return torch.cat([weight[1:], weight[:1]])
    if name.startswith("bbox_pred."):
        return weight[4:]
    return weight


def match_by_suffix(model_keys: Iterable[str], checkpoint_keys: Iterable[str]) -> dict[str, str]:
    """Find, for every key of a model, the longest key of the checkpoint that is its ending, cut at a dot.

    Returns:
        Checkpoint key -> model key, without those that found no partner.

    Raises:
        ValueError: one key of the checkpoint belongs to several of the model.
    """
    available = set(checkpoint_keys)
    partners: dict[str, str] = {}
    for model_key in sorted(model_keys):
        parts = model_key.split(".")
        endings = (".".join(parts[start:]) for start in range(len(parts)))
        found = next((ending for ending in endings if ending in available), None)
        if found is None:
            continue
        if found in partners:
            raise UserValueError(
                f"{found!r} of the checkpoint fits {partners[found]!r} and {model_key!r} of the model;"
                " rename it to the one that is meant"
            )
        partners[found] = model_key
    return partners


def align_and_update_state_dicts(
    model_state_dict: Mapping[str, Tensor], ckpt_state_dict: Mapping[str, Tensor], c2_conversion: bool = True
) -> dict[str, Tensor]:
    """Rename the tensors of a checkpoint to the keys of a model that they match.

    Args:
        model_state_dict: names and shapes to match.
        ckpt_state_dict: the checkpoint's tensors.
        c2_conversion: its names are those of Caffe2 or Detectron.

    Returns:
        Matched tensors under the model's names, then unmatched ones under their own. Those whose shape
        differs from the model's are left out, and logged.
    """
    if c2_conversion:
        ckpt_state_dict, _ = convert_c2_detectron_names(ckpt_state_dict)
    partners = match_by_suffix(model_state_dict, ckpt_state_dict)
    aligned: dict[str, Tensor] = {}
    for key, model_key in partners.items():
        found, expected = tuple(ckpt_state_dict[key].shape), tuple(model_state_dict[model_key].shape)
        if found == expected:
            aligned[model_key] = ckpt_state_dict[key]
        else:
            logger.warning("%s is skipped: %s in the checkpoint, %s in the model", model_key, found, expected)
    aligned |= {key: value for key, value in ckpt_state_dict.items() if key not in partners}
    return aligned
