"""What follows from the categories of a file in COCO's panoptic format."""

from __future__ import annotations

from typing import Any

from detectron2.utils.user_errors import UserValueError

from .builtin_meta import separated_panoptic_meta, standard_panoptic_meta

PANOPTIC_ID_MAPS = ("thing_dataset_id_to_contiguous_id", "stuff_dataset_id_to_contiguous_id")
PANOPTIC_KEYS = ("thing_classes", "thing_colors", "stuff_classes", "stuff_colors", *PANOPTIC_ID_MAPS)


def derive_separated(panoptic_json: str, content: dict[str, Any]) -> dict[str, Any]:
    """Metadata with a numbering for things and one for stuff, from the content of a panoptic JSON."""
    return separated_panoptic_meta(_checked_categories(panoptic_json, content))


def derive_standard(panoptic_json: str, content: dict[str, Any]) -> dict[str, Any]:
    """Metadata with one numbering for things and stuff, from the same."""
    return standard_panoptic_meta(_checked_categories(panoptic_json, content))


def _checked_categories(panoptic_json: str, content: dict[str, Any]) -> list[dict[str, Any]]:
    """Categories of a panoptic JSON by ascending id, each with `id`, `name` and `isthing`."""
    categories = content.get("categories", [])
    for category in categories:
        lacking = {"id", "name", "isthing"} - category.keys()
        if lacking:
            raise UserValueError(
                f"Category {category} in {panoptic_json!r} lacks {', '.join(sorted(lacking))}. Every "
                "category needs 'id', 'name' and 'isthing' (1 for things, 0 for stuff)."
            )
    if not categories:
        raise UserValueError(f"{panoptic_json!r} has no 'categories'.")
    ids = [category["id"] for category in categories]
    if len(set(ids)) < len(ids):
        raise UserValueError(f"{panoptic_json!r} has a category id twice: {sorted(ids)}.")
    return sorted(categories, key=lambda category: category["id"])
