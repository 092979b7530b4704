"""LayoutLMv2 of transformers looks at pages through our ResNeXt and its feature pyramid."""

from __future__ import annotations

import torch
from transformers import LayoutLMv2Config, LayoutLMv2ForTokenClassification, LayoutLMv2Model

from detectron2.modeling.backbone import FPN


def small_config(**changed: object) -> LayoutLMv2Config:
    visual = LayoutLMv2Config.get_default_detectron2_config()
    visual |= {
        "MODEL.RESNETS.DEPTH": 50,
        "MODEL.RESNETS.NUM_GROUPS": 2,
        "MODEL.RESNETS.WIDTH_PER_GROUP": 4,
        "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": 16,
        "MODEL.FPN.OUT_CHANNELS": 16,
        "MODEL.ROI_BOX_HEAD.FC_DIM": 16,
        "MODEL.ROI_MASK_HEAD.CONV_DIM": 8,
    }
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
    # The embeddings of a box are six parts that make up the hidden size.
    parts = {"coordinate_size": 5, "shape_size": 6}
    return LayoutLMv2Config(
        **sizes,
        **parts,
        vocab_size=50,
        image_feature_pool_shape=[7, 7, 16],
        detectron2_config_args=visual,
        **changed,
    )


def page() -> dict[str, torch.Tensor]:
    corner = torch.randint(0, 500, (2, 6, 2))
    return {
        "input_ids": torch.randint(1, 50, (2, 6)),
        "bbox": torch.cat([corner, corner + torch.randint(1, 500, (2, 6, 2))], dim=2),
        "image": torch.rand(2, 3, 224, 224) * 255,
    }


def test_forward() -> None:
    torch.manual_seed(0)
    model = LayoutLMv2Model(small_config()).eval()
    assert isinstance(model.visual.backbone, FPN)
    inputs = page()
    with torch.no_grad():
        out = model(**inputs).last_hidden_state
        other = model(**{**inputs, "image": inputs["image"].flip(3)}).last_hidden_state
    assert out.shape == (2, 6 + 49, 32)
    assert out.isfinite().all()
    assert not torch.equal(out, other)  # it does look at the page


def test_a_step_of_training_and_files(tmp_path) -> None:
    torch.manual_seed(0)
    model = LayoutLMv2ForTokenClassification(small_config(num_labels=3))
    inputs = page()
    loss = model(**inputs, labels=torch.randint(0, 3, (2, 6))).loss
    loss.backward()
    assert model.layoutlmv2.visual.backbone.fpn_output2.weight.grad.abs().sum() > 0
    model.save_pretrained(tmp_path)
    again = LayoutLMv2ForTokenClassification.from_pretrained(tmp_path).eval()
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(again(**inputs).logits, model(**inputs).logits)
