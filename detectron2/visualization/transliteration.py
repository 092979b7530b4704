"""Other letters written in Latin ones, for machines without a font that has them."""

from __future__ import annotations

import unicodedata

_LETTERS = """\
ßss æae œoe øo đd ðd łl þth ıi ħh ŋng
аa бb вv гg дd еe ёe жzh зz иi йy кk лl мm нn оo пp рr сs тt уu фf хkh цts чch шsh щshch ъ ыy ь эe юyu яya
іi їyi єye ґg ўu ђdj јj љlj њnj ћc џdz
αa βv γg δd εe ζz ηi θth ιi κk λl μm νn ξx οo πp ρr σs ςs τt υy φf χch ψps ωo"""
_LATIN = {entry[0]: entry[1:] for entry in _LETTERS.split()}
_NAMED = ("HIRAGANA LETTER ", "KATAKANA LETTER ", "HANGUL SYLLABLE ")
_MARKS = {
    "\N{EN DASH}": "-",
    "\N{EM DASH}": "-",
    "\N{IDEOGRAPHIC FULL STOP}": ".",
    "\N{KATAKANA-HIRAGANA PROLONGED SOUND MARK}": "-",
}


def transliterate(character: str) -> str:
    """Write one character in ASCII: as it sounds where that is simple, else as its number, "U+732B".

    Latin, Greek and Cyrillic letters, kana and Hangul have a sound here.
    """
    if character.isascii():
        return character
    if character in _MARKS:
        return _MARKS[character]
    if character.isspace():
        return " "
    lower = character.lower()
    if lower in _LATIN:
        return _LATIN[lower].capitalize() if character != lower else _LATIN[lower]
    name = unicodedata.name(character, "")
    for start in _NAMED:
        if name.startswith(start):
            return name.removeprefix(start).removeprefix("SMALL ").lower()
    if unicodedata.category(character) in ("Mn", "Cf", "Cc"):
        return ""  # accents on the letter before, and marks without a shape
    parts = unicodedata.normalize("NFKD", character)
    if parts != character:
        return "".join(map(transliterate, parts))
    return f"U+{ord(character):04X}"
