"""One strict reader of tables: what stands in the file is what is read, or an error that names the line."""

import csv
import io
import tempfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.errors import DataError
from orchestrator.data.lines import write_rows
from orchestrator.data.tables import read_table, text

CELLS = st.text(st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from(',"\n'), max_size=8)


def wrote(folder: Path, data: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def refused(folder: Path, data: str | bytes, name: str = "t.csv") -> str:
    with pytest.raises(DataError) as caught:
        read_table(wrote(folder, data, name))
    return str(caught.value)


@given(
    st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=6),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.booleans(),
)
def test_what_was_written_is_read_and_written_again_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]], end: str, quoting: int, mark: bool
) -> None:
    rows = [
        row for row in rows if not any("," in cell for cell in row if "\n" in cell)
    ]  # whole rows in a cell are refused
    file = io.StringIO()
    csv.writer(file, lineterminator=end, quoting=quoting).writerows([("a", "b", "c"), *rows])
    whole = "\ufeff" * mark + file.getvalue()
    table = read_table(wrote(tmp_path_factory.mktemp("t"), whole))
    assert table.rows == tuple(rows)
    assert table.columns == ("a", "b", "c")
    # A row begins as many lines below the header as the rows above it have.
    ends = [sum(cell.count("\n") for cell in row) + 1 for row in rows]
    assert list(table.lines) == [2 + sum(ends[:number]) for number in range(len(rows))]
    assert table.filled("b", table.texts("b")) == whole
    other = [f"{number}" for number in range(len(rows))]
    changed = wrote(tmp_path_factory.mktemp("t"), table.filled("b", other))
    again = read_table(changed)
    assert again.texts("b") == other
    assert again.texts("a") == table.texts("a")
    assert again.texts("c") == table.texts("c")


def test_lines_are_counted_as_an_editor_counts_them(tmp_path: Path) -> None:
    path = wrote(tmp_path, '\n\na,b\n\n1,2\n   \n"x\ny",3\n\n4,5\n')
    table = read_table(path)
    assert table.rows == (("1", "2"), ("x\ny", "3"), ("4", "5"))
    assert table.lines == (5, 7, 10)
    assert table.where(2) == f"{path} line 10"
    assert table.several([0, 1, 2]) == "lines 5, 7, 10"
    assert table.filled("b", ["2", "", "7"]) == '\n\na,b\n\n1,2\n   \n"x\ny",\n\n4,7\n'


def test_rows_that_do_not_fit_the_header_are_named_all_at_once(tmp_path: Path) -> None:
    message = refused(tmp_path, "a,b,c\n1,2,3\n1,2,3,4\n\n1,2\n1,2,3\n")
    assert "t.csv: 2 problems; its header has 3 fields" in message
    assert "line 3: 4 fields, where the header has 3" in message
    assert "line 5: 2 fields, where the header has 3" in message
    message = refused(tmp_path, "a,b\n" + "1,2,3\n" * 500)
    assert "all 500 rows have 3 fields, and the header has 2: columns would shift" in message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ('a,b,c\n1,2,3\n"4,5,6\n7,8,9\n', 'line 3: a quote (") opens a cell that never ends'),
        ('a,b,c\n1,2,3\n4,"5,6\n7,8,9\n1,2",3\n', "line 3: a quoted cell goes on for 3 lines and holds whole rows"),
        ('a,b,c\n1,"2"x,3\n', "line 2: a quoted cell goes on after its closing quote"),
        ('a,b,c\n"' + "1,2,3\n" * 30_000, "line 2: a quote"),
        ("a,b,c\n1," + "x" * 140_000 + ",3\n", "line 2: a cell of more than 131,072 letters"),
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("a;b\n1;2\n", "separated by ';'"),
        ("a\tb\n1\t2\n", "separated by tabs"),
        ("a,b,a\n1,2,3\n", "line 1: column 'a' appears 2 times (fields 1 and 3)"),
        ("a,,b\n1,x,2\n", "line 1: column 2 has no name, and holds 'x'"),
        (",a\nx,1\ny,2\n", "column 1 has no name"),
        (b"a,b\n1,\0\n", "line 2: holds a NUL byte"),
        ("a,b\n1,í\n".encode("latin1"), "line 2: byte 0xed is not UTF-8"),
        ("a,b\n1,김\n".encode("cp949"), "line 2: byte 0xb1 is not UTF-8"),
        ("a,b\n1,2\n".encode("utf-16"), "UTF-16"),
        (b"PAR1....", "a parquet file; name it .parquet"),
        (b"PK\x03\x04....", "a spreadsheet"),
        (b"\x1f\x8b....", "compressed with gzip"),
        (b"\n<!DOCTYPE html>", "a web page"),
        (b'{"a": 1}', "JSON"),
    ],
)  # fmt: skip
def test_what_is_no_table_is_said(tmp_path: Path, data: str | bytes, message: str) -> None:
    refusal = refused(tmp_path, data)
    assert message in refusal
    assert refusal.startswith(str(tmp_path / "t.csv"))


def test_columns_without_names_are_ignored_where_nothing_is_lost(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [5, 6, 7], "b": list("xyz")})
    path = tmp_path / "index.csv"
    frame.to_csv(path)
    table = read_table(path)
    assert table.columns == ("a", "b")
    assert table.texts("a") == ["5", "6", "7"]
    assert "the first column has no name and numbers the rows" in str(table.notes[0])
    assert table.filled("a", ["8", "6", "7"]) == path.read_text().replace(
        "0,5", "0,8"
    )  # the header keeps its empty name
    table = read_table(wrote(tmp_path, "a,b,,\n1,2,,\n"))
    assert (table.columns, len(table.notes)) == (("a", "b"), 2)
    assert read_table(wrote(tmp_path, "\ufeff a ,\u200bb\n1,2\n")).columns == ("a", "b")


@pytest.mark.parametrize("kind", ["pandas", "filtered", "named index", "several indexes", "arrow"])
def test_parquet_gives_the_same_cells_however_pandas_kept_its_index(tmp_path: Path, kind: str) -> None:
    frame = pd.DataFrame({"path": ["a.jpg", "b.jpg", "c.jpg"], "person": [1, 2, 3], "age": [20, None, 30.5]})
    path = tmp_path / "t.parquet"
    if kind == "filtered":
        pd.concat([frame, frame]).iloc[3:].sample(frac=1, random_state=0).sort_values("path").to_parquet(path)
    elif kind == "several indexes":
        frame.assign(fold=[0, 0, 1]).set_index(["path", "person"]).set_index("fold", append=True).rename_axis(
            ["path", "person", None]
        ).to_parquet(path)
    else:
        (frame.set_index("path") if kind == "named index" else frame).to_parquet(
            path, index=None if kind != "arrow" else False
        )
    table = read_table(path)
    assert set(table.columns) == {"path", "person", "age"}
    assert table.texts("path") == ["a.jpg", "b.jpg", "c.jpg"]
    assert table.texts("person") == ["1", "2", "3"]
    assert table.texts("age") == ["20", "", "30.5"]
    assert table.where(1) == f"{path} row 2"


def test_files_that_cannot_be_read_are_told_by_name(tmp_path: Path) -> None:
    for name in ("no.csv", "no.parquet"):
        with pytest.raises(DataError, match=rf"{name}: no such file"):
            read_table(tmp_path / name)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match=r"folder.csv: a folder, not a file"):
        read_table(tmp_path / "folder.csv")
    assert "by its content it is something else" in refused(tmp_path, "path,person\n", "t.parquet")
    assert "cannot be read as a parquet table" in refused(tmp_path, b"PAR1" + b"x" * 40, "t.parquet")


def test_cells_as_words() -> None:
    cells = [None, float("nan"), 3.0, 3.5, 3, "3.0", True, pd.NaT]
    assert [text(cell) for cell in cells] == ["", "", "3", "3.5", "3", "3.0", "True", ""]


@given(st.lists(st.tuples(st.text(), st.text(st.sampled_from("a\r\n\t,\";'= \u2028"))), max_size=5))
def test_a_table_that_is_written_is_the_table_that_is_read(rows: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        write_rows(
            path, ["one", "other"], [(first.encode("utf-8", "replace").decode(), other) for first, other in rows]
        )
        with path.open(encoding="utf-8", newline="") as file:
            header, *read_back = csv.reader(file)
    assert header == ["one", "other"]
    assert [tuple(row) for row in read_back] == [
        (first.encode("utf-8", "replace").decode(), other) for first, other in rows
    ]
