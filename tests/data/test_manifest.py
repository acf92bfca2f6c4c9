from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from orchestrator.core.errors import ConfigError, DataError
from orchestrator.data.readers import inspect, read


@pytest.fixture
def rows(tmp_path: Path) -> pd.DataFrame:
    for number in range(4):
        Image.new("RGB", (8, 8), (number * 9, 0, 0)).save(tmp_path / f"{number}.jpg")
    return pd.DataFrame(
        {
            "path": [f"{number}.jpg" for number in (3, 1, 2, 0)],
            "person": ["x", "x", "y", "z"],
            "age": ["29", "29", "60", "31.5"],
            "gender": ["male", "male", "Female", "female"],
            "mask": ["wear", "Not Wear", "incorrect", "not-wear"],
        }
    )


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_both_kinds_of_files_are_read_alike(tmp_path: Path, rows: pd.DataFrame, suffix: str) -> None:
    path = tmp_path / f"manifest.{suffix}"
    rows.to_csv(path, index=False) if suffix == "csv" else rows.to_parquet(path)
    photos = read(path)
    assert list(photos.table["path"]) == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert list(photos.table["mask"]) == ["not_wear", "not_wear", "incorrect", "wear"]
    assert list(photos.table["gender"]) == ["female", "male", "female", "male"]
    assert list(photos.table["age"]) == [31.5, 29, 60, 29]


def test_column_names_can_be_mapped_and_missing_ones_matter_only_to_their_task(
    tmp_path: Path, rows: pd.DataFrame
) -> None:
    path = tmp_path / "m.csv"
    rows.rename(columns={"person": "subject", "path": "file"}).drop(columns="age").to_csv(path, index=False)
    with pytest.raises(DataError, match="--columns path=NAME"):
        inspect(path)
    photos = read(path, {"person": "subject", "path": "file"})
    photos.require(["gender"], "the gender specialist")
    with pytest.raises(DataError, match=r"the age specialist needs the column age; the table has .*--tasks"):
        photos.require(["age"], "the age specialist")
    with pytest.raises(ConfigError) as caught:
        inspect(path, {"person": "subjct", "persn": "file"})
    assert "no column 'subjct'. Did you mean 'subject'?" in str(caught.value)
    assert "'persn' is not a column that orch knows" in str(caught.value)


def test_all_mistakes_are_told_with_their_rows(tmp_path: Path, rows: pd.DataFrame) -> None:
    path = tmp_path / "m.csv"
    rows.loc[0, "mask"] = "weared"
    rows.loc[1, "age"] = ""
    rows.loc[2, "path"] = "nowhere.jpg"
    rows.loc[3, "person"] = ""
    rows.to_csv(path, index=False)
    _, problems = inspect(path)
    messages = [str(problem) for problem in problems]
    assert f"{path} line 2: mask is 'weared'; allowed: wear, incorrect, not_wear. Did you mean 'wear'?" in messages
    assert f"{path} line 3: age is nothing; allowed: years from 0 to 120." in messages
    assert any("line 4: no file nowhere.jpg" in text for text in messages)
    assert any("line 5: person is empty" in text for text in messages)


def test_a_person_with_two_genders_is_refused_and_with_two_ages_told(tmp_path: Path, rows: pd.DataFrame) -> None:
    path = tmp_path / "m.csv"
    rows.loc[0, ["gender", "age"]] = ["female", "31"]
    rows.to_csv(path, index=False)
    _, problems = inspect(path)
    assert {problem.kind: problem.fatal for problem in problems} == {"gender_conflict": True, "age_conflict": False}
    assert "person 'x' (lines 2, 3) has the genders female, male" in str(problems[0])


def test_a_path_twice_and_no_table_are_refused(tmp_path: Path, rows: pd.DataFrame) -> None:
    path = tmp_path / "m.csv"
    pd.concat([rows, rows.head(1)]).to_csv(path, index=False)
    with pytest.raises(DataError, match=r"path '3.jpg' appears in 2 rows"):
        read(path)
    with pytest.raises(DataError, match="no such folder or table"):
        read(tmp_path / "nothing")
    (tmp_path / "bad.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match="cannot be read as a parquet table"):
        read(tmp_path / "bad.parquet")


def test_one_photo_in_two_spellings_is_one_path(tmp_path: Path, rows: pd.DataFrame) -> None:
    path = tmp_path / "m.csv"
    rows.loc[1, "path"] = "./3.jpg"
    rows.loc[2, "path"] = str(tmp_path / "3.jpg")
    rows.to_csv(path, index=False)
    with pytest.raises(DataError, match=r"path '3.jpg' appears in 3 rows"):
        read(path)


def test_names_can_be_swapped_and_never_shared(tmp_path: Path, rows: pd.DataFrame) -> None:
    path = tmp_path / "m.csv"
    rows.rename(columns={"path": "person", "person": "path"}).to_csv(path, index=False)
    assert list(read(path, {"path": "person", "person": "path"}).table["path"]) == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    rows.rename(columns={"path": "file", "person": "path"}).to_csv(path, index=False)
    assert set(read(path, {"path": "file", "person": "path"}).table["person"]) == {"x", "y", "z"}
    with pytest.raises(ConfigError, match="two of our names"):
        inspect(path, {"path": "file", "person": "file"})


def test_missing_columns_and_extra_photos_are_worth_knowing(tmp_path: Path, rows: pd.DataFrame) -> None:
    path = tmp_path / "m.csv"
    rows.drop(index=0).rename(columns={"gender": "gendr"}).to_csv(path, index=False)
    _, problems = inspect(path)
    assert [problem.fatal for problem in problems] == [False, False]
    assert "no column 'gender': gender cannot be trained. Did you mean 'gendr'?" in str(problems[0])
    assert str(problems[1]) == f"{tmp_path / '3.jpg'}: is in no row of m.csv: left out."
