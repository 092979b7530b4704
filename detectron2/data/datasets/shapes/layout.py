"""Where the embedded data set lies on disk, and what a split of it was made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class SplitFiles:
    """Where one split lies on disk.

    Attributes:
        root: the folder `shapes`.
        split: "train" or "val".
    """

    root: Path
    split: str

    @property
    def image_root(self) -> Path:
        return self.root / self.split

    @property
    def panoptic_root(self) -> Path:
        return self.root / f"panoptic_{self.split}"

    @property
    def panoptic_json(self) -> Path:
        return self.root / "annotations" / f"panoptic_{self.split}.json"

    @property
    def instances_json(self) -> Path:
        return self.root / "annotations" / f"instances_{self.split}.json"

    @property
    def parts_root(self) -> Path:
        return self.root / "annotations" / f".parts_{self.split}"

    def image_file(self, image_id: int) -> Path:
        """The JPEG of one image."""
        return self.image_root / f"{image_id:012d}.jpg"

    def panoptic_file(self, image_id: int) -> Path:
        """The PNG with the segment ids of one image."""
        return self.panoptic_root / f"{image_id:012d}.png"


@dataclass(frozen=True)
class SplitRecipe:
    """What a split is made of; written into its annotation files, so that a later run can tell what is there.

    Attributes:
        seed: of the random stream.
        image_size: (height, width).
        generator: version of the generator; pictures of another version are made again.
    """

    seed: int
    image_size: tuple[int, int]
    generator: int

    def as_info(self) -> dict[str, Any]:
        """The fields that go into the `info` of an annotation file."""
        return {
            "description": "shapes, drawn by detectron2.data.datasets.shapes",
            "seed": self.seed,
            "image_size": list(self.image_size),
            "generator": self.generator,
        }
