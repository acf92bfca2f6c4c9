"""What a terminal, a pipe and a closed stream get: whole names at any width, any bytes in a name, and no traceback."""

import errno
import gc
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from fcntl import ioctl
from functools import partial
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from orchestrator.cli import BEGAN
from orchestrator.cli.app import ENTRIES, main
from orchestrator.cli.app import program as program_itself
from orchestrator.cli.console import (
    grid,
    print_error,
    print_json,
    print_message,
    print_profile,
    print_result,
    stdout_console,
)
from orchestrator.cli.endings import ending_of
from orchestrator.cli.tables import Results, left_out
from tests.conftest import ROOT, Done, tiny

Orch = Callable[..., Done]
PROGRAM = [sys.executable, "-c", "from orchestrator.cli.app import program; program()"]
ENVIRONMENT = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")} | {
    "PYTHONPATH": str(ROOT)
}
"""Without a width: pytest's workers are given one, which goes before the terminal's own."""
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def program(*words: object, **more: object) -> subprocess.CompletedProcess[bytes]:
    command = [*PROGRAM, *map(os.fsencode, map(str, words))]
    return subprocess.run(
        command, capture_output=True, check=False, **{"env": ENVIRONMENT, "timeout": PATIENCE, **more}
    )


def shell(line: str, *words: object, **more: object) -> subprocess.CompletedProcess[bytes]:
    """A line of bash in which `orch` is this program with some words."""
    command = [
        "bash",
        "-c",
        f'orch() {{ "{sys.executable}" -c "{PROGRAM[2]}" "$@"; }}; {line}',
        "bash",
        *map(str, words),
    ]
    return subprocess.run(
        command, capture_output=True, check=False, **{"env": ENVIRONMENT, "timeout": PATIENCE, **more}
    )


PATIENCE = 300
"""Seconds that a program is waited for before a test gives up: machines are shared."""


@contextmanager
def begun(words: Iterable[str], **streams: object) -> Iterator[subprocess.Popen[bytes]]:
    """`orch` at work; what a failing test leaves of it is killed, or it would slow all that follow."""
    process = subprocess.Popen([*PROGRAM, *words], env=ENVIRONMENT, **streams)
    try:
        yield process
    finally:
        for pid in [process.pid, *descendants(process.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def on_terminal(width: int, *words: object, environment: dict[str, str] = ENVIRONMENT) -> str:
    """What a terminal of some width shows, both streams together."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    process = subprocess.Popen(
        [*PROGRAM, *map(str, words)], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    parts = []
    try:
        while part := os.read(ours, 65536):
            parts.append(part)
    except OSError:  # the other end is gone: the end of a terminal's output
        pass
    process.wait(60)
    os.close(ours)
    return ANSI.sub("", b"".join(parts).decode()).replace("\r\n", "\n")


# Tables.

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("Z", "C", "M")), min_size=1, max_size=14)
PROSE = st.lists(st.text("abcdefgh", min_size=1, max_size=9), max_size=12).map(" ".join)


@given(
    ids=st.lists(NAMES, min_size=1, max_size=8, unique=True),
    columns=st.lists(
        st.tuples(st.sampled_from(["macro F1", "state", "recipe", "tags", "seed", "plan", ""]), st.booleans()), max_size=7
    ),
    width=st.integers(20, 140),
    data=st.data(),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_no_row_is_lost_and_no_cell_is_broken_at_any_width(
    ids: list[str], columns: list[tuple[str, bool]], width: int, data: st.DataObject
) -> None:
    table = grid("", "run", *(name for name, _ in columns), keep=("macro F1", "state"))
    cells = [[data.draw(PROSE if prose else NAMES) for _, prose in columns] for _ in ids]
    for (_, prose), column in zip(columns, table.columns[1:], strict=True):
        column.justify = "left" if prose else "right"
    for name, row in zip(ids, cells, strict=True):
        table.add_row(name, *row)
    file = StringIO()
    file.isatty = lambda: True  # type: ignore[method-assign]  # a file that says so
    console = Results(file=file, width=width, force_terminal=False, color_system=None)
    console.print(table)
    lines = file.getvalue().splitlines()
    firsts = [line[1 : 1 + max(map(cell_len, [*ids, "run"]))].strip() for line in lines]
    gone = set(left_out(table, console))
    there = [
        number for number, (name, _) in enumerate(columns)
        if name not in gone and [title for title, _ in columns].count(name) == 1 and name
    ]  # fmt: skip
    assert all(cell_len(line) <= max(width, 2 + max(map(cell_len, [*ids, "run"]))) for line in lines)
    text = file.getvalue().split()
    for name, row in zip(ids, cells, strict=True):
        assert any(name in line for line in lines), firsts
        for number in there:
            assert all(word in text for word in row[number].split()), (row[number], lines)


@pytest.mark.parametrize("name", ["a-name-of-21-letters-", "\u2e80" * 11, "000000" + "\u2e80" * 7])
def test_a_name_that_is_wider_than_the_terminal_stays_whole(name: str) -> None:
    table, file = grid("", "run", "score"), StringIO()
    table.add_row(name, "0.5")
    file.isatty = lambda: True  # type: ignore[method-assign]  # a file that says so
    Results(file=file, width=20, force_terminal=False, color_system=None).print(table)
    assert name in file.getvalue()


def test_columns_go_by_rank_and_a_line_names_them(orch: Orch, trained: Path) -> None:
    whole = orch("runs", "list", "-w", trained).out
    heads = whole.splitlines()[1].split("  ")
    assert "created" in whole
    assert len([head for head in heads if head.strip()]) >= 8
    assert not any(line.endswith(" ") for line in whole.splitlines())
    ids = ("age-0001", "gender-0001", "mask-0001")
    for width in (20, 40, 60, 80, 120):
        shown = on_terminal(width, "runs", "list", "-w", trained)
        assert all(shown.count(name) == 1 for name in ids), shown
        rows = [line for line in shown.splitlines() if line.lstrip().startswith(ids)]
        assert len(rows) == 3
        assert all(len(line) <= width for line in rows), shown
        assert ("macro F1" in shown.split("no room")[0]) is (width >= 40)
        if "created" not in shown.split("no room")[0]:
            assert "a wider terminal shows them" in shown
    assert "3 of 3" in on_terminal(80, "runs", "list", "-w", trained).split("no room")[0]


@pytest.mark.parametrize("width", [20, 40, 80, 120])
def test_what_a_table_is_about_is_in_it_at_any_width(trained: Path, width: int) -> None:
    """A comparison has two sides, and a fact a value; words are broken where there is no other way."""
    shown = on_terminal(width, "recipes", "diff", "age", "quick", "standard").split("no room")[0]
    assert re.search(r" quick +standard\b", shown), shown
    shown = on_terminal(width, "runs", "show", "age-0001", "-w", trained).split("no room")[0]
    rows = {
        line.split()[0]: line
        for line in shown.splitlines()
        if line.startswith((" seed", " fold", " recipe", " augment"))
    }
    assert rows["seed"].split() == ["seed", "0"]
    assert len(rows["augment"].split()) > 1
    if width >= 40:
        assert all(len(line.rstrip()) <= width for line in rows.values()), shown


@pytest.mark.parametrize("width", [20, 40, 80, 120])
def test_two_submissions_stand_beside_each_other_at_any_width(tmp_path: Path, width: int) -> None:
    """Of the first alone, rows that differ look the same."""
    for name, label in (("monday", 8), ("tuesday", 16)):
        (tmp_path / f"{name}.csv").write_text(f"ImageID,ans\na.jpg,{label}\n")
    shown = on_terminal(width, "submissions", "diff", tmp_path / "monday.csv", tmp_path / "tuesday.csv")
    assert "tuesday" not in shown.partition("no room")[2]
    table = shown.split("no room")[0]
    assert re.search(r" monday +tuesday\b", table), shown
    assert re.search(r"^ 8 .* 16 ", table, re.MULTILINE), shown


def test_a_stray_byte_on_a_terminal_moves_no_column(orch: Orch, workspace: Path, people: Path, tmp_path: Path) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    photo = next((people / "eval/images").iterdir())
    folder = tmp_path / "odd"
    folder.mkdir()
    for name in (b"caf\xe9", b"plain"):
        shutil.copy(photo, os.fsencode(folder) + b"/" + name + photo.suffix.encode())
    shown = on_terminal(150, "predict", folder, "-w", workspace)
    rows = [line for line in shown.splitlines() if str(folder) in line and " / " in line]
    assert len(rows) == 2, shown
    assert "caf\\xe9" in shown
    assert len({row.index(" / ") for row in rows}) == 1, rows


@pytest.mark.parametrize(("words", "first", "kept"), [
    (("ensembles", "list"), "soft-0001", ("18-way macro F1", "state")),
    (("runs", "compare", "age-0001", "age-0002"), "age-0001", ("macro F1", "over age-0001")),
])  # fmt: skip
def test_at_80_columns_scores_stay_and_names_are_whole(
    orch: Orch, workspace: Path, people: Path, words: tuple[str, ...], first: str, kept: tuple[str, ...]
) -> None:
    if "compare" in words:
        more = ("train", "age", "--data", people / "train", "--folds", 3, "--seed", 1, "--jobs", 1, *tiny())
        assert orch(*more, "-w", workspace).code == 0
    else:
        assert orch("ensemble", "-w", workspace).code == 0
    shown = on_terminal(80, *words, "-w", workspace)
    table = shown.split("no room")[0]
    assert all(heading in table for heading in kept), shown
    rows = [line for line in table.splitlines() if line.split()[:1] == [first]]
    assert rows, shown
    assert all(len(line) <= 80 for line in rows), shown


def test_at_80_columns_a_photos_answer_stays(orch: Orch, workspace: Path, people: Path, tmp_path: Path) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    photo = next((people / "eval/images").iterdir())
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(photo, folder / f"1{photo.suffix}")
    shown = on_terminal(80, "predict", folder, "-w", workspace)
    (answer,) = json.loads(orch("predict", folder, "-w", workspace, "--json").out)
    (row,) = [line for line in shown.splitlines() if f"1{photo.suffix}" in line]
    name = answer["name"]
    assert name in row, shown
    assert str(answer["label"]) in row.replace(name, "").split()


def test_what_is_piped_is_never_wrapped(trained: Path) -> None:
    done = program("runs", "show", "age-0001", "-w", trained, env={**ENVIRONMENT, "COLUMNS": "40", "FORCE_COLOR": "1"})
    (line,) = [line for line in done.stdout.decode().splitlines() if line.strip().startswith("settings  ")]
    assert "batch_size=16" in line
    assert len(line) > 140


def test_a_profiles_stages_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    profile = {"age-0001": {"loading": 30.0, "network": 60.0, "rest": 10.0}, "mask-0001": {"network": 20.0}}
    print_profile(profile, 150.0, 1)
    text = capsys.readouterr()
    rows = {line.split()[0]: line.split() for line in text.out.splitlines() if line.strip()}
    assert rows["all"] == ["all", "epochs", "100.0", "100", "%", "20.0", "100", "%"]
    assert "120.0 s of 150.0 s were epochs. The other 30.0 s: imports" in text.err
    print_profile(profile, 90.0, 2, 70.0)
    stderr = capsys.readouterr().err
    assert "120.0 s of epochs in 70.0 s of training: up to 2 members side by side; the rest of it, starting" in stderr
    assert "The other 20.0 s of 90.0 s: imports" in stderr


# Names and encodings.


def test_names_in_tables_are_found_in_any_locale(people: Path, workspace: Path, tmp_path: Path) -> None:
    """In a locale of ASCII Python would look for other names than the tables say, and libraries could open none."""
    ascii_only = {**ENVIRONMENT, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for words in (("runs", "list", "-w", workspace), ("ensemble", "-w", workspace)):
        assert program(*words, env=ascii_only).returncode == 0
    photo = next((people / "eval/images").iterdir())
    (tmp_path / "평가/images").mkdir(parents=True)
    shutil.copy(photo, tmp_path / "평가/images/사진 1.jpg")
    (tmp_path / "평가/info.csv").write_text("ImageID,ans\n사진 1.jpg,0\n", encoding="utf-8")
    words = ("predict", "--eval", tmp_path / "평가", "-w", workspace, "--out", tmp_path / "답.csv", "--json",
             "--probabilities", tmp_path / "확률.parquet")  # fmt: skip
    done = program(*words, env=ascii_only)
    assert done.returncode == 0, done.stderr.decode()
    assert (tmp_path / "답.csv").read_text(encoding="utf-8").startswith("ImageID,ans\n사진 1.jpg,")
    assert (tmp_path / "확률.parquet").is_file()
    assert b"\\uc0ac\\uc9c4" in done.stdout  # what is printed stays in the terminal's encoding


def test_names_command_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a\x1b[31m\r\u202e\nb.jpg"
    table = grid("", "photo", "label")
    table.add_row(name, "1")
    stdout_console().print(table)
    print_result(f"no face {name}", "note ", 33)
    print_message(f"not read: {name}")
    print_error(name)
    output = capsys.readouterr()
    for text in (output.out, output.err):
        assert r"a\x1b[31m\r\u202e" in text
        assert not set(text) & set("\x1b\r\u202e")
    assert (
        len([line for line in output.out.splitlines() if "jpg" in line or "a\\" in line]) == 3
    )  # a line's end is one in prose
    assert r"a\x1b[31m\r\u202e\nb.jpg" in output.out  # and none in a table
    print_json({"path": f"{name}\x9b2J\x7f"})
    text = capsys.readouterr().out
    assert json.loads(text)["path"] == f"{name}\x9b2J\x7f"
    assert not set(text) & set("\x1b\r\u202e\x9b\x7f")


def test_names_go_into_pipes_as_they_are() -> None:
    lines = [
        "from orchestrator.cli.console import grid, print_result, stdout_console",
        "from orchestrator.cli.streams import configure_streams",
        "configure_streams()",
        "table = grid('', 'photo', 'label')",
        "table.add_row('caf\\udce9.jpg', '1')",
        "stdout_console().print(table)",
        "print_result('caf\\udce9.jpg')",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, check=True)
    assert done.stdout.count(b"caf\xe9.jpg") == 2


@pytest.mark.parametrize("environment", [
    {"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"LC_ALL": "C.UTF-8"},
])  # fmt: skip
@pytest.mark.parametrize("name", ["없는 폴더", "gone-\udcff-\udc80"])
def test_no_name_breaks_a_message(tmp_path: Path, environment: dict[str, str], name: str) -> None:
    there = os.fsencode(tmp_path) + b"/" + name.encode("utf-8", "surrogateescape")
    for words in (["recipes", "lint", "age"], ["data", "check", "--data"], ["data", "check", "--json", "--data"]):
        done = subprocess.run(
            [*PROGRAM, *words, there], capture_output=True, env={**ENVIRONMENT, **environment}, check=False
        )
        stderr = done.stderr.decode("utf-8", "replace")
        assert done.returncode in (1, 2), stderr
        assert "fault in orch" not in stderr
        assert "Traceback" not in stderr
        if "--json" in words:
            error = json.loads(done.stdout.decode("utf-8"))["error"]  # strict UTF-8: stray bytes are escaped
            assert name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") in error["message"]
    shown = on_terminal(
        80,
        "runs",
        "list",
        "-w",
        os.fsdecode(there).encode("utf-8", "replace").decode(),
        environment={**ENVIRONMENT, **environment},
    )
    assert "no workspace" in " ".join(shown.split())


def test_json_is_strict_and_keeps_stray_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"path": "a-\udcff", "score": float("nan"), "list": [float("inf"), 1.5], "here": Path("x")})
    text = capsys.readouterr().out
    assert json.loads(text) == {"path": "a-\udcff", "score": None, "list": [None, 1.5], "here": "x"}
    text.encode("utf-8")


# Readers that leave, streams that are closed, limits.


@pytest.mark.parametrize(("line", "code"), [
    ('orch runs list -w "$1" | head -1; exit ${PIPESTATUS[0]}', 0),
    ('orch recipes show age quick | head -1; exit ${PIPESTATUS[0]}', 0),
    ('orch --help | head -1; exit ${PIPESTATUS[0]}', 0),
    ('orch runs list -w "$1" --json | true; exit ${PIPESTATUS[0]}', 0),
    ('orch runs list -w "$1" >&-', 0),
    ('orch runs list -w "$1" --json >&- 2>&-', 0),
    ('orch runs list -w "$1" <&- >&- 2>&-', 0),
    ('orch runs list -w "$1/none" 2>&-', 2),
    ('orch no-such-command 2>&- >&-', 2),
    ('orch runs list -w "$1/none" 2>&1 | true; exit ${PIPESTATUS[0]}', 2),
])  # fmt: skip
def test_a_reader_that_leaves_changes_no_exit_code(trained: Path, line: str, code: int) -> None:
    done = shell(line, trained)
    assert done.returncode == code, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert b"Broken pipe" not in done.stderr


def test_work_goes_on_when_its_reader_leaves(tmp_path: Path, people: Path) -> None:
    line = 'orch data synth "$1/people" --people 8 --jobs 1 2>&1 | true; exit ${PIPESTATUS[0]}'
    assert shell(line, tmp_path).returncode == 0
    assert (tmp_path / "people/train/train.csv").is_file()


LOST = """
import sys, time
from orchestrator.cli import endings
class Odd:
    def __del__(self):
        print("ready", flush=True)
        while True:
            time.sleep(0.01)
endings.DESTRUCTOR_SECONDS = 0.5
with endings.signals_as_interrupts():
    Odd()  # what is raised while it is taken apart is dropped
    print("lost", flush=True)
    try:
        for _ in range(1000):
            time.sleep(0.01)
    except KeyboardInterrupt:
        for _ in range(150):  # a clean-up that takes longer than the next stop: left in peace
            time.sleep(0.01)
        print("cleaned up", flush=True)
        sys.exit(endings.stop_code())
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stop_that_got_lost_comes_again_and_leaves_the_clean_up_in_peace(number: signal.Signals, code: int) -> None:
    process = subprocess.Popen([sys.executable, "-c", LOST], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    out, stderr = process.communicate(timeout=60)
    assert (out, stderr, process.returncode) == ("lost\ncleaned up\n", "", code)


STUBBORN = """
import time
from orchestrator.cli import endings
with endings.signals_as_interrupts():
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("cleaning up", flush=True)
        time.sleep(60)
"""


def test_a_third_ctrl_c_ends_a_clean_up() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "cleaning up\n"
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    assert process.communicate() == ("", "")


def test_a_table_fits_though_its_letters_are_escaped(people: Path, workspace: Path, tmp_path: Path, orch: Orch) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    photo = next((people / "eval/images").iterdir())
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("김치 사진", "a"):
        shutil.copy(photo, folder / f"{name}{photo.suffix}")
    done = program("predict", folder, "-w", workspace, env={**ENVIRONMENT, "PYTHONIOENCODING": "ascii"})
    rows = [line for line in done.stdout.decode().splitlines() if str(folder) in line]
    assert len(rows) == 2, done.stderr
    assert "\\uae40" in "".join(rows)
    assert len({row.index(" / ") for row in rows}) == 1, rows


def test_results_on_a_full_disk_are_not_done(trained: Path) -> None:
    done = shell('orch runs list -w "$1" > /dev/full', trained)
    assert done.returncode == 2
    assert b"The disk is full" in done.stderr


@pytest.mark.parametrize("kilobytes", [400_000, 1_200_000, 2_980_000, 3_000_000, 3_020_000, 3_050_000])
def test_too_little_memory_is_a_sentence(orch: Orch, people: Path, workspace: Path, kilobytes: int) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    done = shell(f'ulimit -v {kilobytes}; orch predict "$1/eval/images" -w "$2" --json', people, workspace)
    stderr = done.stderr.decode()
    assert done.returncode == 2, stderr
    assert "ut of memory" in stderr
    assert "Traceback" not in stderr
    assert json.loads(done.stdout)["error"]["kind"] == "memory"


def test_a_limit_that_is_high_enough_changes_nothing(trained: Path, tmp_path: Path) -> None:
    done = shell('ulimit -v 60000000; orch runs list -w "$1" | head -2; exit ${PIPESTATUS[0]}', trained)
    assert (done.returncode, b"macro F1" in done.stdout) == (0, True), done.stderr.decode()
    assert shell("ulimit -v 60000000; orch runs lst").returncode == 2


@pytest.mark.parametrize(("how", "number"), [
    ("a program", signal.SIGTERM), ("a program", signal.SIGINT),
    ("a program at a terminal", signal.SIGINT), ("a key", signal.SIGINT),
])  # fmt: skip
def test_under_a_limit_a_command_is_stopped_once_by_whoever_stops_it(
    tmp_path: Path, how: str, number: signal.Signals
) -> None:
    """A key's signal reaches the command and the program that waits for it, a program's the latter alone."""
    line = 'ulimit -v 60000000; exec "$0" -c "$1" data synth "$2" --people 900 --jobs 1'
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        ["bash", "-c", line, *PROGRAM[::2], str(tmp_path / "people")],
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL if how == "a program" else theirs,
        env=ENVIRONMENT,
        start_new_session=True,
        preexec_fn=None if how == "a program" else lambda: ioctl(theirs, termios.TIOCSCTTY, 0),  # noqa: PLW1509  # no thread
    )
    while not list(tmp_path.rglob("*.jpg")):
        time.sleep(0.05)
    if how == "a key":
        os.write(ours, b"\x03")
    else:
        process.send_signal(number)
    stderr = process.communicate(timeout=60)[1]
    os.close(ours)
    os.close(theirs)
    assert (process.returncode, stderr.count(b"Interrupted")) == (128 + number, 1), stderr


def test_a_limit_on_files_is_a_sentence(tmp_path: Path) -> None:
    done = shell('ulimit -f 1; orch data synth "$1/people" --people 8 --jobs 1', tmp_path)
    assert done.returncode == 2, done.stderr.decode()
    assert b"ulimit -f unlimited" in done.stderr


# Errors for machines.


@pytest.mark.parametrize(("words", "kind", "message"), [
    (["runs", "list", "-w", "NONE", "--json"], "workspace", "no workspace here"),
    (["runs", "list", "--whre", "x", "--json"], "usage", "No such option: --whre"),
    (["runs", "lst", "--json"], "usage", "No such command 'lst'"),
    (["trian", "--json"], "usage", "Did you mean 'train'?"),
    (["recipes", "show", "age", "qick", "--json"], "config", "1 mistake in the settings"),
    (["train-all", "--data", "x", "--seed", "-1", "--json"], "usage", "--seed"),
    (["runs", "--json"], "usage", "--json"),
])  # fmt: skip
def test_errors_are_json_where_json_was_asked_for(
    orch: Orch, tmp_path: Path, words: list[str], kind: str, message: str
) -> None:
    done = orch(*(str(tmp_path / "none") if word == "NONE" else word for word in words))
    assert done.code == 2
    error = json.loads(done.out)["error"]
    assert set(error) == {"kind", "message", "problems"}
    assert error["kind"] == kind
    assert message in error["message"]
    assert message in done.err
    assert message not in orch(*(word for word in words if word != "--json")).out


def test_problems_are_single_objects(orch: Orch) -> None:
    done = orch("recipes", "show", "age", "qick", "--json")
    (problem,) = json.loads(done.out)["error"]["problems"]
    assert problem["where"] == "age recipe"
    assert "Did you mean 'quick'?" in problem["what"]


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (RuntimeError("can't start new thread"), "memory", "Out of memory"),
        (OSError(errno.EMFILE, "Too many open files"), "files", "`ulimit -n 1024`"),
    ],
)
def test_what_a_shells_limits_do_is_told_as_that(error: Exception, kind: str, message: str) -> None:
    ending = ending_of(error)
    assert (ending.kind, ending.code) == (kind, 2)
    assert message in ending.message


# Signals.


@pytest.mark.parametrize(
    ("number", "code", "group", "jobs"),
    [
        (signal.SIGTERM, 143, False, 2),  # kill
        (signal.SIGTERM, 143, True, 1),  # timeout, a service's manager
        (signal.SIGINT, 130, True, 1),  # Ctrl-C
        (signal.SIGINT, 130, True, 2),
        (signal.SIGHUP, 129, True, 2),  # a terminal that is closed
    ],
)
def test_signals_end_a_training_calmly(
    people: Path, tmp_path: Path, number: signal.Signals, code: int, group: bool, jobs: int
) -> None:
    """Sent to the command alone, or to its loading processes and workers as well."""
    words = [
        "train-all",
        "--data",
        people / "train",
        "-w",
        tmp_path / "runs",
        "--folds",
        3,
        "--jobs",
        jobs,
        *tiny("epochs=200", f"workers={2 if group else 0}"),
    ]
    log = tmp_path / "log"
    with log.open("wb") as file, begun(map(str, words), stdout=file, stderr=file, process_group=0) as process:
        limit = time.monotonic() + PATIENCE
        while not list(tmp_path.glob("runs/*/fold-0/history.json")):
            assert time.monotonic() < limit, log.read_text()
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        children = descendants(process.pid)
        send = partial(os.killpg, process.pid) if group else process.send_signal
        send(number)
        if number != signal.SIGINT:
            send(number)  # another one in mid-end changes nothing
        assert process.wait(PATIENCE) == code, log.read_text()
    time.sleep(1.0)
    stderr = log.read_text()
    assert "Interrupted. Finished work is kept" in stderr
    for word in ("Traceback", "semaphore", "semlock", "resource_tracker", "leaked", "Warning"):
        assert word not in stderr, stderr
    assert jobs == 1 or len(children) >= 2
    assert not [child for child in children if alive(child)], stderr


def test_a_command_waits_for_the_threads_that_fed_its_workers() -> None:
    """Ended between deleting a semaphore and saying so, one of them made loky warn of a leak: once in 1,350 tests."""
    code = """
import sys, time
from joblib.externals.loky.backend.context import get_context
from joblib.externals.loky.backend.queues import Queue
from orchestrator.cli.app import program

def feed(*_):
    time.sleep(0.3)
    print("its end", file=sys.stderr)

Queue._feed = staticmethod(feed)
get_context().Queue().put(1)
sys.argv = ["orch", "--version"]
program()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert done.stderr == "its end\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals_end_other_commands_calmly(tmp_path: Path, number: signal.Signals, code: int) -> None:
    words = ["data", "synth", str(tmp_path / "p"), "--people", "5000", "--jobs", "2"]
    with begun(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0) as process:
        limit = time.monotonic() + PATIENCE
        while not list(tmp_path.rglob("*.jpg")):
            assert process.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.1)
        os.killpg(process.pid, number)
        _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, stderr.decode()
    assert b"Interrupted." in stderr
    for word in (b"Traceback", b"semaphore", b"leaked", b"Warning"):
        assert word not in stderr, stderr.decode()


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and theirs."""
    children = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                children += [int(path.parent.name), *descendants(int(path.parent.name))]
        except OSError:
            continue
    return children


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


# The list of commands.


def test_the_list_of_commands_says_what_their_help_says() -> None:
    assert len(ENTRIES) >= 18
    for entry in ENTRIES:
        command = entry.load()
        assert command.name == entry.name
        assert (command.help or "").split("\n\n")[0].replace("\n", " ") == entry.about


@pytest.mark.parametrize("words", [
    ["--help"], ["-h"], [], ["trian"], ["--nothing"], ["runs", "lst"], ["runs", "list", "--whre"], ["recipes", "list", "--help"],
    ["train-all", "--help"], ["train-all"], ["predict", "--seed", "x"], ["--version"], ["sweep", "age", "--trials", "0"],
    ["recipes", "show", "age", "qick"], ["recipes", "list"], ["recipes", "diff", "age", "quick", "demo"],
    ["recipes", "lint", "age", "quick"], ["sweep", "age", "--print-space"],
])  # fmt: skip
def test_words_that_need_no_network_import_none(words: list[str]) -> None:
    code = (
        "import sys; sys.argv = ['orch', *sys.argv[1:]]\n"
        "from orchestrator.cli.app import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'timm', 'numpy', 'pandas', 'sklearn', 'cv2', 'PIL', 'joblib', 'pyarrow', 'scipy'} & set(sys.modules)\n"
        "sys.exit(','.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, env=ENVIRONMENT, check=False
    )
    assert done.returncode == 0, done.stderr


def test_what_reads_a_workspaces_records_imports_no_network(orch: Orch, workspace: Path, tmp_path: Path) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    first, other = tmp_path / "one.csv", tmp_path / "other.csv"
    first.write_text("ImageID,ans\na.jpg,1\nb.jpg,2\n")
    other.write_text("ImageID,ans\na.jpg,1\nb.jpg,5\n")
    code = (
        "import sys; sys.argv = ['orch', *sys.argv[1:]]\n"
        "from orchestrator.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "heavy = {'torch', 'timm', 'numpy', 'pandas', 'sklearn', 'cv2', 'PIL', 'joblib', 'pyarrow', 'scipy'} & set(sys.modules)\n"
        "sys.exit(','.join(sorted(heavy)) or 0)"
    )
    for words in (
        ["runs", "list", "-w", workspace],
        ["runs", "list", "-w", workspace, "--where", "task=age lr>0", "--sort", "score", "--json"],
        ["runs", "show", "age-0001", "-w", workspace],
        ["ensembles", "list", "-w", workspace],
        ["runs", "note", "age-0001", "a word", "--tag", "try", "-w", workspace],
        ["runs", "use", "age-0001", "-w", workspace],
        ["submissions", "diff", first, other],
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, env=ENVIRONMENT, check=False
        )
        assert done.returncode == 0, (words, done.stderr)


# Time.


def test_the_last_line_counts_from_the_programs_start(
    people: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train-all", "--data", people / "train", "-w", workspace, "--folds", 3, "--jobs", 1, *tiny()]
    monkeypatch.setattr(sys, "argv", ["orch", *map(str, words)])
    began = time.monotonic()
    with pytest.raises(SystemExit):
        main(began - 7200)  # two hours of imports, on a very slow machine
    stderr = capsys.readouterr().err
    (hours,) = re.findall(r"^([\d.]+) hours in all\.$", stderr, re.MULTILINE)
    assert float(hours) >= 2.0
    monkeypatch.setattr("orchestrator.cli.app.main", lambda began: began_at.append(began) or sys.exit(0))
    began_at: list[float] = []
    monkeypatch.setattr(os, "_exit", lambda code: None)
    monkeypatch.setattr("threading._shutdown", lambda: None)
    monkeypatch.setattr("atexit._run_exitfuncs", lambda: None)
    threshold = gc.get_threshold()
    program_itself()
    gc.set_threshold(*threshold)
    assert began_at == [BEGAN]
    assert began_at[0] <= began


def test_a_workspace_whose_name_is_no_utf8_is_refused_before_any_work(people: Path, tmp_path: Path) -> None:
    """Its weights could not be opened: hours of work ended as `damaged`."""
    folder = os.fsencode(tmp_path) + b"/new\xe9"
    for words in (["train-all", "--data", str(people / "train"), "--folds", "2"], ["runs", "list"]):
        done = subprocess.run(
            [sys.executable, "-c", "from orchestrator.cli.app import main; main()", *words, "-w", folder],
            capture_output=True, check=False, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 2, done.stderr
        assert rb"new\xe9: the name of a workspace must be UTF-8" in done.stderr
        assert not os.path.lexists(folder)
