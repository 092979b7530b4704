"""Short names of published weights, and their addresses: Detectron's, and those that plug-ins register."""

from __future__ import annotations

from typing import IO, Any

from detectron2.utils.file_io import PathHandler, PathManager
from detectron2.utils.user_errors import UserKeyError, near

from .published_weights import find_published, published_names

__all__ = ["ModelCatalog", "ModelCatalogHandler"]

_BASELINES = "12_2017_baselines"


class ModelCatalog:
    """Addresses of models trained with Detectron, by name."""

    S3_C2_DETECTRON_PREFIX = "https://dl.fbaipublicfiles.com/detectron"

    C2_IMAGENET_MODELS = {
        f"{team}/{name}": f"ImageNetPretrained/{folder}/{name}.pkl"
        for team, name, folder in (
            ("MSRA", "R-50", "MSRA"),
            ("MSRA", "R-101", "MSRA"),
            ("FAIR", "R-50-GN", "47261647"),
            ("FAIR", "R-101-GN", "47592356"),
            ("FAIR", "X-101-32x8d", "20171220"),
            ("FAIR", "X-101-64x4d", "FBResNeXt"),
            ("FAIR", "X-152-32x8d-IN5k", "25093814"),
        )
    }

    C2_DETECTRON_PATH_FORMAT = "{prefix}/{url}/output/train/{dataset}/{type}/model_final.pkl"

    C2_DATASET_COCO = "coco_2014_train%3Acoco_2014_valminusminival"
    C2_DATASET_COCO_KEYPOINTS = "keypoints_coco_2014_train%3Akeypoints_coco_2014_valminusminival"

    C2_DETECTRON_MODELS = {
        f"{run}/{name}": f"{folder}/{name}{suffix}"
        for run, name, folder, suffix in (
            ("35857197", "e2e_faster_rcnn_R-50-C4_1x", f"35857197/{_BASELINES}", ".yaml.01_33_49.iAX0mXvW"),
            ("35857345", "e2e_faster_rcnn_R-50-FPN_1x", f"35857345/{_BASELINES}", ".yaml.01_36_30.cUF7QR7I"),
            ("35857890", "e2e_faster_rcnn_R-101-FPN_1x", f"35857890/{_BASELINES}", ".yaml.01_38_50.sNxI7sX7"),
            (
                "36761737",
                "e2e_faster_rcnn_X-101-32x8d-FPN_1x",
                f"36761737/{_BASELINES}",
                ".yaml.06_31_39.5MIHi1fZ",
            ),
            ("35858791", "e2e_mask_rcnn_R-50-C4_1x", f"35858791/{_BASELINES}", ".yaml.01_45_57.ZgkA7hPB"),
            ("35858933", "e2e_mask_rcnn_R-50-FPN_1x", f"35858933/{_BASELINES}", ".yaml.01_48_14.DzEQe4wC"),
            ("35861795", "e2e_mask_rcnn_R-101-FPN_1x", f"35861795/{_BASELINES}", ".yaml.02_31_37.KqyEK4tT"),
            (
                "36761843",
                "e2e_mask_rcnn_X-101-32x8d-FPN_1x",
                f"36761843/{_BASELINES}",
                ".yaml.06_35_59.RZotkLKI",
            ),
            (
                "48616381",
                "e2e_mask_rcnn_R-50-FPN_2x_gn",
                "GN/48616381/04_2018_gn_baselines",
                "_0416.13_23_38.bTlTI97Q",
            ),
            (
                "37697547",
                "e2e_keypoint_rcnn_R-50-FPN_1x",
                f"37697547/{_BASELINES}",
                ".yaml.08_42_54.kdzV35ao",
            ),
            ("35998355", "rpn_R-50-C4_1x", f"35998355/{_BASELINES}", ".yaml.08_00_43.njH5oD9L"),
            ("35998814", "rpn_R-50-FPN_1x", f"35998814/{_BASELINES}", ".yaml.08_06_03.Axg0r179"),
            ("36225147", "fast_R-50-FPN_1x", f"36225147/{_BASELINES}", ".yaml.08_39_09.L3obSdQ2"),
        )
    }

    @staticmethod
    def get(name: str) -> str:
        """Return the address of a model.

        Args:
            name: such as "ImageNetPretrained/MSRA/R-50" or
                "Caffe2Detectron/COCO/35857890/e2e_faster_rcnn_R-101-FPN_1x", or a registered one.

        Raises:
            KeyError: the catalog has no such model, or no address of it; near matches are listed.
        """
        published = find_published(name)
        if published is not None:
            if not published.addresses:
                raise UserKeyError(f"the address of {name} is not known here; see {published.page}")
            return published.addresses[0]
        families = {
            "ImageNetPretrained/": (ModelCatalog.C2_IMAGENET_MODELS, ModelCatalog._imagenet_address),
            "Caffe2Detectron/COCO/": (ModelCatalog.C2_DETECTRON_MODELS, ModelCatalog._detectron_address),
        }
        for prefix, (models, to_address) in families.items():
            short = name.removeprefix(prefix)
            if short != name and short in models:
                return to_address(short)
        known = [prefix + short for prefix, (models, _) in families.items() for short in models]
        known += published_names()
        raise UserKeyError(f"the model catalog has no {name!r}.{near(name, known, cutoff=0.4)}")

    @staticmethod
    def _imagenet_address(name: str) -> str:
        return f"{ModelCatalog.S3_C2_DETECTRON_PREFIX}/{ModelCatalog.C2_IMAGENET_MODELS[name]}"

    @staticmethod
    def _detectron_address(name: str) -> str:
        is_keypoint = "keypoint" in name
        dataset = ModelCatalog.C2_DATASET_COCO_KEYPOINTS if is_keypoint else ModelCatalog.C2_DATASET_COCO
        return ModelCatalog.C2_DETECTRON_PATH_FORMAT.format(
            prefix=ModelCatalog.S3_C2_DETECTRON_PREFIX,
            url=ModelCatalog.C2_DETECTRON_MODELS[name],
            type="rpn" if name == "35998355/rpn_R-50-C4_1x" else "generalized_rcnn",  # the only one stored so
            dataset=dataset,
        )


class ModelCatalogHandler(PathHandler):  # type: ignore[misc]  # iopath has no type information
    """Resolve `catalog://NAME` through the model catalog."""

    PREFIX = "catalog://"

    def _get_supported_prefixes(self) -> list[str]:
        return [self.PREFIX]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        name = path.removeprefix(self.PREFIX)
        published = find_published(name)
        if published is not None:
            return published.fetch(name, force=force)
        address = ModelCatalog.get(name)
        local_path: str = PathManager.get_local_path(address, force=force, **kwargs)
        return local_path

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> IO[Any]:
        file: IO[Any] = PathManager.open(self._get_local_path(path), mode, buffering=buffering, **kwargs)
        return file


PathManager.register_handler(ModelCatalogHandler())
