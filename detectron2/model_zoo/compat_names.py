"""Names that other people's code takes from modules of this package, and that nothing of ours uses."""

from __future__ import annotations

from detectron2.utils.file_io import Detectron2Handler
from detectron2.utils.offer import offer

from .model_zoo import published


class _Urls:
    """Where published weights lie.

    Attributes:
        S3_PREFIX: what the addresses begin with.
    """

    S3_PREFIX = Detectron2Handler.S3_DETECTRON2_PREFIX

    @property
    def CONFIG_PATH_TO_URL_SUFFIX(self) -> dict[str, str]:
        """Name of a config without its suffix -> the rest of the address."""
        return {name: entry["checkpoint"] for name, entry in published().items() if entry.get("checkpoint")}

    def query(self, config_path: str) -> str | None:
        """The address of a config's weights, or None where none were published."""
        name = config_path.removesuffix(".yaml").removesuffix(".py")
        suffix = self.CONFIG_PATH_TO_URL_SUFFIX.get(name)
        return None if suffix is None else f"{self.S3_PREFIX}{name}/{suffix}"


offer("detectron2.model_zoo.model_zoo", _ModelZooUrls=_Urls())
