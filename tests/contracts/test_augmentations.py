"""What every augmentation does: image, boxes and labels move together, and a seed decides all."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import numpy as np
import pytest

from detectron2.data import transforms as T
from detectron2.utils.user_errors import UserValueError

from . import registered
from .compare import assert_same

HEIGHT, WIDTH = 60, 90
BOXES = np.array([[10, 12, 40, 50], [50, 5, 80, 30]], dtype=np.float64)

AUGMENTATIONS: dict[str, Callable[[], T.Augmentation]] = {
    "AugmentationList": lambda: T.AugmentationList([T.RandomFlip(), T.ResizeScale(0.5, 2.0, 50, 50)]),
    "FixedSizeCrop": lambda: T.FixedSizeCrop((48, 100)),
    "MinIoURandomCrop": T.MinIoURandomCrop,
    "RandomApply": lambda: T.RandomApply(T.RandomRotation([10, 80]), prob=0.5),
    "RandomBrightness": lambda: T.RandomBrightness(0.5, 1.5),
    "RandomContrast": lambda: T.RandomContrast(0.5, 1.5),
    "RandomCrop": lambda: T.RandomCrop("relative_range", (0.4, 0.6)),
    "RandomCrop_CategoryAreaConstraint": lambda: T.RandomCrop_CategoryAreaConstraint(
        "relative", (0.5, 0.7), single_category_max_area=0.7
    ),
    "RandomExtent": lambda: T.RandomExtent((0.6, 1.4), (0.3, 0.3)),
    "RandomFlip": T.RandomFlip,
    "RandomLighting": lambda: T.RandomLighting(10.0),
    "RandomResize": lambda: T.RandomResize([(40, 50), (90, 70)]),
    "RandomRotation": lambda: T.RandomRotation([-30, 60]),
    "RandomSaturation": lambda: T.RandomSaturation(0.5, 1.5),
    "Resize": lambda: T.Resize((33, 77)),
    "ResizeScale": lambda: T.ResizeScale(0.5, 2.0, 64, 64),
    "ResizeShortestEdge": lambda: T.ResizeShortestEdge([30, 90], max_size=120),
}

# Those that draw no random number for this image.
FIXED = {"Resize"}
# Those that look at another part of their input than the image; of these, the ones that cannot do without.
LOOKS_AT = {"MinIoURandomCrop": "boxes", "RandomCrop_CategoryAreaConstraint": "sem_seg"}
NEEDS = {"RandomCrop_CategoryAreaConstraint": "sem_seg"}

SEEDS = range(12)

names = pytest.mark.parametrize("name", AUGMENTATIONS)


def test_every_augmentation_has_a_row() -> None:
    assert list(registered.subclasses(T.Augmentation)) == sorted(AUGMENTATIONS)


def make_input(dtype: str = "uint8") -> T.AugInput:
    """An image in which each object is a bright rectangle that its box encloses."""
    image = np.random.default_rng(0).integers(0, 60, (HEIGHT, WIDTH, 3))
    labels = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    for number, (x0, y0, x1, y1) in enumerate(BOXES.astype(int), start=1):
        image[y0:y1, x0:x1] += 150
        labels[y0:y1, x0:x1] = number
    return T.AugInput(image.astype(dtype), boxes=BOXES.copy(), sem_seg=labels)


def apply(augmentation: T.Augmentation, seed: int, dtype: str = "uint8") -> tuple[T.AugInput, T.Transform]:
    aug_input = make_input(dtype)
    np.random.seed(seed)
    return aug_input, augmentation(aug_input)


def parts(aug_input: T.AugInput) -> dict[str, np.ndarray | None]:
    return {"image": aug_input.image, "boxes": aug_input.boxes, "sem_seg": aug_input.sem_seg}


@names
def test_a_seed_decides_everything(name: str) -> None:
    augmentation = AUGMENTATIONS[name]()
    results = [parts(apply(augmentation, seed)[0]) for seed in SEEDS]
    for seed, result in zip(SEEDS, results):
        assert_same(result, parts(apply(augmentation, seed)[0]))
        assert_same(result, parts(apply(AUGMENTATIONS[name](), seed)[0]))
    different = {result["image"].tobytes() + str(result["image"].shape).encode() for result in results}
    assert (len(different) == 1) == (name in FIXED)


@names
@pytest.mark.parametrize("duplicate", ["deepcopy", "pickle"])
def test_a_copy_does_the_same(name: str, duplicate: str) -> None:
    """Data loading processes that are spawned get their augmentations pickled."""
    augmentation = AUGMENTATIONS[name]()
    apply(augmentation, 0)  # what a first use keeps must not stand in the way
    if duplicate == "deepcopy":
        twin = copy.deepcopy(augmentation)
    else:
        twin = pickle.loads(pickle.dumps(augmentation))
    for seed in SEEDS:
        assert_same(parts(apply(augmentation, seed)[0]), parts(apply(twin, seed)[0]))
    assert name in repr(twin)
    # Python's own form, of classes whose arguments have other names than their attributes, holds an address.
    assert repr(twin) == repr(augmentation) or " object at 0x" in repr(twin)


@names
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_image_and_labels_agree_in_size_and_keep_their_types(name: str, dtype: str) -> None:
    for seed in SEEDS:
        aug_input, _ = apply(AUGMENTATIONS[name](), seed, dtype)
        # Colours are mixed in double precision, and stay in it where the image was not of whole numbers.
        assert aug_input.image.dtype in ((np.uint8,) if dtype == "uint8" else (np.float32, np.float64))
        assert aug_input.image.shape[2:] == (3,)
        assert aug_input.sem_seg.dtype == np.uint8
        assert aug_input.sem_seg.shape == aug_input.image.shape[:2]
        assert aug_input.boxes.shape == BOXES.shape and np.isfinite(aug_input.boxes).all()
        assert (aug_input.boxes[:, 2:] >= aug_input.boxes[:, :2]).all()


@names
def test_boxes_and_labels_stay_on_their_objects(name: str) -> None:
    seen = 0
    for seed in SEEDS:
        aug_input, _ = apply(AUGMENTATIONS[name](), seed)
        for number, box in enumerate(aug_input.boxes, start=1):
            ys, xs = np.nonzero(aug_input.sem_seg == number)
            if not len(xs):
                continue
            seen += 1
            around = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
            # A rotated rectangle lies inside the box around its corners; resampling moves edges by a pixel.
            assert (around[:2] >= box[:2] - 1.6).all() and (around[2:] <= box[2:] + 1.6).all()
            inside = aug_input.image[aug_input.sem_seg == number].mean()
            outside = aug_input.image[aug_input.sem_seg == 0]
            assert not outside.size or inside > outside[outside.max(axis=-1) < 128].mean()
    assert seen


@names
def test_the_transform_repeats_what_was_done(name: str) -> None:
    """Mappers apply it to masks and keypoints afterwards."""
    for seed in SEEDS:
        aug_input, transform = apply(AUGMENTATIONS[name](), seed)
        again = make_input()
        assert_same(aug_input.image, transform.apply_image(again.image))
        assert_same(aug_input.boxes, transform.apply_box(again.boxes))
        assert_same(aug_input.sem_seg, transform.apply_segmentation(again.sem_seg))
        assert_same(make_input().image, again.image)  # the input array is not written to
        none = np.zeros((0, 2))
        assert transform.apply_coords(none).shape == (0, 2)
        assert transform.apply_box(np.zeros((0, 4))).shape == (0, 4)


@names
def test_an_image_alone_will_do_or_what_is_missing_is_named(name: str) -> None:
    aug_input = T.AugInput(make_input().image)
    np.random.seed(0)
    if name in NEEDS:
        with pytest.raises(UserValueError, match=NEEDS[name]):
            AUGMENTATIONS[name]()(aug_input)
    else:
        AUGMENTATIONS[name]()(aug_input)
        assert aug_input.boxes is None and aug_input.sem_seg is None
        if name not in LOOKS_AT:
            assert_same(aug_input.image, apply(AUGMENTATIONS[name](), 0)[0].image)
