"""What users name to be written: real links, pipes, devices, permissions; inputs are never written over."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.errors import ConfigError
from orchestrator.core.outputs import TABLES, Output, check_outputs, replace_output, suffix_of
from tests.conftest import ROOT


def refused(*outputs: Output, inputs: tuple[Path, ...] = (), workspace: Path | None = None) -> str:
    with pytest.raises(ConfigError) as error:
        check_outputs(outputs, inputs, workspace)
    return str(error.value)


def put(path: Path, text: str) -> None:
    with replace_output(path) as temporary:
        temporary.write_text(text)


@given(mask=st.integers(0, 0o777), kept=st.integers(0, 0o777))
def test_new_files_honour_the_umask_and_old_ones_keep_their_permissions(
    tmp_path_factory: pytest.TempPathFactory, mask: int, kept: int
) -> None:
    folder = tmp_path_factory.mktemp("mode")
    new, old = folder / "new.csv", folder / "old.csv"
    old.write_text("old")
    old.chmod(kept | 0o600)
    before = os.umask(mask & 0o177)  # the owner must still be able to write
    try:
        put(new, "a")
        put(old, "b")
    finally:
        os.umask(before)
    assert new.stat().st_mode & 0o777 == 0o666 & ~(mask & 0o177)
    assert old.stat().st_mode & 0o777 == kept | 0o600
    assert sorted(path.name for path in folder.iterdir()) == ["new.csv", "old.csv"]


def test_links_are_followed_and_stay_links(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    target, link, far = tmp_path / "there/target.csv", tmp_path / "link.csv", tmp_path / "far.csv"
    target.write_text("old")
    link.symlink_to("there/target.csv")
    far.symlink_to(link)
    for path in (link, far):
        check_outputs([Output("--out", path, TABLES)])
        put(path, path.name)
        assert target.read_text() == path.name
        assert path.is_symlink()
    dangling = tmp_path / "dangling.csv"
    dangling.symlink_to("there/new.csv")
    check_outputs([Output("--out", dangling, TABLES)])
    put(dangling, "new")
    assert (tmp_path / "there/new.csv").read_text() == "new"
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == ["new.csv", "target.csv"]
    (tmp_path / "round.csv").symlink_to("round.csv")
    assert "cannot be written" in refused(Output("--out", tmp_path / "round.csv", TABLES))


def test_no_folder_is_made_behind_a_link_that_leads_nowhere(tmp_path: Path) -> None:
    """As after a disk was not mounted: what was written would be elsewhere than its owner believes."""
    lost, file = tmp_path / "lost", tmp_path / "file.csv"
    lost.symlink_to(tmp_path / "disk/results")
    file.symlink_to(tmp_path / "disk/a.csv")
    text = refused(
        Output("--out", lost / "deep/a.csv", TABLES), Output("--to", lost, folder=True), Output("--file", file, TABLES),
        Output("--new", lost / "deep", folder=True),
    )  # fmt: skip
    nowhere = (
        f"is a link that leads nowhere ({tmp_path / 'disk/results'}). Restore what it leads to, or move it away: `mv "
    )
    assert f"--out {lost / 'deep/a.csv'}: {lost} {nowhere}" in text
    assert f"--to {lost}: {nowhere}" in text
    assert f"--new {lost / 'deep'}: {lost} {nowhere}" in text
    assert f"--file {file}: is a link that leads nowhere ({tmp_path / 'disk/a.csv'})" in text
    (tmp_path / "disk").mkdir()
    check_outputs([Output("--file", file, TABLES)])


def test_pipes_and_devices_are_written_directly(tmp_path: Path) -> None:
    pipe, heard = tmp_path / "pipe", []
    os.mkfifo(pipe)
    check_outputs([Output("--out", pipe, TABLES), Output("--probabilities", Path("/dev/null"), (".parquet",))])
    reader = threading.Thread(target=lambda: heard.append(pipe.read_text()))
    reader.start()
    put(pipe, "through a pipe")
    reader.join(10)
    assert heard == ["through a pipe"]
    assert pipe.is_fifo()
    put(Path("/dev/null"), "gone")
    assert Path("/dev/null").is_char_device()
    check_outputs(
        [Output("--a", Path("/dev/null")), Output("--b", Path("/dev/null"))]
    )  # no place that two could fight over


@pytest.mark.parametrize(
    ("target", "expected"), [("/dev/stdout", "before 1 after"), (">(cat > taken)", "before  after")]
)
@pytest.mark.parametrize("end", ["| cat", "> file; cat file"])
def test_a_shells_streams_are_written_in_turn(tmp_path: Path, target: str, expected: str, end: str) -> None:
    code = (
        "import sys; from pathlib import Path; from orchestrator.core.outputs import *\n"
        "path = Path(sys.argv[1]); check_outputs([Output('--out', path, TABLES)])\n"
        "print('before', end=' ')\n"
        "with replace_output(path) as temporary: temporary.write_text('1')\n"
        "print(' after', end='')"
    )
    line = f'"{sys.executable}" -c "$CODE" {target} {end}'
    done = subprocess.run(
        ["bash", "-c", line + "; for n in 1 2 3 4 5; do [ -s taken ] || sleep 0.2; done"],
        cwd=tmp_path, text=True, capture_output=True, check=True, env={**os.environ, "CODE": code, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout == expected, done.stderr
    if "taken" in target:
        assert (tmp_path / "taken").read_text() == "1"


def test_an_input_is_known_by_every_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, link, hard = tmp_path / "info.csv", tmp_path / "link.csv", tmp_path / "hard.csv"
    table.write_text("ImageID,ans\n")
    link.symlink_to(table)
    hard.hardlink_to(table)
    monkeypatch.chdir(tmp_path)
    for name in (table, link, hard, Path("info.csv"), tmp_path / "." / "x" / ".." / "info.csv"):
        (tmp_path / "x").mkdir(exist_ok=True)
        for given_as in (table, link, hard, tmp_path):
            assert f"--out {name}: would write over" in refused(Output("--out", name, TABLES), inputs=(given_as,))
    check_outputs([Output("--out", tmp_path / "other.csv", TABLES)], [table])
    assert table.read_text() == "ImageID,ans\n"


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    folder, file = tmp_path / "folder", tmp_path / "file.csv"
    folder.mkdir()
    file.write_text("")
    (tmp_path / "same.csv").symlink_to(file)
    text = refused(
        Output("--out", folder, TABLES), Output("--picture", tmp_path / "a.jpg", (".png",)),
        Output("--table", tmp_path / "a.txt", TABLES), Output("--under", file / "a.csv", TABLES),
        Output("--one", file, TABLES), Output("--other", tmp_path / "same.csv", TABLES), Output("--to", file, folder=True),
        Output("--proc", Path("/proc/a.csv"), TABLES), Output("--new", Path("/proc/a/b"), folder=True),
    )  # fmt: skip
    assert f"--out {folder}: is a folder; give the name of a file, as in {folder / 'NAME.csv'}" in text
    assert "a.jpg: its suffix selects the format; give a name that ends in .png." in text
    assert "give a name that ends in .csv, .parquet or .json." in text
    assert f"--one {file} and --other {tmp_path / 'same.csv'}: are the same file or folder" in text
    assert f"--to {file}: is a file; a folder is needed" in text
    assert text.count("no file can be made in /proc") == 2
    assert str(file / "a.csv") in text
    check_outputs([Output("--out", tmp_path / "new/deep/a.CSV", TABLES), Output("--to", tmp_path / "new", folder=True)])
    put(tmp_path / "new/deep/a.CSV", "made")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.csv", "folder", "new", "same.csv"]


def test_a_workspaces_own_files_are_no_place_for_outputs(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    (root / "age-0001").mkdir(parents=True)
    (root / "workspace.json").write_text("{}")
    for name in ("age-0001/run.csv", "workspace.json", "cache/new.csv"):
        assert "that orch keeps" in refused(Output("--out", root / name, TABLES), workspace=root)
    check_outputs([Output("--out", root / "answers.csv", TABLES)], workspace=root)


def test_endings_say_the_format() -> None:
    assert suffix_of(Output("", Path("a.PARQUET"), TABLES)) == ".parquet"
    assert suffix_of(Output("", Path("/dev/fd/63"), TABLES)) == ".csv"
