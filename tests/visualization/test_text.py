"""Labels in any letters: from another font of the machine, else in Latin letters, and never as boxes."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import ImageFont

from detectron2.utils.visualizer import Visualizer
from detectron2.visualization import fonts
from detectron2.visualization.text import text_coverage
from detectron2.visualization.transliteration import transliterate

from .conftest import MakeFont

SCRIPTS = {"latin": "ő", "greek": "Ω", "cyrillic": "ж", "chinese": "猫", "kana": "ネ", "hangul": "강"}


@pytest.mark.parametrize("letter", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_a_letter_that_a_font_of_the_machine_has_is_taken_from_it(
    letter: str, make_font: MakeFont, no_fonts: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    no_fonts.setenv(fonts.FONT_VARIABLE, str(make_font(letter)))
    ink = text_coverage(letter, 100)
    rows, columns = np.nonzero(ink > 200)
    assert columns.max() - columns.min() > 70  # a wedge, broad below and narrow above
    assert (ink[rows.min() + 3] > 200).sum() < 20 < (ink[rows.max() - 3] > 200).sum()
    assert not caplog.records


def test_each_letter_takes_the_first_font_that_has_it(
    make_font: MakeFont, no_fonts: pytest.MonkeyPatch
) -> None:
    first, second = make_font("猫ж"), make_font("猫犬")
    no_fonts.setenv(fonts.FONT_VARIABLE, f"{first}{os.pathsep}{second}")
    assert [fonts.font_with(letter) for letter in "猫犬жA"] == [str(first), str(second), str(first), ""]
    assert fonts.font_with("狼") is None
    assert fonts.font_with("A\N{COMBINING CARON BELOW}") is None  # no font has both


@pytest.mark.parametrize(
    ("label", "latin"),
    [
        ("кошка", "koshka"), ("Щука", "Shchuka"), ("γάτα", "gata"), ("ねこ", "neko"), ("고양이", "goyangi"),
        ("Straße", "Strasse"), ("Ærø", "Aero"), ("Ｆｕｌｌ", "Full"), ("猫", "U+732B"), ("a–b", "a-b"),
    ],
)  # fmt: skip
def test_without_a_font_letters_become_latin_with_one_warning(
    label: str, latin: str, no_fonts: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert "".join(map(transliterate, label)) == latin
    no_fonts.setattr(fonts, "has_character", lambda path, letter: letter.isascii())
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(text_coverage(label, 20), text_coverage(latin, 20))
        text_coverage(label + " again", 20)
    (record,) = caplog.records
    assert label in record.getMessage() and fonts.FONT_VARIABLE in record.getMessage()


def test_no_letter_is_ever_a_box(no_fonts: pytest.MonkeyPatch) -> None:
    lacking = fonts.font_of(None, 32).getmask("\U0010ffff")
    box = np.asarray(lacking).reshape(lacking.size[::-1])
    for letter in "猫жΩő강🐱\N{HEBREW LETTER ALEF}\N{THAI CHARACTER KO KAI}":
        drawn = text_coverage(letter, 32)
        inked = drawn[np.ix_(drawn.any(axis=1), drawn.any(axis=0))]
        assert inked.size
        assert inked.shape != box.shape or (inked != box).any(), letter


def test_spaces_and_marks_without_a_shape_leave_no_trace(no_fonts: pytest.MonkeyPatch) -> None:
    plain = text_coverage("a b", 20)
    for text in ("a\tb", "a\N{NO-BREAK SPACE}b", "a\N{IDEOGRAPHIC SPACE}b", "a b\x07"):
        np.testing.assert_array_equal(text_coverage(text, 20), plain)


def test_a_font_that_is_not_there_is_named(no_fonts: pytest.MonkeyPatch, tmp_path: Path) -> None:
    no_fonts.setenv(fonts.FONT_VARIABLE, str(tmp_path / "none.ttf"))
    with pytest.raises(FileNotFoundError, match=r"DETECTRON2_FONT.*none\.ttf"):
        text_coverage("猫", 20)
    assert text_coverage("cat", 20).any()  # nothing is looked for before it is needed


def test_damaged_fonts_are_passed_over(
    make_font: MakeFont, no_fonts: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "fonts"
    folder.mkdir()
    (folder / "a.ttf").write_bytes(b"no font")
    (folder / "LastResort.otf").write_bytes(make_font("猫").read_bytes())
    no_fonts.setenv(fonts.FONT_VARIABLE, str(folder))
    assert fonts.font_with("猫") is None
    (folder / "b.ttf").write_bytes(make_font("猫").read_bytes())
    fonts.font_files.cache_clear()
    fonts.font_with.cache_clear()
    assert fonts.font_with("猫") == str(folder / "b.ttf")


def test_upright_fonts_of_many_scripts_come_first(no_fonts: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = [
        "NotoSansCJK-Regular.ttc",
        "Abc.ttf",
        "DejaVuSans-Bold.ttf",
        "DejaVuSerif.ttf",
        "NotoSansMono.ttf",
    ]
    for name in names:
        (tmp_path / name).touch()
    no_fonts.setattr(fonts, "_SYSTEM_FOLDERS", (str(tmp_path),))
    found = [Path(path).name for path in fonts.font_files()]
    assert found[0] == names[0] and found.index("Abc.ttf") < found.index("DejaVuSans-Bold.ttf")


def test_pillow_without_scalable_fonts(no_fonts: pytest.MonkeyPatch) -> None:
    bitmap = ImageFont.load_default_imagefont()
    no_fonts.setattr(fonts, "font_of", lambda path, size: bitmap)
    no_fonts.setattr("detectron2.visualization.text.font_of", lambda path, size: bitmap)
    np.testing.assert_array_equal(text_coverage("жaé", 20), text_coverage("zhaé", 20))


def test_a_label_of_other_letters_is_drawn(make_font: MakeFont, no_fonts: pytest.MonkeyPatch) -> None:
    no_fonts.setenv(fonts.FONT_VARIABLE, str(make_font("猫")))
    picture = np.zeros((80, 120, 3), np.uint8)
    known, other = (
        Visualizer(picture).draw_text(text, (60, 20), color="w").get_image().astype(int) for text in "猫犬"
    )
    assert (known > 150).any() and (known != other).any()
