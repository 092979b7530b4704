"""The embedded data set: what the scenes hold, and that the files say the same."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_util
from pycocotools.coco import COCO

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.dataset_mapper import DatasetMapper
from detectron2.data.datasets import shapes
from detectron2.data.datasets.shapes import dataset
from detectron2.data.datasets.shapes.outlines import OUTLINES, Pose, clutter_outline, coverage_patch
from detectron2.data.datasets.shapes.scene import SceneStyle

SIZE = (96, 128)
NUM_SCENES = 60


@pytest.fixture(scope="module")
def scenes() -> list[shapes.Scene]:
    return [shapes.render_scene(1, index, SIZE) for index in range(NUM_SCENES)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    assert shapes.write_shapes("val", 30, root=root, image_size=SIZE) == 30
    return root


def _read(path: Path) -> dict:
    return json.loads(path.read_text())


def _ids_from_png(path: Path) -> np.ndarray:
    rgb = np.asarray(Image.open(path).convert("RGB")).astype(np.int64)
    return rgb[..., 0] + 256 * rgb[..., 1] + 256**2 * rgb[..., 2]


def test_there_are_enough_classes_with_unique_ids_and_colours() -> None:
    things = [c for c in shapes.SHAPES_CATEGORIES if c["isthing"]]
    stuff = [c for c in shapes.SHAPES_CATEGORIES if not c["isthing"]]
    assert len(things) >= 6 and len(stuff) >= 4
    for key in ("id", "name"):
        assert len({c[key] for c in shapes.SHAPES_CATEGORIES}) == len(things) + len(stuff)
    assert len({tuple(c["color"]) for c in shapes.SHAPES_CATEGORIES}) == len(things) + len(stuff)


def test_same_seed_and_index_give_the_same_scene() -> None:
    first, second = (shapes.render_scene(5, 17, SIZE) for _ in range(2))
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.segment_ids, second.segment_ids)
    assert first.segments == second.segments


@pytest.mark.parametrize("other", [(1, 4), (2, 3)])
def test_another_index_or_seed_gives_another_scene(other: tuple[int, int]) -> None:
    assert not np.array_equal(shapes.render_scene(1, 3, SIZE).image, shapes.render_scene(*other, SIZE).image)


def test_streams_do_not_meet() -> None:
    assert len(set(shapes.SPLIT_SEEDS.values())) == len(shapes.SPLIT_SEEDS)
    pictures = {
        shapes.render_scene(seed, i, (48, 48)).image.tobytes() for seed in (1, 2, 3) for i in range(10)
    }
    assert len(pictures) == 30


@pytest.mark.parametrize("size", [(48, 48), (50, 131), (200, 96)])
def test_image_and_labels_have_the_size_asked_for(size: tuple[int, int]) -> None:
    scene = shapes.render_scene(1, 0, size)
    assert scene.image.shape == (*size, 3) and scene.image.dtype == np.uint8
    assert scene.segment_ids.shape == size


def test_too_small_an_image_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 48"):
        shapes.render_scene(1, 0, (20, 100))


def test_every_pixel_belongs_to_a_listed_segment(scenes: list[shapes.Scene]) -> None:
    for scene in scenes:
        assert {s.id for s in scene.segments} == set(np.unique(scene.segment_ids).tolist())
        assert len({s.id for s in scene.segments}) == len(scene.segments)


def test_scenes_vary_as_promised(scenes: list[shapes.Scene]) -> None:
    names = {s.name for scene in scenes for s in scene.segments}
    assert names == {c["name"] for c in shapes.SHAPES_CATEGORIES}
    assert any(not any(s.is_thing for s in scene.segments) for scene in scenes), "no scene without things"
    assert any(s.is_crowd for scene in scenes for s in scene.segments), "no crowd"
    for scene in scenes:
        stuff = [s.name for s in scene.segments if not s.is_thing]
        assert len(stuff) == len(set(stuff)) and 1 <= len(stuff) <= 3


def test_visible_parts_of_things_are_never_tiny(scenes: list[shapes.Scene]) -> None:
    for scene in scenes:
        for segment in scene.segments:
            if segment.is_thing and not segment.is_crowd:
                assert (scene.segment_ids == segment.id).sum() >= SceneStyle().min_visible_area


def test_style_switches_things_off() -> None:
    style = SceneStyle(empty_rate=1.0)
    assert not any(s.is_thing for i in range(5) for s in shapes.render_scene(1, i, SIZE, style).segments)


def test_some_things_are_occluded() -> None:
    """With everything that hides others forbidden, the same random numbers place fewer things."""
    free = [len(shapes.render_scene(1, i, SIZE).segments) for i in range(40)]
    strict_style = SceneStyle(min_visible_share=1.0)
    strict = [len(shapes.render_scene(1, i, SIZE, strict_style).segments) for i in range(40)]
    assert free != strict


@pytest.mark.parametrize("name", sorted(OUTLINES))
@pytest.mark.parametrize("size", [12.0, 61.5])
def test_coverage_has_the_size_of_the_pose(name: str, size: float) -> None:
    patch = coverage_patch(OUTLINES[name](), Pose(size, 0.4))
    assert patch.min() >= 0 and patch.max() <= 1
    covered = patch >= 0.5
    longer_side = max(np.ptp(np.flatnonzero(covered.any(axis=axis))) + 1 for axis in (0, 1))
    assert abs(longer_side - size) <= 3.0
    assert (
        not covered[0].any()
        and not covered[-1].any()
        and not covered[:, 0].any()
        and not covered[:, -1].any()
    )


def test_disc_and_ring_cover_their_areas() -> None:
    disc = coverage_patch(OUTLINES["disc"](), Pose(80.0, 0.0)).sum()
    ring = coverage_patch(OUTLINES["ring"](), Pose(80.0, 0.0)).sum()
    assert disc == pytest.approx(np.pi * 40**2, rel=0.03)
    assert ring == pytest.approx(np.pi * 40**2 * (1 - 0.52**2), rel=0.03)


def test_clutter_is_a_closed_polygon() -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        (outline,) = clutter_outline(rng)
        assert outline.ndim == 2 and len(outline) >= 4


def test_single_shape_has_image_level_labels_only() -> None:
    things = set()
    for index in range(40):
        example = shapes.render_single(3, index, 64)
        assert example.image.shape == (64, 64, 3)
        assert example.ground_shares.sum() == pytest.approx(1.0, abs=1e-5)
        things.add(example.thing)
    assert things <= set(range(len(shapes.THING_NAMES))) and len(things) >= 6


@pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"
)  # of pycocotools with NumPy 2
def test_files_load_in_pycocotools_and_agree_with_the_pngs(root: Path) -> None:
    files = shapes.shapes_files("val", root)
    coco = COCO(str(files.instances_json))
    panoptic = _read(files.panoptic_json)
    assert len(coco.getImgIds()) == len(panoptic["annotations"]) == 30
    assert 0 not in coco.getAnnIds()
    is_thing = {c["id"]: c["isthing"] for c in panoptic["categories"]}
    for image, annotation in zip(panoptic["images"], panoptic["annotations"]):
        assert image["id"] == annotation["image_id"]
        with Image.open(files.image_root / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"]) == (SIZE[1], SIZE[0])
        ids = _ids_from_png(files.panoptic_root / annotation["file_name"])
        segments = annotation["segments_info"]
        assert {s["id"] for s in segments} == set(np.unique(ids).tolist())
        for segment in segments:
            rows, columns = np.nonzero(ids == segment["id"])
            assert segment["area"] == len(rows)
            left, top, width, height = segment["bbox"]
            assert (left, top) == (columns.min(), rows.min())
            assert (left + width, top + height) == (columns.max() + 1, rows.max() + 1)
        things = [s for s in segments if is_thing[s["category_id"]]]
        instances = coco.imgToAnns[image["id"]]
        assert [(a["category_id"], a["bbox"], a["iscrowd"]) for a in instances] == [
            (s["category_id"], s["bbox"], s["iscrowd"]) for s in things
        ]
        for instance, thing in zip(instances, things):
            np.testing.assert_array_equal(coco.annToMask(instance).astype(bool), ids == thing["id"])
            assert mask_util.area(coco.annToRLE(instance)) == instance["area"]


def test_pictures_on_disk_show_the_scene(root: Path) -> None:
    scene = shapes.render_scene(shapes.SPLIT_SEEDS["val"], 2, SIZE)
    on_disk = np.asarray(Image.open(shapes.shapes_files("val", root).image_file(3))).astype(int)
    assert np.abs(on_disk - scene.image).mean() < 6.0


def test_a_second_run_draws_nothing(root: Path) -> None:
    before = shapes.shapes_files("val", root).panoptic_json.stat().st_mtime_ns
    assert shapes.write_shapes("val", 30, root=root, image_size=SIZE) == 0
    assert shapes.shapes_files("val", root).panoptic_json.stat().st_mtime_ns == before


def test_more_scenes_extend_and_lost_files_are_made_again(tmp_path: Path) -> None:
    shapes.write_shapes("train", 5, root=tmp_path, image_size=(48, 64))
    files = shapes.shapes_files("train", tmp_path)
    before = files.image_file(1).read_bytes()
    files.panoptic_file(2).unlink()
    assert shapes.write_shapes("train", 8, root=tmp_path, image_size=(48, 64)) == 4
    assert files.image_file(1).read_bytes() == before
    assert [image["id"] for image in _read(files.panoptic_json)["images"]] == list(range(1, 9))
    ids = [a["id"] for a in _read(files.instances_json)["annotations"]]
    assert ids == list(range(1, len(ids) + 1))


def test_a_stopped_run_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def render_until_stopped(seed: int, index: int, image_size: tuple[int, int]) -> shapes.Scene:
        if index == 30 and len(drawn) == 30:
            raise KeyboardInterrupt
        drawn.append(index)
        return real_render(seed, index, image_size)

    real_render = shapes.render_scene
    monkeypatch.setattr(dataset, "render_scene", render_until_stopped)
    with pytest.raises(KeyboardInterrupt):
        shapes.write_shapes("train", 40, root=tmp_path, image_size=(48, 48))
    assert not shapes.shapes_files("train", tmp_path).panoptic_json.exists()
    drawn.append(-1)
    assert (
        shapes.write_shapes("train", 40, root=tmp_path, image_size=(48, 48)) == 15
    )  # the first 25 were kept
    assert len(COCO(str(shapes.shapes_files("train", tmp_path).instances_json)).imgs) == 40


def test_another_size_makes_everything_anew(tmp_path: Path) -> None:
    shapes.write_shapes("val", 2, root=tmp_path, image_size=(48, 48))
    assert shapes.write_shapes("val", 2, root=tmp_path, image_size=(64, 48)) == 2
    with Image.open(shapes.shapes_files("val", tmp_path).image_file(1)) as picture:
        assert picture.size == (48, 64)


@pytest.mark.parametrize("arguments", [("test", 3), ("val", 0)])
def test_wrong_arguments_are_explained(arguments: tuple[str, int], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be"):
        shapes.write_shapes(*arguments, root=tmp_path)


def test_catalog_finds_the_files_and_the_mapper_reads_them(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    metadata = MetadataCatalog.get("shapes_panoptic_val")
    assert metadata.thing_classes == list(shapes.THING_NAMES)
    assert metadata.stuff_classes[1:] == list(shapes.STUFF_NAMES)  # 0 stands for all things
    mapper = DatasetMapper(True, augmentations=[], image_format="RGB", use_instance_mask=True)
    for index, record in enumerate(DatasetCatalog.get("shapes_panoptic_val")[:8]):
        scene = shapes.render_scene(shapes.SPLIT_SEEDS["val"], index, SIZE)
        mapped = mapper(record)
        things = [s for s in scene.segments if s.is_thing and not s.is_crowd]
        is_thing = np.isin(scene.segment_ids, [s.id for s in scene.segments if s.is_thing])
        np.testing.assert_array_equal(mapped["sem_seg"].numpy() == 0, is_thing)
        assert mapped["instances"].gt_classes.tolist() == [shapes.THING_NAMES.index(s.name) for s in things]
        for mask, thing in zip(mapped["instances"].gt_masks.tensor.numpy() if things else [], things):
            np.testing.assert_array_equal(mask, scene.segment_ids == thing.id)
