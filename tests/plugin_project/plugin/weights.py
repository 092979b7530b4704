"""What the backbone knows about its weights: the names of its authors, and what shapes tell."""

from dataclasses import dataclass

from detectron2.checkpoint import (
    WEIGHT_TRANSLATOR_REGISTRY,
    BackboneLayout,
    ConvertedBackbone,
    WeightTranslator,
    require_whole,
)

NAMES = {
    "entry.conv": "stem",
    "entry.bn": "stem.norm",
    "quarter.conv": "s4",
    "quarter.bn": "s4.norm",
    "eighth": "s8",
}


@dataclass(frozen=True)
class StripedLayout(BackboneLayout):
    channels: int
    input_channels: int

    @property
    def title(self):
        return f"striped backbone of {self.channels} channels"

    @property
    def builders(self):
        return "build_striped_*"

    @property
    def pyramid_builder(self):
        return "build_striped_fpn_backbone"

    def config_values(self):
        return {"MODEL.STRIPED.CHANNELS": self.channels}

    def expected_shapes(self):
        width = self.channels
        shapes = {
            "stem.weight": (width, self.input_channels, 3, 3),
            "s4.weight": (width, width, 3, 3),
            "s8.weight": (2 * width, width, 3, 3),
            "s8.bias": (2 * width,),
        }
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes |= {f"stem.norm.{part}": (width,), f"s4.norm.{part}": (width,)}
        return shapes


@WEIGHT_TRANSLATOR_REGISTRY.register()
class StripedWeights(WeightTranslator):
    sources = "the authors' striped backbones"

    def recognizes(self, names):
        return "entry.conv.weight" in names

    def translate(self, weights):
        converted, unknown, dropped = {}, [], []
        for name, value in weights.items():
            part, _, parameter = name.rpartition(".")
            if parameter == "num_batches_tracked":
                dropped.append(name)
            elif part in NAMES:
                converted[f"{NAMES[part]}.{parameter}"] = value
            else:
                unknown.append(name)
        layout = self.read_layout({name: tuple(value.shape) for name, value in converted.items()})
        require_whole(layout, converted, unknown=unknown)
        return ConvertedBackbone(converted, layout, dropped)

    def read_layout(self, shapes):
        stems = [name.removesuffix("s8.bias") + "stem.weight" for name in shapes if name.endswith("s8.bias")]
        if not stems or stems[0] not in shapes:
            return None
        channels, input_channels, _, _ = shapes[stems[0]]
        return StripedLayout(channels, input_channels)
