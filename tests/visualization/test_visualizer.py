"""What is drawn where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as mask_util

from detectron2.data.catalog import Metadata
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances, PolygonMasks, RotatedBoxes
from detectron2.utils.visualizer import ColorMode, GenericMask, VisImage, Visualizer
from detectron2.visualization.labels import intersection, keep_inside, make_labels, place_label

HEIGHT, WIDTH = 60, 80
EDGE = 3  # outlines are drawn over the border of a shape


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(60, 190, size=(HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture
def metadata() -> Metadata:
    meta = Metadata()
    meta.thing_classes = ["cat", "dog"]
    meta.thing_colors = [(250, 0, 0), (0, 250, 0)]
    meta.stuff_classes = ["things", "sky", "sea"]
    meta.stuff_colors = [(9, 9, 9), (0, 0, 250), (250, 250, 0)]
    return meta


def _changed(before: np.ndarray, image: VisImage) -> np.ndarray:
    return (before.astype(int) != image.get_image()).any(axis=2)


def _square(top: int = 15, left: int = 20, size: int = 30) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[top : top + size, left : left + size] = True
    return mask


def _assert_drawn_only_in(changed: np.ndarray, mask: np.ndarray) -> None:
    rows, columns = np.nonzero(mask)
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    assert changed[top + EDGE : bottom - EDGE, left + EDGE : right - EDGE].all()
    outside = np.ones_like(changed)
    outside[max(top - EDGE, 0) : bottom + EDGE, max(left - EDGE, 0) : right + EDGE] = False
    assert not changed[outside].any()


def test_mask_changes_its_pixels_and_no_others(picture: np.ndarray) -> None:
    image = Visualizer(picture).draw_binary_mask(_square(), color="orange", alpha=0.5)
    _assert_drawn_only_in(_changed(picture, image), _square())


def test_tint_mixes_colour_and_picture(picture: np.ndarray) -> None:
    image = Visualizer(picture).draw_binary_mask(_square(), color=(1.0, 0.0, 0.5), alpha=0.25).get_image()
    expected = 0.75 * picture[30, 35] + 0.25 * 255 * np.array([1.0, 0.0, 0.5])
    np.testing.assert_allclose(image[30, 35], expected, atol=1)


def test_hole_of_a_mask_stays_clear(picture: np.ndarray) -> None:
    mask = _square()
    mask[25:35, 30:40] = False
    changed = _changed(picture, Visualizer(picture).draw_binary_mask(mask))
    assert not changed[28:32, 33:37].any() and changed[18:22, 30:40].all()


def test_small_masks_are_left_out(picture: np.ndarray) -> None:
    image = Visualizer(picture).draw_binary_mask(_square(size=3), area_threshold=10)
    assert not _changed(picture, image).any()


def test_soft_mask_fades(picture: np.ndarray) -> None:
    mask = np.zeros((HEIGHT, WIDTH))
    mask[:, :40], mask[:, 40:60] = 1.0, 0.5
    image = Visualizer(picture).draw_soft_mask(mask, color="w", alpha=0.8).get_image().astype(float)
    gain = (image - picture) / (255 - picture.astype(float))
    assert gain[:, :40].mean() == pytest.approx(0.8, abs=0.01)
    assert gain[:, 40:60].mean() == pytest.approx(0.4, abs=0.01)
    assert not gain[:, 60:].any()


@pytest.mark.parametrize("style", ["-", "--", ":", "-."])
def test_box_is_an_outline(picture: np.ndarray, style: str) -> None:
    changed = _changed(
        picture, Visualizer(picture).draw_box([20, 15, 50, 45], edge_color="r", line_style=style)
    )
    assert changed.any() and not changed[20:40, 25:45].any()
    assert not changed[:10].any() and not changed[:, 60:].any()
    with pytest.raises(ValueError, match="line_style"):
        Visualizer(picture).draw_box([20, 15, 50, 45], line_style="=")


def test_outlines_follow_pixel_borders() -> None:
    """A box from 10 to 20 lies on the borders of pixels: it covers pixels 9 and 10 alike."""
    black = np.zeros((40, 40, 3), dtype=np.uint8)
    image = Visualizer(black).draw_line([10, 10], [0, 40], "w", linewidth=1).get_image()
    columns = image[20, :, 0].astype(int)
    assert abs(columns[9] - columns[10]) <= 40 and columns[9] > 60 and columns[7] == columns[12] == 0


def test_circle_line_and_polygon_land_where_asked(picture: np.ndarray) -> None:
    changed = _changed(picture, Visualizer(picture).draw_circle((40, 30), "r", radius=5))
    assert changed[30, 40] and not changed[:, :30].any()
    triangle = np.array([[10, 10], [50, 10], [10, 50]])
    changed = _changed(picture, Visualizer(picture).draw_polygon(triangle, "b"))
    assert changed[20, 20] and not changed[45, 45]


@pytest.mark.parametrize("text", ["cat 97%", "x", "two\nlines", "ünïcode", ""])
@pytest.mark.parametrize("position", [(0, 0), (WIDTH, HEIGHT), (-50, 30), (40, 30)])
def test_text_stays_inside_the_picture(picture: np.ndarray, text: str, position: tuple[int, int]) -> None:
    visualizer = Visualizer(picture)
    visualizer.draw_text(text, position)
    (box,) = visualizer.output.label_boxes
    assert box[0] >= 0 and box[1] >= 0 and box[2] <= WIDTH and box[3] <= HEIGHT
    assert visualizer.output.get_image().shape == picture.shape


def test_text_can_be_rotated_and_aligned(picture: np.ndarray) -> None:
    visualizer = Visualizer(np.repeat(np.repeat(picture, 4, 0), 4, 1))
    visualizer.draw_text("sideways", (100, 50), rotation=90)
    visualizer.draw_text("left", (100, 50), horizontal_alignment="left")
    visualizer.draw_text("right", (100, 50), horizontal_alignment="right")
    upright, left, right = visualizer.output.label_boxes
    assert upright[3] - upright[1] > upright[2] - upright[0]
    assert left[0] == 100 and right[2] == pytest.approx(100, abs=1)
    with pytest.raises(ValueError, match="horizontal_alignment"):
        visualizer.draw_text("middle", (0, 0), horizontal_alignment="middle")


def _predictions(num_instances: int) -> Instances:
    instances = Instances((HEIGHT, WIDTH))
    instances.pred_boxes = Boxes(torch.tensor([[20.0, 15, 50, 45]]).repeat(num_instances, 1))
    instances.scores = torch.full((num_instances,), 0.876)
    instances.pred_classes = torch.arange(num_instances) % 2
    instances.pred_masks = torch.from_numpy(_square())[None].repeat(num_instances, 1, 1)
    return instances


@pytest.mark.parametrize("mode", list(ColorMode))
@pytest.mark.parametrize("scale", [0.5, 1.0, 1.7])
def test_instances_are_drawn_in_every_mode_and_size(
    picture: np.ndarray, metadata: Metadata, mode: ColorMode, scale: float
) -> None:
    visualizer = Visualizer(picture, metadata, scale=scale, instance_mode=mode)
    blank = visualizer.get_output().get_image().copy()
    image = visualizer.draw_instance_predictions(_predictions(3)).get_image()
    assert image.shape == (int(HEIGHT * scale), int(WIDTH * scale), 3) and image.dtype == np.uint8
    assert (image != blank).any(axis=2).mean() > 0.02


def test_grey_mode_keeps_colour_inside_masks_alone(picture: np.ndarray, metadata: Metadata) -> None:
    visualizer = Visualizer(picture, metadata, instance_mode=ColorMode.IMAGE_BW)
    image = visualizer.draw_instance_predictions(_predictions(1)).get_image().astype(int)
    corner = image[50:, 60:]
    assert (corner[..., 0] == corner[..., 1]).all() and (corner[..., 1] == corner[..., 2]).all()
    assert (image[30, 35, 0] != image[30, 35, 2]) or (image[31, 36, 0] != image[31, 36, 2])


def test_class_mode_uses_the_class_colour(picture: np.ndarray, metadata: Metadata) -> None:
    visualizer = Visualizer(picture, metadata, instance_mode=ColorMode.SEGMENTATION)
    predictions = _predictions(1)
    predictions.remove("pred_boxes")
    predictions.remove("scores")
    predictions.remove("pred_classes")
    predictions.pred_classes = torch.tensor([1])
    image = visualizer.draw_instance_predictions(predictions, jittering=False).get_image()
    np.testing.assert_allclose(image[40, 25], 0.2 * picture[40, 25] + 0.8 * np.array([0, 250, 0]), atol=2)


def test_no_instances_leave_the_picture_alone(picture: np.ndarray, metadata: Metadata) -> None:
    for mode in (ColorMode.IMAGE, ColorMode.SEGMENTATION):
        visualizer = Visualizer(picture, metadata, instance_mode=mode)
        assert not _changed(picture, visualizer.draw_instance_predictions(_predictions(0))).any()
    visualizer = Visualizer(picture, metadata)
    visualizer.overlay_instances(boxes=np.zeros((0, 4)), labels=[], masks=[])
    visualizer.overlay_instances()
    visualizer.overlay_rotated_instances()
    visualizer.draw_dataset_dict({"annotations": []})
    visualizer.draw_panoptic_seg(torch.zeros(HEIGHT, WIDTH, dtype=torch.int32), [])
    assert not _changed(picture, visualizer.get_output()).any()


def test_one_pixel_picture_can_be_drawn_on(metadata: Metadata) -> None:
    visualizer = Visualizer(np.zeros((1, 1, 3), np.uint8), metadata)
    one = np.ones((1, 1), dtype=np.int64)
    visualizer.draw_binary_mask(one, text="cat", area_threshold=0)
    visualizer.draw_sem_seg(one, area_threshold=0)
    visualizer.draw_panoptic_seg(one, [{"id": 1, "category_id": 0, "isthing": True}])
    visualizer.overlay_instances(boxes=[[0, 0, 1, 1]], labels=["cat"])
    visualizer.draw_text("cat", (0, 0))
    assert visualizer.get_output().get_image().shape == (1, 1, 3)


def test_boxes_that_are_not_finite_or_far_away_are_survived(picture: np.ndarray) -> None:
    boxes = [[float("nan")] * 4, [0, 0, float("inf"), 10], [-1e9, -1e9, 1e9, 1e9], [500, 500, 600, 600]]
    Visualizer(picture).overlay_instances(boxes=boxes, labels=["a", "b", "c", "d"])


def test_unequal_counts_are_an_error(picture: np.ndarray) -> None:
    with pytest.raises(ValueError, match="'boxes': 1, 'labels': 2"):
        Visualizer(picture).overlay_instances(boxes=[[0, 0, 9, 9]], labels=["a", "b"])


def test_masks_of_every_kind_look_the_same(picture: np.ndarray) -> None:
    mask = _square()
    rle = mask_util.encode(np.asfortranarray(mask.astype(np.uint8)))
    polygon = np.array([20.0, 15, 50, 15, 50, 45, 20, 45])
    kinds: list[Any] = [
        [mask],
        [rle],
        [{"size": rle["size"], "counts": rle["counts"].decode()}],
        torch.from_numpy(mask)[None],
        BitMasks(torch.from_numpy(mask)[None]),
        PolygonMasks([[polygon]]),
        [[polygon.tolist()]],
        [GenericMask(mask, HEIGHT, WIDTH)],
    ]
    images = [Visualizer(picture).overlay_instances(masks=kind).get_image() for kind in kinds]
    inner = np.index_exp[15 + EDGE : 45 - EDGE, 20 + EDGE : 50 - EDGE]
    for image in images:
        # Outlines of pixels run through the middle of pixels, polygons where they say.
        np.testing.assert_allclose(image[inner].astype(int), images[0][inner], atol=1)
        _assert_drawn_only_in((image != picture).any(axis=2), mask)


def test_semantic_classes_take_their_colours(picture: np.ndarray, metadata: Metadata) -> None:
    label_map = np.full((HEIGHT, WIDTH), 255)
    label_map[:, :40] = 1
    visualizer = Visualizer(picture, metadata)
    image = visualizer.draw_sem_seg(torch.from_numpy(label_map), alpha=0.5, draw_text=False).get_image()
    np.testing.assert_allclose(image[30, 10], 0.5 * picture[30, 10] + 0.5 * np.array([0, 0, 250]), atol=1)
    np.testing.assert_array_equal(image[:, 44:], picture[:, 44:])


def test_panoptic_segments_are_drawn_and_labelled(picture: np.ndarray, metadata: Metadata) -> None:
    ids = np.zeros((HEIGHT, WIDTH), dtype=np.int32)
    ids[:, :40] = 7
    ids[20:40, 50:70] = 9
    segments = [
        {"id": 7, "category_id": 2, "isthing": False},
        {"id": 9, "category_id": 0, "isthing": True, "score": 0.5},
        {"id": 11, "category_id": 1, "isthing": True, "score": 0.5},  # not in the map
    ]
    visualizer = Visualizer(picture, metadata)
    changed = _changed(picture, visualizer.draw_panoptic_seg_predictions(ids, segments))
    assert len(visualizer.output.label_boxes) == 2
    assert changed[:, 3:37].all() and changed[23:37, 53:67].all()
    encoded = np.where(ids == 9, 1000, np.where(ids == 7, 2000, -1))
    Visualizer(picture, metadata).draw_panoptic_seg(encoded, None)


def test_dataset_dict_is_drawn(picture: np.ndarray, metadata: Metadata, tmp_path: Path) -> None:
    label_map = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    label_map[:10] = 1
    Image.fromarray(label_map).save(tmp_path / "stuff.png")
    annotations = [
        {
            "bbox": [20, 15, 30, 30],
            "bbox_mode": BoxMode.XYWH_ABS,
            "category_id": 1,
            "iscrowd": 1,
            "segmentation": [[20.0, 15, 50, 15, 50, 45, 20, 45]],
            "keypoints": [30.0, 30.0, 2.0, 0.0, 0.0, 0.0],
        }
    ]
    visualizer = Visualizer(picture, metadata)
    record = {"annotations": annotations, "sem_seg_file_name": str(tmp_path / "stuff.png")}
    changed = _changed(picture, visualizer.draw_dataset_dict(record))
    assert changed[2:8].all() and changed[20:40, 25:45].all()
    assert not changed[50:, :10].any()  # the class that stands for things is not stuff


def test_keypoints_are_joined_by_the_rules(picture: np.ndarray, metadata: Metadata) -> None:
    metadata.keypoint_names = ["nose", "left_shoulder", "right_shoulder"]
    metadata.keypoint_connection_rules = [("left_shoulder", "right_shoulder", (0, 255, 255))]
    points = torch.tensor([[40.0, 10, 0.9], [20, 40, 0.9], [60, 40, 0.9]])
    changed = _changed(picture, Visualizer(picture, metadata).draw_and_connect_keypoints(points))
    assert changed[40, 30] and changed[25, 40]  # shoulder to shoulder, nose to neck
    points[2, 2] = 0
    changed = _changed(picture, Visualizer(picture, metadata).draw_and_connect_keypoints(points))
    assert not changed[40, 30] and not changed[40, 60] and changed[40, 20]


def test_rotated_boxes_turn_counter_clockwise(picture: np.ndarray) -> None:
    boxes = RotatedBoxes(torch.tensor([[40.0, 30.0, 40.0, 4.0, 30.0]]))
    changed = _changed(picture, Visualizer(picture).overlay_instances(boxes=boxes))
    assert changed[17:23, 52:60].any() and not changed[37:43, 52:60].any()  # its right end points up
    labelled = Visualizer(picture)
    labelled.overlay_rotated_instances(boxes, labels=["ship"])
    assert len(labelled.output.label_boxes) == 1


def test_pictures_repeat(picture: np.ndarray, metadata: Metadata) -> None:
    images = [
        Visualizer(picture, metadata).draw_instance_predictions(_predictions(3)).get_image() for _ in range(2)
    ]
    np.testing.assert_array_equal(*images)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPG"])
def test_drawing_is_saved(picture: np.ndarray, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "new" / f"out{suffix}"
    Visualizer(picture).get_output().save(path)
    assert np.asarray(Image.open(path)).shape == picture.shape
    with pytest.raises(ValueError, match="picture format"):
        Visualizer(picture).get_output().save(tmp_path / "out.xyz")


def test_picture_of_wrong_shape_is_an_error() -> None:
    for shape in ((4, 4), (4, 4, 4), (0, 4, 3)):
        with pytest.raises(ValueError, match="picture should be"):
            Visualizer(np.zeros(shape))
    with pytest.raises(ValueError, match="scale"):
        Visualizer(np.zeros((4, 4, 3)), scale=0)


# -- labels


def test_labels_say_what_is_known() -> None:
    assert make_labels([0, 5], [0.987, 0.5], ["cat"]) == ["cat 99%", "5 50%"]
    assert make_labels(None, [0.5], None) == ["50%"]
    assert make_labels([0], None, ["cat"], [True]) == ["cat|crowd"]
    assert make_labels(None, None, ["cat"]) is None


@pytest.mark.parametrize("corner", [(0, 0), (190, 0), (0, 90), (190, 90)])
def test_label_of_a_tiny_object_in_a_corner_leaves_it_visible(corner: tuple[int, int]) -> None:
    target = (float(corner[0]), float(corner[1]), corner[0] + 10.0, corner[1] + 10.0)
    box = place_label((40, 12), target, (100, 200), [])
    assert intersection(box, target) == 0
    assert box == keep_inside(box, (100, 200))


def test_labels_avoid_each_other() -> None:
    target = (50.0, 40.0, 150.0, 90.0)
    taken: list[Any] = []
    for _ in range(4):
        taken.append(place_label((40, 12), target, (100, 200), taken))
    for i, first in enumerate(taken):
        assert all(intersection(first, second) == 0 for second in taken[:i])


def test_a_replaced_method_is_used_by_all_others(picture: np.ndarray, metadata: Metadata) -> None:
    calls: list[str] = []

    class Recording(Visualizer):
        def draw_text(self, text: str, *args: Any, **kwargs: Any) -> Any:
            calls.append(f"text {text}")
            return super().draw_text(text, *args, **kwargs)

        def draw_label(self, text: str, *args: Any, **kwargs: Any) -> None:
            calls.append(f"label {text}")
            super().draw_label(text, *args, **kwargs)

        def _draw_text_in_mask(self, binary_mask: np.ndarray, text: str, color: Any) -> None:
            calls.append(f"in mask {text}")
            super()._draw_text_in_mask(binary_mask, text, color)

    visualizer = Recording(picture, metadata)
    visualizer.draw_binary_mask(_square(), text="sand")
    visualizer.draw_soft_mask(_square(), text="sky")
    visualizer.draw_rotated_box_with_label([40, 30, 20, 10, 30], label="boat")
    in_masks = ["in mask sand", "label sand", "text sand", "in mask sky", "label sky", "text sky"]
    assert calls == [*in_masks, "text boat"]


def test_picture_canvas_and_font_size_may_be_set(picture: np.ndarray) -> None:
    small, large = Visualizer(picture), Visualizer(picture)
    large._default_font_size = 3 * small._default_font_size
    areas = [_changed(picture, v.draw_text("text", (40, 10))).sum() for v in (small, large)]
    assert areas[1] > 3 * areas[0]
    large.output = small.output
    assert large.get_output() is small.get_output()
    large.img = picture[:10]
    assert large.img.shape[0] == 10
