"""One person under two spellings: what is the same is made the same, what looks the same is refused."""

import unicodedata
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from orchestrator.core.errors import DataError, LeakError
from orchestrator.data.extra import read_extra
from orchestrator.data.paths import find_file, why_no_file
from orchestrator.data.readers import inspect, read
from orchestrator.data.spelling import clean, lookalikes, near, near_people, odd_character, visible
from tests.conftest import Done

NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=12)
BLANKS = st.text(st.sampled_from(" \u00a0\u200b\ufeff\u3000\u2060\u200e"), max_size=3)
KOREAN = "김민수"


@given(NAMES, BLANKS, BLANKS, st.sampled_from(["NFC", "NFD"]))
def test_blanks_around_a_name_and_how_it_is_composed_make_no_difference(
    name: str, before: str, after: str, form: str
) -> None:
    assert clean(before + unicodedata.normalize(form, name) + after) == clean(name)  # type: ignore[arg-type]  # a form
    assert clean(clean(name)) == clean(name)
    assert not clean(name) or clean(name) in unicodedata.normalize("NFC", name)  # nothing within a name is lost


@given(NAMES, BLANKS, st.integers(0, 3))
def test_what_is_near_stays_near_under_every_change_that_spreadsheets_and_people_make(
    name: str, blanks: str, zeros: int
) -> None:
    assert near(name) == near(clean(name))
    assert near(name) == near(name[: len(name) // 2] + blanks + name[len(name) // 2 :])
    assert near(near(name)) == near(name)
    digits = str(sum(map(ord, name)))
    assert near("0" * zeros + digits) == near(digits) == near(digits + ".0") == digits
    assert near("".join(chr(ord(digit) + 0xFEE0) for digit in digits)) == digits  # full-width


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_other_numbers_are_never_near(first: int, other: int) -> None:
    assert (near(f"{first:06d}") == near(str(other))) == (first == other)


@pytest.mark.parametrize(
    ("first", "other", "close"),
    [
        ("a1", "A1", True),
        ("1", "000001", True),
        ("１２", "12", True),
        ("12.0", "12", True),
        ("A 1", "A1", True),
        ("A\u00a01", "A 1", True),
        ("a-01", "a-1", True),
        (KOREAN, unicodedata.normalize("NFD", KOREAN), True),
        ("Straße", "STRASSE", True),
        ("10", "1", False),
        ("001498-1", "001498", False),
        ("001498-1", "001498-2", False),
        ("1.05", "1.5", False),
        ("a_1", "a-1", False),
        ("김민수", "김민숙", False),
        ("0", "00", True),
        ("\u8475", "\u8475\U000e0100", True),  # a form of the same character: near, and not merged
        ("a1", "a1\ufe0f", True),
        ("a1", "\u2800a1", True),
        ("a1", "a\u034f1", True),
    ],
)  # fmt: skip
def test_what_is_near_and_what_is_not(first: str, other: str, close: bool) -> None:
    assert (lookalikes([first, other]) == [(first, other)]) is close


def test_names_are_shown_with_what_cannot_be_seen() -> None:
    assert visible("a\u200b b\u00a0c\ufe0f") == "a\\u200b b\\u00a0c\\ufe0f"
    assert visible("a\U000e00011") == "a\\U000e00011"
    assert odd_character("a\nb") == "U+000A"
    assert odd_character("김 a") == ""
    (problem,) = near_people({"a": "line 2", "A": "lines 3, 4"}, Path("t.csv"), False, "")
    assert "people 'a' (line 2) and 'A' (lines 3, 4) differ in spelling alone" in str(problem)
    (note,) = near_people({"a": "line 2", "A": "lines 3, 4"}, Path("t.csv"), True, "")
    assert (problem.fatal, note.fatal) == (True, False)


def photos(folder: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        Image.new("RGB", (8, 8), (number * 9, number, 0)).save(folder / name, "JPEG")


def manifest(folder: Path, people: list[str], name: str = "m.csv") -> Path:
    files = [f"{number}.jpg" for number in range(len(people))]
    photos(folder, files)
    masks = [("wear", "incorrect", "not_wear")[number % 3] for number in range(len(people))]
    frame = pd.DataFrame({"path": files, "person": people, "mask": masks})
    frame.to_csv(folder / name, index=False)
    return folder / name


def test_spellings_that_can_only_be_one_person_are_one(tmp_path: Path) -> None:
    people = [KOREAN, unicodedata.normalize("NFD", KOREAN), f" {KOREAN}\u200b", f"\u00a0{KOREAN} ", f"\ufeff{KOREAN}"]
    assert set(read(manifest(tmp_path, people)).table["person"]) == {KOREAN}


def test_spellings_that_may_be_one_person_are_refused_with_every_pair_and_a_way_out(tmp_path: Path) -> None:
    path = manifest(tmp_path, ["000001", "1", "kim", "Kim", "Kim", "x y", "xy", "solo", "１"])
    with pytest.raises(DataError) as caught:
        read(path)
    message = str(caught.value)
    assert "'000001' (line 2) and '1' (line 3) and '１' (line 10)" in message
    assert "'kim' (line 4) and 'Kim' (lines 5, 6)" in message
    assert "'x y' (line 7) and 'xy' (line 8)" in message
    assert "--distinct-people" in message
    assert "--columns person=NAME" in message
    assert "solo" not in message
    photos, problems = inspect(path, distinct=True)
    assert photos.table["person"].nunique() == 8
    assert [problem.kind for problem in problems if not problem.fatal].count("near_people") == 3
    assert not [problem for problem in problems if problem.fatal]


def test_photos_from_elsewhere_of_people_who_may_be_those_of_the_data_are_a_leak(tmp_path: Path) -> None:
    data = read(manifest(tmp_path, ["000001", "000002", "kim"]))
    (tmp_path / "more").mkdir()
    extra = read_extra([manifest(tmp_path / "more", ["1", "000002", "Kim", "other", "Other"], "extra.csv")])
    with pytest.raises(LeakError) as caught:
        extra.check_people(data)
    messages = [str(problem) for problem in caught.value.problems]
    assert len(messages) == 2
    assert "person '1'" in messages[0]
    assert "extra.csv line 2" in messages[0]
    assert "'000001' (line 2)" in messages[0]
    assert "--distinct-people" in messages[0]
    assert "person 'Kim'" in messages[1]
    assert [note.fatal for note in extra.check_people(data, distinct=True)] == [False, False]


def test_an_id_that_means_several_people_cannot_be_told_apart_elsewhere(people: Path, tmp_path: Path) -> None:
    """`003397` of two rows with two ages is two people of the data; a photo from elsewhere may be of either."""
    table = pd.read_csv(people / "train/train.csv", dtype=str)
    first = table["id"][0]
    table.loc[1, "id"] = first
    root = tmp_path / "train"
    root.mkdir()
    (root / "images").symlink_to(people / "train/images")
    table.to_csv(root / "train.csv", index=False)
    data = read(root)
    assert data.ids[f"{first}@{table['path'][0]}"] == first
    photos(tmp_path, ["x.jpg"])
    (tmp_path / "extra.csv").write_text(f"path,person,mask\nx.jpg,{first},wear\n")
    with pytest.raises(LeakError, match=f"person '{first}'"):
        read_extra([tmp_path / "extra.csv"]).check_people(data)


def test_a_file_is_found_however_the_disk_spells_it(tmp_path: Path) -> None:
    decomposed, other = unicodedata.normalize("NFD", "김.jpg"), unicodedata.normalize("NFC", "민.jpg")
    mixed = unicodedata.normalize("NFD", "수") + "é.jpg"
    folder = unicodedata.normalize("NFD", "사진")
    (tmp_path / folder).mkdir()
    photos(tmp_path / folder, [decomposed, other, mixed])
    for name in (decomposed, other, mixed):
        for form in ("NFC", "NFD"):
            path = unicodedata.normalize(form, f"{folder}/{name}")  # type: ignore[arg-type]  # a form
            assert find_file(tmp_path, path) == f"{folder}/{name}"
    assert find_file(tmp_path, f"{folder}/없음.jpg") is None
    composed = unicodedata.normalize("NFC", folder)
    rows = "".join(
        f"{composed}/{unicodedata.normalize('NFC', name)},{name},wear\n" for name in (decomposed, other, mixed)
    )
    (tmp_path / "m.csv").write_text(f"path,person,mask\n{rows}")
    table = read(tmp_path / "m.csv")
    assert all(path.is_file() for path in table.paths)
    assert len(table) == 3
    assert not table.notes or all(note.kind != "extra_file" for note in table.notes)
    same = f"{composed}/{unicodedata.normalize('NFC', decomposed)}"
    (tmp_path / "m.csv").write_text(f"path,person,mask\n{same},a,wear\n{folder}/{decomposed},b,wear\n")
    with pytest.raises(DataError, match=r"lines 2, 3: path '.*' appears in 2 rows"):
        read(tmp_path / "m.csv")


def test_blanks_around_a_path_count_where_the_disk_has_them(tmp_path: Path) -> None:
    photos(tmp_path, ["a.jpg", " b.jpg", "c.jpg "])
    for path, expected in {
        "a.jpg ": "a.jpg",
        " b.jpg": " b.jpg",
        "c.jpg ": "c.jpg ",
        "b.jpg": None,
        "\u200ba.jpg": "a.jpg",
    }.items():
        assert find_file(tmp_path, path) == expected
    (tmp_path / "m.csv").write_text("path,person,mask\n a.jpg,1,wear\n b.jpg,2,wear\nc.jpg ,3,not_wear\n")
    assert sorted(read(tmp_path / "m.csv").table["path"]) == [" b.jpg", "a.jpg", "c.jpg "]


def test_why_there_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    photos(tmp_path / "a", ["B.jpg"])
    (tmp_path / "link.jpg").symlink_to("nowhere.jpg")
    for name, message in {
        "a/b.jpg": "There is 'B.jpg', which differs in case.",
        "a\\B.jpg": "there is a/B.jpg: write / between folders.",
        "a": "a is a folder.",
        "link.jpg": "a link that leads nowhere (nowhere.jpg)",
        "x" * 300: "no file can have a name this long",
        "x\0y": "no file x",
        "z.jpg": "no file z.jpg.",
    }.items():
        assert message in why_no_file(tmp_path, name)
    assert why_no_file(tmp_path, "a/B.jpg") == ""


def test_the_same_people_on_two_disks_are_the_same_data(tmp_path: Path) -> None:
    prints = []
    for form in ("NFC", "NFD"):
        root = tmp_path / form
        root.mkdir()
        names = [unicodedata.normalize(form, name) for name in ("김.jpg", "é.jpg", "z.jpg")]  # type: ignore[arg-type]  # a form
        photos(root, names)
        (root / "m.csv").write_text("path,person,mask\n" + "".join(f"{name},p-{name},wear\n" for name in names))
        table = read(root / "m.csv")
        prints.append(table.fingerprint(["a", "b", "c"]))
    assert prints[0] == prints[1]


def test_the_commands_take_the_way_out(orch: Callable[..., Done], tmp_path: Path) -> None:
    path = manifest(tmp_path, ["p1", "P1", "p2", "p2", "p3", "p4"])
    words = ("--data", path, "--tasks", "mask", "--folds", 2)
    assert orch("data", "check", *words).code == 1
    done = orch("data", "check", *words, "--distinct-people")
    assert done.code == 0, done.out
    assert "taken as 2 people, as --distinct-people says" in done.out
    assert orch("data", "folds", "--data", path, "--folds", 2).code == 2
    assert orch("data", "folds", "--data", path, "--folds", 2, "--distinct-people").code == 0
    assert orch("data", "describe", "--data", path).code == 2
    assert orch("data", "describe", "--data", path, "--distinct-people").code == 0
