"""Random augmentations: draws, bounds, and the interface between augmentations and inputs."""

from __future__ import annotations

import numpy as np
import pytest

from detectron2.data import transforms as T

IMAGE = np.random.RandomState(0).randint(0, 256, (60, 80, 3)).astype(np.uint8)


@pytest.fixture(autouse=True)
def _seed() -> None:
    np.random.seed(7)


@pytest.mark.parametrize(
    ("size", "short", "longest", "expected"),
    [
        ((480, 640), 800, 1333, (800, 1067)),  # 1066.67 rounds up
        ((640, 480), 800, 1333, (1067, 800)),
        ((427, 640), 800, 1333, (800, 1199)),
        ((333, 1000), 800, 1333, (444, 1333)),  # the limit decides
        ((500, 500), 400, 1333, (400, 400)),
        ((1, 1), 800, 1333, (800, 800)),
        ((1, 5000), 800, 1333, (1, 1333)),
    ],
)
def test_shortest_edge_sizes(size, short, longest, expected) -> None:
    height, width = size
    assert T.ResizeShortestEdge.get_output_shape(height, width, short, longest) == expected


def test_shortest_edge_draws_from_range_and_choice() -> None:
    np.random.seed(3)
    expected = [np.random.randint(20, 41) for _ in range(20)]
    np.random.seed(3)
    aug = T.ResizeShortestEdge((20, 40), 1000)
    assert [aug.get_transform(IMAGE).new_h for _ in range(20)] == expected
    choices = {T.ResizeShortestEdge([20, 40], 1000, "choice").get_transform(IMAGE).new_h for _ in range(50)}
    assert choices == {20, 40}
    assert isinstance(T.ResizeShortestEdge(0).get_transform(IMAGE), T.NoOpTransform)


def test_shortest_edge_refuses_a_list_as_range() -> None:
    with pytest.raises(ValueError, match="choice"):
        T.ResizeShortestEdge((20, 30, 40))
    with pytest.raises(ValueError, match="sample_style"):
        T.ResizeShortestEdge((20, 30), sample_style="any")


@pytest.mark.parametrize(
    ("kind", "size", "low", "high"),
    [
        ("relative", (0.5, 0.25), (30, 20), (30, 20)),
        ("relative_range", (0.5, 0.25), (30, 20), (60, 80)),
        ("absolute", (20, 30), (20, 30), (20, 30)),
        ("absolute", (100, 30), (60, 30), (60, 30)),
        ("absolute_range", (20, 30), (20, 20), (30, 30)),
        ("absolute_range", (70, 90), (60, 70), (60, 80)),
    ],
)
def test_crop_size_lies_in_bounds(kind, size, low, high) -> None:
    crop = T.RandomCrop(kind, size)
    for _ in range(50):
        transform = crop.get_transform(IMAGE)
        assert low[0] <= transform.h <= high[0] and low[1] <= transform.w <= high[1]
        assert transform.apply_image(IMAGE).shape[:2] == (transform.h, transform.w)


def test_crop_draws_in_the_published_order() -> None:
    np.random.seed(5)
    fractions = np.float32([0.5, 0.5]) + np.random.rand(2) * (1 - np.float32([0.5, 0.5]))
    h, w = int(60 * fractions[0] + 0.5), int(80 * fractions[1] + 0.5)
    y0, x0 = np.random.randint(60 - h + 1), np.random.randint(80 - w + 1)
    np.random.seed(5)
    crop = T.RandomCrop("relative_range", (0.5, 0.5)).get_transform(IMAGE)
    assert (crop.x0, crop.y0, crop.w, crop.h) == (x0, y0, w, h)


def test_unknown_crop_type_lists_the_known() -> None:
    with pytest.raises(ValueError, match="relative_range"):
        T.RandomCrop("relativ", (0.5, 0.5))


def test_category_constraint_avoids_uniform_windows() -> None:
    labels = np.zeros((60, 80), dtype=np.uint8)
    labels[:, 40:] = 1
    crop = T.RandomCrop_CategoryAreaConstraint("absolute", (30, 30), 0.9)
    found = 0
    for _ in range(20):
        window = crop.get_transform(IMAGE, labels).apply_segmentation(labels)
        found += len(np.unique(window)) == 2
    assert found >= 18
    plain = T.RandomCrop_CategoryAreaConstraint("absolute", (30, 30))
    assert plain.get_transform(IMAGE, labels).h == 30


def test_flip_probability_and_kind() -> None:
    assert isinstance(T.RandomFlip(1.0).get_transform(IMAGE), T.HFlipTransform)
    vertical = T.RandomFlip(1.0, horizontal=False, vertical=True).get_transform(IMAGE)
    assert np.array_equal(vertical.apply_image(IMAGE), IMAGE[::-1])
    assert isinstance(T.RandomFlip(0.0).get_transform(IMAGE), T.NoOpTransform)
    with pytest.raises(ValueError, match="horizontal"):
        T.RandomFlip(vertical=True)


def test_fixed_size_crop_pads_small_and_crops_large() -> None:
    for size in ((100, 40), (20, 20), (200, 200)):
        transform = T.FixedSizeCrop(size, pad_value=7).get_transform(IMAGE)
        assert transform.apply_image(IMAGE).shape[:2] == size
        labels = transform.apply_segmentation(np.zeros((60, 80), dtype=np.uint8))
        assert labels.shape == size and set(np.unique(labels)) <= {0, 255}
    unpadded = T.FixedSizeCrop((100, 40), pad=False).get_transform(IMAGE)
    assert unpadded.apply_image(IMAGE).shape[:2] == (60, 40)


def test_resize_scale_keeps_the_aspect_ratio() -> None:
    transform = T.ResizeScale(0.5, 0.5, 240, 240).get_transform(IMAGE)
    assert (transform.new_h, transform.new_w) == (90, 120)


def test_random_resize_and_resize() -> None:
    sizes = {
        T.RandomResize([(10, 20), (30, 40)]).get_transform(IMAGE).apply_image(IMAGE).shape[:2]
        for _ in range(20)
    }
    assert sizes == {(10, 20), (30, 40)}
    assert T.Resize(12).get_transform(IMAGE).apply_image(IMAGE).shape == (12, 12, 3)
    assert T.Resize((12, 13)).get_transform(IMAGE).apply_image(IMAGE).shape == (12, 13, 3)


def test_rotation_draws_angles() -> None:
    angles = {
        T.RandomRotation([10, 20, 30], sample_style="choice").get_transform(IMAGE).angle for _ in range(50)
    }
    assert angles == {10, 20, 30}
    angle = (
        T.RandomRotation([10, 20], center=[[0.4, 0.4], [0.6, 0.6]], expand=False).get_transform(IMAGE).angle
    )
    assert 10 <= angle <= 20
    assert isinstance(T.RandomRotation(0).get_transform(IMAGE), T.NoOpTransform)
    assert T.RandomRotation(45, center=[0.5, 0.5], expand=False).get_transform(IMAGE).center == (40, 30)


def test_extent_is_scaled_then_shifted_about_the_middle() -> None:
    np.random.seed(11)
    scale, right, down = np.random.uniform(0.4, 0.6), np.random.rand() - 0.5, np.random.rand() - 0.5
    x0, x1 = (sign * 0.5 * 80 * scale + 0.2 * 80 * right + 0.5 * 80 for sign in (-1, 1))
    y0, y1 = (sign * 0.5 * 60 * scale + 0.1 * 60 * down + 0.5 * 60 for sign in (-1, 1))
    np.random.seed(11)
    extent = T.RandomExtent((0.4, 0.6), (0.2, 0.1)).get_transform(IMAGE)
    assert extent.src_rect.tolist() == [x0, y0, x1, y1]
    assert extent.output_size == (int(y1 - y0), int(x1 - x0))
    assert extent.apply_image(IMAGE).shape == (*extent.output_size, 3)


@pytest.mark.parametrize("aug", [T.RandomContrast, T.RandomBrightness, T.RandomSaturation])
def test_intensity_one_changes_nothing_and_zero_gives_the_reference(aug) -> None:
    same = aug(1, 1).get_transform(IMAGE).apply_image(IMAGE)
    assert np.array_equal(same, IMAGE)
    flat = aug(0, 0).get_transform(IMAGE).apply_image(IMAGE).astype(int)
    assert np.ptp(flat, axis=2).max() <= 1  # grey


def test_lighting_shifts_all_pixels_alike() -> None:
    image = IMAGE.astype(np.float32)
    shifted = T.RandomLighting(10.0).get_transform(image).apply_image(image)
    assert np.ptp((shifted - image).reshape(-1, 3), axis=0).max() < 1e-3


def test_min_iou_crop_keeps_a_box_centre() -> None:
    boxes = np.array([[10.0, 10, 30, 30], [40, 20, 60, 50]])
    aug = T.MinIoURandomCrop(min_ious=(0.1,), min_crop_size=0.5)
    num_crops = 0
    for _ in range(30):
        transform = aug.get_transform(IMAGE, boxes)
        if isinstance(transform, T.NoOpTransform):
            continue
        num_crops += 1
        centers = (boxes[:, :2] + boxes[:, 2:]) / 2
        low = np.array([transform.x0, transform.y0])
        assert ((centers > low) & (centers < low + [transform.w + 1, transform.h + 1])).all(axis=1).any()
    assert num_crops > 5
    assert isinstance(aug.get_transform(IMAGE, None), T.NoOpTransform)


def test_random_apply_uses_its_probability() -> None:
    always, never = T.RandomApply(T.HFlipTransform(80), 1.0), T.RandomApply(T.HFlipTransform(80), 0.0)
    assert np.array_equal(always(T.AugInput(IMAGE)).apply_image(IMAGE), IMAGE[:, ::-1])
    assert isinstance(never.get_transform(), T.NoOpTransform)


def test_list_applies_in_order_to_image_boxes_and_labels() -> None:
    aug_input = T.AugInput(
        IMAGE,
        boxes=np.array([[0.0, 0.0, 40.0, 30.0]]),
        sem_seg=np.arange(80, dtype=np.uint8)[None].repeat(60, 0),
    )
    augs = T.AugmentationList([T.HFlipTransform(80), T.Resize((120, 160))])
    transforms = augs(aug_input)
    assert isinstance(transforms, T.TransformList) and len(transforms) == 2
    assert aug_input.image.shape == (120, 160, 3)
    assert aug_input.boxes.tolist() == [[80, 0, 160, 60]]
    assert aug_input.sem_seg[0, 0] == 79


def test_augmentation_sees_the_attributes_it_names() -> None:
    class CropToBox(T.Augmentation):
        def get_transform(self, image, boxes):
            x0, y0, x1, y1 = boxes[0].astype(int)
            return T.CropTransform(x0, y0, x1 - x0, y1 - y0)

    aug_input = T.AugInput(IMAGE, boxes=np.array([[10.0, 5.0, 30.0, 25.0]]))
    CropToBox()(aug_input)
    assert np.array_equal(aug_input.image, IMAGE[5:25, 10:30])
    with pytest.raises(AttributeError, match="'masks'"):

        class NeedsMasks(T.Augmentation):
            input_args = ("masks",)

            def get_transform(self, masks): ...

        NeedsMasks()(T.AugInput(IMAGE))


def test_a_single_argument_of_any_name_is_the_image() -> None:
    class CropHalf(T.Augmentation):
        def get_transform(self, img):
            return T.CropTransform(0, 0, img.shape[1] // 2, img.shape[0])

    class CropQuarter(T.Augmentation):
        def get_transform(self, *args):
            (picture,) = args
            return T.CropTransform(0, 0, picture.shape[1] // 4, picture.shape[0])

    aug_input = T.AugInput(IMAGE, boxes=np.zeros((1, 4)))
    CropHalf()(aug_input)
    assert np.array_equal(aug_input.image, IMAGE[:, :40])
    CropQuarter()(aug_input)
    assert np.array_equal(aug_input.image, IMAGE[:, :10])


def test_random_apply_of_a_transform_gives_it_for_an_image() -> None:
    flip = T.HFlipTransform(80)
    assert T.RandomApply(flip, prob=1.0).get_transform(IMAGE) is flip
    assert isinstance(T.RandomApply(flip, prob=0.0).get_transform(IMAGE), T.NoOpTransform)
    assert isinstance(T.RandomApply(T.Resize(30), prob=1.0).get_transform(IMAGE), T.ResizeTransform)


def test_wrong_results_and_inputs_are_named() -> None:
    class Nothing(T.Augmentation):
        def get_transform(self, image): ...

    with pytest.raises(TypeError, match="must return a Transform"):
        Nothing()(T.AugInput(IMAGE))
    with pytest.raises(TypeError, match="int64"):
        T.AugInput(IMAGE.astype(np.int64))
    with pytest.raises(TypeError, match="Augmentation or a Transform"):
        T.AugmentationList([3])


def test_apply_augmentations_takes_arrays() -> None:
    image, transforms = T.apply_augmentations([T.Resize((30, 40))], IMAGE)
    assert image.shape == (30, 40, 3)
    assert np.array_equal(transforms.apply_image(IMAGE), image)


def test_repr_shows_arguments() -> None:
    assert repr(T.ResizeShortestEdge((20, 30), max_size=5)) == (
        "ResizeShortestEdge(short_edge_length=(20, 30), max_size=5)"
    )
    assert repr(T.RandomFlip()) == "RandomFlip()"
    assert repr(T.RandomFlip(prob=float("0.5"))) == "RandomFlip(prob=0.5)"
