"""Normalises names: one spelling for names that look the same, and a common key for names that are easily confused.

The same Korean name has different bytes on macOS (NFD) than elsewhere (NFC); spreadsheets leave trailing blanks, some
invisible, and drop leading zeros. `clean` unifies names that must be the same, `near` finds those that probably are.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

from orchestrator.core.errors import Problem

__all__ = ["clean", "composed", "lookalikes", "near", "near_people", "odd_character", "visible"]

ZEROS = re.compile(r"(?<![\d.])0+(?=\d)")
WHOLE_NUMBER = re.compile(r"(\d+)\.0+")
IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Characters that show nothing by themselves: Unicode's Default_Ignorable_Code_Point (DerivedCoreProperties.txt, 16.0), which
Python does not know, and the blank of Braille."""


def composed(name: str) -> str:
    """A name in Unicode form NFC, whatever form the disk uses; sorting and fingerprints depend on it."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def clean(name: str) -> str:
    """A name without blanks around it, visible or not, composed; the blanks inside it stay."""
    if name.isascii():
        return name.strip()
    name = composed(name)
    start, end = 0, len(name)
    while start < end and _blank(name[start]):
        start += 1
    while end > start and _blank(name[end - 1]):
        end -= 1
    return name[start:end]


def near(name: str) -> str:
    """A key that is equal for names that are easily confused.

    It ignores case, blanks and invisible characters anywhere, full-width forms of letters and digits, leading zeros, and
    the `.0` that a spreadsheet appends to whole numbers.
    """
    plain, before = name, ""
    while plain != before:  # removing a blank may let its neighbours compose
        before = plain
        folded = unicodedata.normalize("NFKC", plain).casefold()
        plain = unicodedata.normalize("NFKC", "".join(_digit(letter) for letter in folded if not _unseen(letter)))
    number = WHOLE_NUMBER.fullmatch(plain)
    return ZEROS.sub("", number[1] if number else plain)


def lookalikes(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups of names that differ but are easily taken for each other, in the order of the names."""
    groups: dict[str, dict[str, None]] = {}
    for name in names:
        groups.setdefault(near(name), {})[name] = None
    return [tuple(group) for group in groups.values() if len(group) > 1]


def odd_character(name: str) -> str:
    """The first character of a name that no name may contain (a line break, a tab), as its code; empty if there is none."""
    return next((f"U+{ord(letter):04X}" for letter in name if unicodedata.category(letter) in ("Cc", "Zl", "Zp")), "")


def _blank(letter: str) -> bool:
    """Whether a character shows nothing: blanks of every width, joiners, marks of byte order and direction."""
    return (
        letter.isspace()
        or unicodedata.category(letter) in ("Cf", "Zs", "Zl", "Zp")
        or letter in "\u115f\u1160\u3164\uffa0"
    )


def _unseen(letter: str) -> bool:
    """Whether a character shows nothing by itself; some of them choose the form of the letter before, so `clean` keeps them."""
    return _blank(letter) or IGNORABLE.match(letter) is not None


def _digit(letter: str) -> str:
    """A digit of any script as an ASCII one."""
    value = unicodedata.digit(letter, None) if unicodedata.category(letter) == "Nd" else None
    return letter if value is None else str(value)


def near_people(lines_of: Mapping[str, str], table: Path, distinct: bool, way_out: str) -> list[Problem]:
    """People whose names are easily taken for each other: one person under two names could be on both sides of a split.

    Args:
        lines_of: name -> lines of the table that contain it, `lines 3, 4`.
        table: table of the names, for the message.
        distinct: whether the user says that they are different people; problems are then only notes.
        way_out: alternative to `--distinct-people` for different people, as part of a sentence.
    """
    problems = []
    for group in lookalikes(lines_of):
        spellings = " and ".join(f"'{visible(name)}' ({lines_of[name]})" for name in group)
        if distinct:
            what = (
                f"people {spellings} differ in spelling alone: taken as {len(group)} people, as --distinct-people says."
            )
            problems.append(Problem(str(table), what, kind="near_people", fatal=False))
        else:
            what = f"people {spellings} differ in spelling alone: if they are one person, folds would leak."
            fix = f"Write one person one way; or, if they are different people, {way_out}--distinct-people."
            problems.append(Problem(str(table), what, fix, "near_people"))
    return problems


def visible(name: str) -> str:
    """A name with its invisible characters, and unusual blanks, as codes."""
    return "".join(_code(letter) if letter != " " and _unseen(letter) else letter for letter in name)


def _code(letter: str) -> str:
    number = ord(letter)
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"
