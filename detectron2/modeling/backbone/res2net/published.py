"""Res2Net weights that are published: ImageNet models of the authors and of OpenMMLab, and a COCO model.

Addresses and digits are those that the publishers' own code names. Of a file, only the digits in its name are
known: they are the first eight of its SHA-256 and are compared after a download. What is not known says so.
"""

from __future__ import annotations

from detectron2.checkpoint.published_weights import PublishedWeights, register_published_weights

__all__ = ["RES2NET_WEIGHTS"]

_UNKNOWN = "not known here, read the page"
_AUTHORS_PAGE = "https://github.com/Res2Net/Res2Net-PretrainedModels"
_AUTHORS = "https://shanghuagao.oss-cn-beijing.aliyuncs.com/res2net/"
# Files of the same names and digits, at the release with which timm took them over.
_TIMM = "https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-res2net/"
_OPENMMLAB = "https://download.openmmlab.com/"


def _by_authors(file_name: str, *, in_timm: bool, converted_name: str = "") -> PublishedWeights:
    folders = (_AUTHORS, _TIMM) if in_timm else (_AUTHORS,)
    return PublishedWeights(
        file_name=file_name,
        addresses=tuple(folder + file_name for folder in folders),
        digest=file_name.removesuffix(".pth").rpartition("-")[2],
        licence=_UNKNOWN,
        page=_AUTHORS_PAGE,
        converted_name=converted_name,
    )


def _by_openmmlab(folder: str, file_name: str, page: str) -> PublishedWeights:
    return PublishedWeights(
        file_name=file_name,
        addresses=(f"{_OPENMMLAB}{folder}/{file_name}",),
        digest=file_name.removesuffix(".pth").rpartition("-")[2],
        licence="Apache-2.0 for the repository; for the weights, which others trained, not known here",
        page=page,
    )


_MMPRETRAIN = "https://github.com/open-mmlab/mmpretrain"

RES2NET_WEIGHTS = {
    # "v1": 7x7 stem, strided shortcuts.
    "Res2Net/res2net50_26w_4s": _by_authors("res2net50_26w_4s-06e79181.pth", in_timm=True),
    "Res2Net/res2net50_48w_2s": _by_authors("res2net50_48w_2s-afed724a.pth", in_timm=True),
    "Res2Net/res2net50_14w_8s": _by_authors("res2net50_14w_8s-6527dddc.pth", in_timm=True),
    "Res2Net/res2net50_26w_6s": _by_authors("res2net50_26w_6s-19041792.pth", in_timm=True),
    "Res2Net/res2net50_26w_8s": _by_authors("res2net50_26w_8s-2c7c9f12.pth", in_timm=True),
    "Res2Net/res2net101_26w_4s": _by_authors("res2net101_26w_4s-02a759a1.pth", in_timm=True),
    "Res2Net/res2next50_4s": _by_authors(
        "res2next50_4s-6ef7e7bf.pth", in_timm=True, converted_name="r2x_50.pkl"
    ),
    # "v1b": deep stem, pooling shortcuts.
    "Res2Net/res2net50_v1b_26w_4s": _by_authors(
        "res2net50_v1b_26w_4s-3cf99910.pth", in_timm=False, converted_name="r2_50.pkl"
    ),
    "Res2Net/res2net101_v1b_26w_4s": _by_authors(
        "res2net101_v1b_26w_4s-0812c246.pth", in_timm=False, converted_name="r2_101.pkl"
    ),
    # What mmdetection's Res2Net detectors start from: the authors' v1b, renamed.
    "Res2Net/mmdetection/res2net101_v1d_26w_4s": _by_openmmlab(
        "pretrain/third_party",
        "res2net101_v1d_26w_4s_mmdetv2-f0a600f9.pth",
        "https://github.com/open-mmlab/mmdetection",
    ),
    # mmpretrain's copies of v1.
    "Res2Net/mmpretrain/res2net50_w14_s8": _by_openmmlab(
        "mmclassification/v0/res2net",
        "res2net50-w14-s8_3rdparty_8xb32_in1k_20210927-bc967bf1.pth",
        _MMPRETRAIN,
    ),
    "Res2Net/mmpretrain/res2net50_w26_s8": _by_openmmlab(
        "mmclassification/v0/res2net",
        "res2net50-w26-s8_3rdparty_8xb32_in1k_20210927-f547a94b.pth",
        _MMPRETRAIN,
    ),
    "Res2Net/mmpretrain/res2net101_w26_s4": _by_openmmlab(
        "mmclassification/v0/res2net",
        "res2net101-w26-s4_3rdparty_8xb32_in1k_20210927-870b6c36.pth",
        _MMPRETRAIN,
    ),
    # The whole model of the fork, which its page links to.
    "Res2Net/COCO/panoptic_fpn_R2_101_3x": PublishedWeights(
        file_name="panoptic_fpn_R2_101_3x.pth",
        addresses=(),
        digest="",
        licence=_UNKNOWN,
        page="https://github.com/Res2Net/Res2Net-detectron2",
    ),
}

register_published_weights(RES2NET_WEIGHTS)
