"""The inventory of config keys is the contract with configs that others wrote."""

from __future__ import annotations

import json

from detectron2.config import get_cfg

from .key_inventory import TABLE, declared_meanings, in_python, inventory, meanings, types_of

REFRESH = "run `python tests/config/key_inventory.py` if it is meant to, and say so in the changelog"


def test_keys_with_their_types_and_meanings_are_those_of_the_frozen_table() -> None:
    frozen = json.loads(TABLE.read_text(encoding="utf-8"))
    found = inventory()
    assert found.keys() == frozen.keys(), REFRESH
    changed = [key for key in found if found[key] != frozen[key]]
    assert not changed, REFRESH


def test_every_key_is_documented_where_it_is_declared() -> None:
    assert not [key for key, entry in inventory().items() if not entry["meaning"]]
    assert declared_meanings().keys() == dict(types_of(get_cfg())).keys()


def test_a_meaning_is_the_comment_above_or_that_of_the_key_above() -> None:
    source = """_INNER = {
    "A": 1,
    # Two
    # lines.
    "B": 2,
    "C": {"D": 1, "E": 2},
}
DEFAULTS = CN(
    {
        # A section.
        "INNER": _INNER,
        # The last.
        "LAST": None,
    }
)
"""
    assert dict(meanings(in_python(source), source.splitlines(), "", "")) == {
        "INNER.A": "A section.",
        "INNER.B": "Two lines.",
        "INNER.C.D": "Two lines.",
        "INNER.C.E": "Two lines.",
        "LAST": "The last.",
    }
