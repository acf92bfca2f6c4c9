"""The contest's folder: read whole, refused with every mistake at once, and answered in its own order and columns."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from orchestrator.core.errors import DataError, Problem
from orchestrator.data.check import check
from orchestrator.data.contest import MASK_OF_STEM, Person, person_keys, read_eval
from orchestrator.data.readers import inspect, read
from orchestrator.data.tables import read_table
from orchestrator.experiments.submissions import read_submission
from tests.conftest import Done

ROWS = [
    ("000001", "female", "Asian", "45"),
    ("003397", "male", "Asian", "20"),
    ("003397", "male", "Asian", "19"),
    ("001498-1", "female", "Asian", "23"),
    ("001498-2", "male", "Asian", "61"),
    ("001498", "male", "Asian", "59"),
    ("000077", "female", "Asian", "60"),
]
"""Made-up people with the traps of the real table: an id twice with two ages, ids with suffixes."""


@pytest.fixture
def contest(tmp_path: Path) -> Path:
    """A contest folder with ROWS, each photo of one colour, all different."""
    root = tmp_path / "train"
    rows = [(*row, f"{row[0]}_{row[1]}_{row[2]}_{row[3]}") for row in ROWS]
    for number, row in enumerate(rows):
        for index, stem in enumerate(MASK_OF_STEM):
            suffix = (".jpg", ".jpeg", ".png")[number % 3]
            path = root / "images" / row[4] / f"{stem}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (12, 16), (20 * number, 30 * index, 99)).save(path)
    pd.DataFrame(rows, columns=["id", "gender", "race", "age", "path"]).to_csv(root / "train.csv", index=False)
    return root


def keys_of(folder: Path, rows: list[tuple[str, str, str, str]]) -> tuple[list[str], list[Problem]]:
    """The keys of people with these ids, genders, ages and folders."""
    pd.DataFrame(rows, columns=["id", "gender", "age", "path"]).to_csv(folder / "train.csv", index=False)
    table = read_table(folder / "train.csv")
    return person_keys([Person(key.strip(), *rest) for key, *rest in rows], table)


def kinds(root: Path) -> dict[str, list[str]]:
    """kind -> what was found, by a whole check."""
    by_kind: dict[str, list[str]] = {}
    for problem in check(root).problems:
        by_kind.setdefault(problem.kind, []).append(str(problem))
    return by_kind


def edit(root: Path, change: Callable[[pd.DataFrame], object]) -> None:
    table = pd.read_csv(root / "train.csv", dtype=str)
    changed = change(table)
    (changed if isinstance(changed, pd.DataFrame) else table).to_csv(root / "train.csv", index=False)


def test_a_sound_folder_is_read_whole_with_hidden_files_ignored(contest: Path) -> None:
    folder = contest / "images" / "000001_female_Asian_45"
    (folder / "._mask1.jpg").write_bytes(b"resource fork")
    photos = read(contest)
    assert len(photos) == 49
    assert photos.table.groupby("person").size().eq(7).all()
    assert photos.table["mask"].value_counts().to_dict() == {"wear": 35, "incorrect": 7, "not_wear": 7}
    assert list(photos.table["path"]) == sorted(photos.table["path"])
    assert read(contest.parent).table.equals(photos.table)


def test_id_traps_an_id_twice_is_two_people_and_suffixes_are_kept(contest: Path) -> None:
    photos = read(contest)
    people = set(photos.table["person"])
    assert people == {
        "000001", "003397@003397_male_Asian_20", "003397@003397_male_Asian_19",
        "001498-1", "001498-2", "001498", "000077",
    }  # fmt: skip
    (note,) = [problem for problem in photos.notes if problem.kind == "id_twice"]
    assert "id '003397' occurs 2 times with different ages or genders: taken as 2 people" in str(note)
    assert "lines 3, 4" in str(note)


def test_an_id_twice_with_equal_age_and_gender_is_one_person_in_two_folders(tmp_path: Path) -> None:
    keys, problems = keys_of(tmp_path, [("1", "male", "20", "a"), ("1", "male", "20", "b")])
    assert keys == ["1", "1"]
    assert "taken as one person" in str(problems[0])
    assert not problems[0].fatal


def test_everything_wrong_is_listed_at_once_with_file_and_row(contest: Path) -> None:
    images = contest / "images"
    (images / "000001_female_Asian_45" / "mask1.jpg").unlink()
    (images / "000001_female_Asian_45" / "masc2.jpg").write_bytes(b"?")
    (images / "001498_male_Asian_59" / "mask1.png").write_bytes(b"")
    whole = (images / "001498_male_Asian_59" / "mask2.png").read_bytes()
    (images / "001498_male_Asian_59" / "mask2.png").write_bytes(whole[: len(whole) // 2])
    shutil.rmtree(images / "000077_female_Asian_60")
    (images / "stranger").mkdir()
    duplicate = images / "001498-1_female_Asian_23" / "normal.jpg"
    shutil.copy(images / "001498-2_male_Asian_61" / "normal.jpeg", duplicate)
    Image.new("RGB", (12, 16)).save(images / "001498-1_female_Asian_23" / "mask5.jpg", format="PNG")

    def change(table: pd.DataFrame) -> None:
        table.loc[0, "gender"] = "femal"
        table.loc[1, "age"] = "190"
        table.loc[3, "age"] = "old"

    edit(contest, change)
    # The rows with wrong words are left out, so their photos are not opened: put the duplicate under people that are in order.
    shutil.copy(images / "001498-2_male_Asian_61" / "normal.jpeg", images / "001498_male_Asian_59" / "normal.png")
    problems = kinds(contest)
    assert "line 2: gender is 'femal'; allowed: male, female. Did you mean 'female'?" in problems["unknown_word"][0]
    assert [text.split(": ", 1)[1] for text in problems["impossible_age"]] == [
        "age is '190'; allowed: years from 0 to 120.",
        "age is 'old'; allowed: years from 0 to 120.",
    ]
    assert "line 8: no folder images/000077_female_Asian_60" in problems["missing_folder"][0]
    assert "6 photos instead of 7, missing mask1" in problems["photo_count"][0]
    assert any("masc2.jpg" in text and "Did you mean 'mask2'?" in text for text in problems["extra_file"])
    assert any("stranger" in text for text in problems["extra_file"])
    assert any("mask1.png" in text and "empty (0 bytes)" in text for text in problems["unreadable"])
    assert any("mask2.png" in text and "damaged or truncated" in text for text in problems["unreadable"])
    assert "is listed under 2 people" in problems["duplicate_people"][0]
    assert "is a JPEG file by its content" in problems["wrong_suffix"][0]
    with pytest.raises(DataError) as caught:
        read(contest)
    assert len(caught.value.problems) == 4


def test_two_files_of_one_photo_are_refused(contest: Path) -> None:
    folder = contest / "images" / "000001_female_Asian_45"
    shutil.copy(folder / "mask1.jpg", folder / "mask1.png")
    assert "mask1.jpg and mask1.png are both mask1" in kinds(contest)["two_files"][0]


def test_a_row_that_stands_twice_is_refused(contest: Path) -> None:
    edit(contest, lambda table: pd.concat([table, table.head(1)]))
    assert "id '000001' appears twice with the same folder" in kinds(contest)["repeated_row"][0]


def test_a_missing_column_is_told_with_the_nearest(contest: Path) -> None:
    edit(contest, lambda table: table.rename(columns={"gender": "gendr"}))
    with pytest.raises(DataError, match="no column 'gender'. Did you mean 'gendr'?"):
        inspect(contest)
    with pytest.raises(DataError, match="no such file"):
        inspect(contest / "images")


def test_the_answers_order_and_columns_are_info_csvs(tmp_path: Path) -> None:
    root = tmp_path / "eval"
    (root / "images").mkdir(parents=True)
    names = ["b.jpg", "a.jpg", "c.jpg"]
    for name in names:
        Image.new("RGB", (4, 4)).save(root / "images" / name)
    pd.DataFrame({"ImageID": names, "ans": 0}).to_csv(root / "info.csv", index=False)
    eval_photos = read_eval(tmp_path)
    assert eval_photos.names == names
    assert [path.name for path in eval_photos.paths] == names
    (root / "images" / "a.jpg").unlink()
    pd.DataFrame({"ImageID": [*names, "b.jpg"], "ans": 0}).to_csv(root / "info.csv", index=False)
    with pytest.raises(DataError) as caught:
        read_eval(root)
    assert "line 3: no file images/a.jpg" in str(caught.value)
    assert "'b.jpg' appears in 2 rows" in str(caught.value)


@pytest.mark.skipif(
    not (Path(__file__).parents[3] / "shared/data/competition-metadata/train.csv").exists(),
    reason="the contest's real table is not part of the project",
)
def test_the_real_tables_traps_are_as_the_field_knows_them() -> None:
    path = Path(__file__).parents[3] / "shared/data/competition-metadata/train.csv"
    table = read_table(path)
    people = [Person(*(str(row[name]) for name in ("id", "gender", "age", "path"))) for row in table.records()]
    keys, problems = person_keys(people, table)
    assert len(people) == 2700
    assert len(set(keys)) == 2700
    assert [problem.kind for problem in problems] == ["id_twice"]
    assert sum("-" in key.split("@")[0] for key in keys) == 41
    ids = {row.id for row in people}
    assert len(ids) - len({key.split("-")[0] for key in ids}) > 30


def test_spelling_never_makes_two_people_of_one(tmp_path: Path) -> None:
    assert keys_of(tmp_path, [("1", "male", "20", "a"), ("1 ", "Male", "20.0", "b")])[0] == ["1", "1"]
    assert keys_of(tmp_path, [("1", "male", "0", "a"), ("1", "male", "0.0", "b")])[0] == ["1", "1"]


def test_one_folder_under_two_ids_is_refused(contest: Path) -> None:
    edit(contest, lambda table: pd.concat([table, table.head(1).assign(id="999999")]))
    assert "is listed under 2 ids: folds would leak" in kinds(contest)["duplicate_people"][0]


def test_photos_of_wrong_rows_are_opened_too_and_a_tableless_folder_is_a_finding(contest: Path) -> None:
    (contest / "images" / "000001_female_Asian_45" / "mask1.jpg").write_bytes(b"")
    edit(contest, lambda table: table.replace({"age": {"45": "450"}}))
    problems = kinds(contest)
    assert set(problems) >= {"impossible_age", "unreadable"}
    (contest / "train.csv").unlink()
    assert set(kinds(contest)) == {"no_table", "unreadable"}


def test_a_folder_is_known_however_its_path_is_written(contest: Path) -> None:
    whole = read(contest)
    edit(contest, lambda table: table.assign(path=[f"./{path}/" for path in table["path"]]))
    photos, problems = inspect(contest)
    assert photos.table.equals(whole.table)
    assert [problem.kind for problem in problems] == ["id_twice"]
    edit(contest, lambda table: table.assign(path=[f"images/{path[2:]}" for path in table["path"]]))
    messages = kinds(contest)["missing_folder"]
    assert len(messages) == 7
    assert "There is images/000001_female_Asian_45." in messages[0]


def test_lines_are_those_of_the_file_and_a_stray_comma_or_quote_is_named(
    orch: Callable[..., Done], contest: Path
) -> None:
    lines = (contest / "train.csv").read_text().splitlines()
    (contest / "train.csv").write_text("\n".join([*lines[:3], "", "", *lines[3:]]).replace(",23,", ",old,"))
    assert "line 7: age is 'old'" in kinds(contest)["impossible_age"][0]
    for change, message in {
        (3, ",20,", ',20,"x,'): "line 4: a quote",
        (3, ",20,", ",20,x,"): "line 4: 6 fields, where the header has 5",
        (4, "male", '"male'): "line 5: a quote",
    }.items():
        number, before, after = change[0] - 1, change[1], change[2]
        changed = [*lines[:number], lines[number].replace(before, after), *lines[number + 1 :]]
        (contest / "train.csv").write_text("\n".join(["", *changed]) + "\n")
        done = orch("data", "check", "--data", contest, "--folds", 0)
        assert done.code == 1
        assert message in done.out


def test_what_is_beside_the_rows_is_closed_or_is_no_photo(contest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.iterdir

    def closed(folder: Path) -> object:
        if folder.name == "000001_female_Asian_45":
            raise PermissionError(13, "Permission denied", str(folder))
        return real(folder)

    monkeypatch.setattr(Path, "iterdir", closed)  # root may read everything
    (message,) = kinds(contest)["unreadable"]
    assert message == f"{contest / 'images/000001_female_Asian_45'}: no permission to read it."


@pytest.mark.parametrize(
    "text",
    [
        "ImageID,ans\r\na.jpg,0\r\nb.jpg,0\r\n",
        '\ufeff"ImageID","ans"\n"a.jpg","0"\n"b.jpg","0"\n',
        ",ImageID,ans\n0,a.jpg,0\n1,b.jpg,0\n",
        'ans,note,ImageID\n0,"x, ""y""",a.jpg\n\n0,,b.jpg',
        "ImageID , ans\n a.jpg, 0\nb.jpg ,0\n",
    ],
)  # fmt: skip
def test_a_submission_is_info_csv_byte_for_byte_but_for_the_answers(tmp_path: Path, text: str) -> None:
    (tmp_path / "images").mkdir()
    for name in "ab":
        (tmp_path / f"images/{name}.jpg").touch()
    (tmp_path / "info.csv").write_bytes(text.encode())
    eval_photos = read_eval(tmp_path)
    assert [path.name for path in eval_photos.paths] == ["a.jpg", "b.jpg"]
    written = eval_photos.submission([7, None])
    (tmp_path / "s.csv").write_bytes(written.encode())
    assert read_submission(tmp_path / "s.csv") == {"a.jpg": 7, "b.jpg": None}
    back = read_eval(tmp_path)
    assert back.table.filled("ans", back.table.texts("ans")) == text
    # Taking the answers out of both leaves the same.
    assert written.replace("7", "", 1).replace('"', "") == eval_photos.submission([None, None]).replace('"', "")
