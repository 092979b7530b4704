"""Names that other people's code takes from modules of this package, and that nothing of ours uses."""

from __future__ import annotations

from detectron2.utils.env import TORCH_VERSION
from detectron2.utils.offer import offer

offer("detectron2.solver.build", TORCH_VERSION=TORCH_VERSION)
