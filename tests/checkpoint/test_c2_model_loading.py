"""Names of Caffe2 and Detectron, and matching by endings."""

from __future__ import annotations

import pytest
import torch

from detectron2.checkpoint.c2_model_loading import (
    align_and_update_state_dicts,
    convert_basic_c2_names,
    convert_c2_detectron_names,
    match_by_suffix,
)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("conv1_w", "stem.conv1.weight"),
        ("res_conv1_bn_s", "stem.conv1.norm.weight"),
        ("res_conv1_bn_b", "stem.conv1.norm.bias"),
        ("res2_0_branch1_w", "res2.0.shortcut.weight"),
        ("res2_0_branch1_bn_s", "res2.0.shortcut.norm.weight"),
        ("res3_1_branch2a_w", "res3.1.conv1.weight"),
        ("res3_1_branch2b_bn_rm", "res3.1.conv2.norm.running_mean"),
        ("res3_1_branch2b_bn_riv", "res3.1.conv2.norm.running_var"),
        ("res5_2_branch2c_gn_s", "res5.2.conv3.norm.weight"),
        ("res5_2_branch2c_bn_gamma", "res5.2.conv3.norm.weight"),
        ("res5_2_branch2c_bn_beta", "res5.2.conv3.norm.bias"),
        ("pred_w", "linear.weight"),
        ("pred_b", "linear.bias"),
    ],
)
def test_backbone_names(theirs: str, ours: str) -> None:
    assert convert_basic_c2_names([theirs]) == [ours]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("conv_rpn_w", "proposal_generator.rpn_head.conv.weight"),
        ("conv_rpn_fpn2_b", "proposal_generator.rpn_head.conv.bias"),
        ("rpn_bbox_pred_fpn2_w", "proposal_generator.rpn_head.anchor_deltas.weight"),
        ("rpn_cls_logits_b", "proposal_generator.rpn_head.objectness_logits.bias"),
        ("fpn_inner_res5_2_sum_w", "fpn_lateral5.weight"),
        ("fpn_inner_res3_3_sum_lateral_b", "fpn_lateral3.bias"),
        ("fpn_inner_res4_22_sum_lateral_gn_s", "fpn_lateral4.norm.weight"),
        ("fpn_res2_2_sum_w", "fpn_output2.weight"),
        ("fc6_w", "box_head.fc1.weight"),
        ("fc7_b", "box_head.fc2.bias"),
        ("head_conv3_gn_s", "box_head.conv3.norm.weight"),
        ("mask_fcn_logits_w", "mask_head.predictor.weight"),
        ("_[mask]_fcn2_w", "mask_head.mask_fcn2.weight"),
        ("conv5_mask_b", "mask_head.deconv.bias"),
        ("conv_fcn8_w", "roi_heads.keypoint_head.conv_fcn8.weight"),
        ("kps_score_lowres_w", "roi_heads.keypoint_head.score_lowres.weight"),
        ("kps_score_w", "roi_heads.keypoint_head.score.weight"),
    ],
)
def test_detector_names(theirs: str, ours: str) -> None:
    weight = torch.arange(12.0)
    converted, origins = convert_c2_detectron_names({theirs: weight})
    assert list(converted) == [ours]
    assert converted[ours] is weight
    assert origins == {ours: theirs}


def test_background_moves_to_the_end_of_the_classes() -> None:
    converted, _ = convert_c2_detectron_names(
        {"cls_score_b": torch.tensor([0.0, 1.0, 2.0]), "bbox_pred_b": torch.arange(12.0)}
    )
    assert converted["cls_score.bias"].tolist() == [1.0, 2.0, 0.0]
    assert converted["bbox_pred.bias"].tolist() == list(range(4, 12))


def test_two_tensors_of_one_meaning_are_refused() -> None:
    with pytest.raises(ValueError, match="'conv_rpn_w' and 'conv_rpn_fpn2_w' .* both mean"):
        convert_c2_detectron_names({"conv_rpn_w": torch.zeros(1), "conv_rpn_fpn2_w": torch.zeros(1)})


def test_the_longest_ending_wins() -> None:
    partners = match_by_suffix(
        ["backbone.res2.conv1.weight", "head.conv1.weight"], ["res2.conv1.weight", "conv1.weight"]
    )
    assert partners == {
        "res2.conv1.weight": "backbone.res2.conv1.weight",
        "conv1.weight": "head.conv1.weight",
    }


def test_endings_are_cut_at_dots() -> None:
    assert match_by_suffix(["preconv.weight"], ["conv.weight"]) == {}
    assert match_by_suffix([], ["a"]) == match_by_suffix(["a"], []) == {}


def test_a_name_that_fits_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="'weight' of the checkpoint fits 'a.weight' and 'b.weight'"):
        match_by_suffix(["b.weight", "a.weight"], ["weight"])


def test_alignment_renames_keeps_the_rest_and_leaves_out_other_shapes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = {"backbone.conv.weight": torch.zeros(2), "backbone.fc.weight": torch.zeros(3)}
    checkpoint = {"conv.weight": torch.ones(2), "fc.weight": torch.ones(4), "other": torch.ones(1)}
    aligned = align_and_update_state_dicts(model, checkpoint, c2_conversion=False)
    assert list(aligned) == ["backbone.conv.weight", "other"]
    assert aligned["backbone.conv.weight"] is checkpoint["conv.weight"]
    assert "backbone.fc.weight is skipped: (4,) in the checkpoint, (3,) in the model" in caplog.text


def test_alignment_translates_caffe2() -> None:
    model = {"backbone.bottom_up.stem.conv1.weight": torch.zeros(2)}
    assert list(align_and_update_state_dicts(model, {"conv1_w": torch.ones(2)})) == list(model)
