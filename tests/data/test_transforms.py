"""Deterministic transforms against hand-made references."""

from __future__ import annotations

import cv2
import fvcore.transforms.transform as fvcore_transforms
import numpy as np
import pytest
import torch
from PIL import Image

from detectron2.data import transforms as T
from detectron2.structures.rotated_boxes import RotatedBoxes


@pytest.fixture
def image() -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (20, 30, 3)).astype(np.uint8)


def test_types_are_those_of_fvcore() -> None:
    assert T.Transform is fvcore_transforms.Transform
    assert issubclass(T.CropTransform, fvcore_transforms.CropTransform)


@pytest.mark.parametrize(
    "interp", [Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC]
)
def test_resize_of_bytes_is_pillows(image: np.ndarray, interp: int) -> None:
    resized = T.ResizeTransform(20, 30, 33, 41, interp).apply_image(image)
    assert np.array_equal(resized, np.asarray(Image.fromarray(image).resize((41, 33), interp)))
    gray = image[:, :, :1]
    single = T.ResizeTransform(20, 30, 33, 41, interp).apply_image(gray)
    assert single.shape == (33, 41, 1)


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3), (2, 20, 30, 3)])
def test_resize_of_floats_is_torchs(shape: tuple[int, ...]) -> None:
    source = np.random.RandomState(0).rand(*shape).astype(np.float32)[..., ::-1]
    resized = T.ResizeTransform(20, 30, 33, 41).apply_image(source)
    planes = (
        torch.tensor(source.copy())
        .reshape(-1, 20, 30, shape[-1] if len(shape) > 2 else 1)
        .permute(0, 3, 1, 2)
    )
    expected = torch.nn.functional.interpolate(planes, (33, 41), mode="bilinear", align_corners=False)
    expected = expected.permute(0, 2, 3, 1).numpy()
    assert np.array_equal(resized.reshape(expected.shape), expected)


def test_resize_scales_coordinates_and_inverts() -> None:
    resize = T.ResizeTransform(20, 30, 40, 90)
    points = np.array([[3.0, 5.0], [30.0, 20.0]])
    assert resize.apply_coords(points.copy()).tolist() == [[9, 10], [90, 40]]
    assert resize.inverse().apply_coords(resize.apply_coords(points.copy())).tolist() == points.tolist()
    assert resize.apply_coords(np.array([[1, 1]])).tolist() == [[3.0, 2.0]]
    assert resize.apply_box(np.zeros((0, 4))).shape == (0, 4)


def test_resize_of_whole_numbers_gives_whole_numbers() -> None:
    corners = np.array([[1, 1], [5, 3], [3, 9]])
    (moved,) = T.ResizeTransform(10, 10, 15, 25).apply_polygons([corners])
    assert moved.dtype == corners.dtype
    assert moved.tolist() == [[2, 1], [12, 4], [7, 13]]
    assert corners.tolist() == [[1, 1], [5, 3], [3, 9]]


def test_resize_refuses_another_image_size(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="20 x 31"):
        T.ResizeTransform(20, 31, 5, 5).apply_image(image)


def test_segmentation_keeps_its_labels(image: np.ndarray) -> None:
    labels = (image[:, :, 0] > 128).astype(np.uint8) * 255
    for transform in (
        T.ResizeTransform(20, 30, 37, 11),
        T.RotationTransform(20, 30, 30),
        T.ExtentTransform((2, 3, 20, 15), (30, 40)),
    ):
        assert set(np.unique(transform.apply_segmentation(labels))) <= {0, 255}


def test_extent_moves_points_with_pixels() -> None:
    source = np.zeros((20, 30), dtype=np.uint8)
    source[8, 10] = 200
    extent = T.ExtentTransform((5, 4, 15, 14), (20, 20), interp=Image.Resampling.NEAREST)
    result = extent.apply_image(source)
    assert np.argwhere(result == 200).tolist() == [[8, 10], [8, 11], [9, 10], [9, 11]]
    assert extent.apply_coords(np.array([[10.5, 8.5]])).tolist() == [[11, 9]]


@pytest.mark.parametrize("angle", [0, 45, 90, 123, 360])
@pytest.mark.parametrize("expand", [True, False])
def test_rotation_matrix_is_opencvs(angle: float, expand: bool) -> None:
    h, w = 21, 34
    rotation = T.RotationTransform(h, w, angle, expand=expand)
    matrix = cv2.getRotationMatrix2D((w / 2, h / 2), angle, 1)
    if expand:
        matrix[:, 2] += np.array([rotation.bound_w / 2, rotation.bound_h / 2]) - (w / 2, h / 2)
    points = np.array([[0.0, 0.0], [5.0, 7.0], [34.0, 21.0]])
    expected = points @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose(rotation.apply_coords(points), expected, atol=1e-9)


def test_rotation_by_right_angle_turns_counter_clockwise(image: np.ndarray) -> None:
    rotated = T.RotationTransform(20, 30, 90).apply_image(image)
    assert np.array_equal(rotated, np.rot90(image))
    assert T.RotationTransform(20, 30, 0).apply_image(image) is image


def test_rotation_inverse_returns_points() -> None:
    rotation = T.RotationTransform(20, 30, 33)
    points = np.array([[3.0, 4.0], [15.0, 10.0], [29.0, 1.0]])
    back = rotation.inverse().apply_coords(rotation.apply_coords(points))
    np.testing.assert_allclose(back, points, atol=1)  # the canvas is rounded to pixels twice
    with pytest.raises(NotImplementedError):
        T.RotationTransform(20, 30, 33, expand=False).inverse()


def _area(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return 0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))


@pytest.mark.parametrize(
    ("polygon", "expected_area"),
    [
        ([[5, 5], [15, 5], [15, 15], [5, 15]], 100),  # inside
        ([[-10, -10], [40, -10], [40, 40], [-10, 40]], 400),  # the window lies inside
        ([[10, 10], [30, 10], [30, 20], [10, 20]], 100),  # half outside
        ([[-5, 5], [5, 5], [5, 15], [-5, 15]], 50),
        ([[10, -10], [30, 10], [10, 30], [-10, 10]], 400),  # a diamond around the corners
    ],
)
def test_cropped_polygon_covers_the_overlap(polygon: list, expected_area: float) -> None:
    crop = T.CropTransform(0, 0, 20, 20)
    for points in (polygon, polygon[::-1]):
        (clipped,) = crop.apply_polygons([np.array(points, dtype=float)])
        assert _area(clipped) == pytest.approx(expected_area)
        assert clipped.min() >= 0 and clipped.max() <= 20


def test_cropped_polygon_moves_with_the_window_and_keeps_its_input() -> None:
    polygon = np.array([[12.0, 14.0], [18.0, 14.0], [18.0, 19.0]])
    (clipped,) = T.CropTransform(10, 12, 20, 20).apply_polygons([polygon])
    assert clipped.tolist() == [[2, 2], [8, 2], [8, 7]]
    assert polygon[0].tolist() == [12, 14]


def test_polygons_outside_the_crop_disappear() -> None:
    outside = np.array([[30.0, 30.0], [40.0, 30.0], [40.0, 40.0]])
    touching = np.array([[20.0, 0.0], [40.0, 0.0], [40.0, 20.0], [20.0, 20.0]])
    assert T.CropTransform(0, 0, 20, 20).apply_polygons([outside, touching]) == []


def test_cropped_concave_polygon_draws_the_same_pixels() -> None:
    comb = np.array([[2, 2], [30, 2], [30, 6], [10, 6], [10, 10], [30, 10], [30, 14], [2, 14]], dtype=float)
    crop = T.CropTransform(15, 0, 20, 16)

    def draw(polygons: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
        canvas = np.zeros(size, dtype=np.uint8)
        for polygon in polygons:
            cv2.fillPoly(canvas, [np.round(polygon).astype(np.int32)], 1)
        return canvas

    whole = draw([comb], (20, 40))[0:16, 15:35]
    # The joining edges lie on the border, whose column both drawings fill or not.
    assert np.array_equal(draw(crop.apply_polygons([comb]), (16, 20))[:, 1:], whole[:, 1:])


@pytest.mark.parametrize("scale", [(1.0, 1.0), (2.0, 3.0), (0.5, 1.5)])
def test_rotated_boxes_resize_like_the_structure(scale: tuple[float, float]) -> None:
    boxes = np.array([[10.0, 8.0, 6.0, 4.0, 30.0], [5.0, 5.0, 2.0, 9.0, -70.0]])
    resize = T.ResizeTransform(20, 20, int(20 * scale[1]), int(20 * scale[0]))
    expected = RotatedBoxes(torch.tensor(boxes))
    expected.scale(*scale)
    np.testing.assert_allclose(resize.apply_rotated_box(boxes.copy()), expected.tensor.numpy(), rtol=1e-5)


def test_rotated_box_flips() -> None:
    flipped = T.HFlipTransform(100).apply_rotated_box(np.array([[10.0, 8.0, 6.0, 4.0, 30.0]]))
    assert flipped.tolist() == [[90, 8, 6, 4, -30]]


def test_color_transforms_change_pixels_only(image: np.ndarray) -> None:
    invert = T.ColorTransform(lambda pixels: 255 - pixels)
    assert np.array_equal(invert.apply_image(image), 255 - image)
    pil = T.PILColorTransform(lambda picture: picture.point(lambda value: value // 2))
    assert np.array_equal(pil.apply_image(image), image // 2)
    points = np.array([[1.0, 2.0]])
    assert invert.apply_coords(points) is points and invert.apply_segmentation(image) is image
    assert isinstance(invert.inverse(), T.NoOpTransform)
    with pytest.raises(ValueError, match="callable"):
        T.ColorTransform(3)
