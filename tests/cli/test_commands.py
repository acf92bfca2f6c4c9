"""The other commands as a user sees them, and the errors that all commands share."""

import errno
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator import __version__, api
from orchestrator.artifacts.run import RUN_FORMAT
from orchestrator.cli import console
from orchestrator.core.errors import ConfigError
from orchestrator.data.readers import read
from tests.conftest import ROOT, Done, edit_sealed, hashes, tiny

Orch = Callable[..., Done]


def test_recipes_and_runs_are_shown_and_copied(orch: Orch, workspace: Path, tmp_path: Path) -> None:
    assert orch("recipes", "list").out.count("quick") == 4
    shown = orch("recipes", "show", "age", "quick").out
    assert "train_border" in shown
    assert "58 rule" in shown
    mine = tmp_path / "mine.toml"
    assert orch("recipes", "copy", "age", "quick", mine).code == 0
    assert "# passes over the sampled photos" in mine.read_text()
    assert "is there already" in orch("recipes", "copy", "age", "quick", mine).err
    shown = orch("runs", "show", "age-0001", "-w", workspace)
    for text in ("fold plan", "fingerprint", "torch", "macro F1", "initial weights"):
        assert text in shown.out
    assert "Did you mean 'age-0001'?" in orch("runs", "show", "age-001", "-w", workspace).err
    assert json.loads(orch("runs", "show", "age-0001", "-w", workspace, "--json").out)["members"][2]["fold"] == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train-all", "--set", "lerning_rate=1"], "unknown key 'lerning_rate'"),
        (["train-all", "--recipe", "qick"], "Did you mean 'quick'?"),
        (["train-all", "--set", "backbone=resnet_18"], "Did you mean 'resnet18' or '"),
        (["train-all", "--device", "cuda"], "sees no GPU here"),
        (["train-all", "--device", "tpu"], "allowed: auto, cpu, cuda"),
        (["train-all", "--folds", "9"], "larger than the smallest class: "),
        (["train-all", "--tasks", "hat"], "'hat' is not a task; allowed: mask, gender, age"),
        (["train-all", "--jobs", "-2"], "--jobs -2; allowed: 1 or more"),
        (["train", "hat"], "'hat' is not a specialist"),
        (["train-all", "--columns", "person"], "write OURS=THEIRS"),
        (["train-all", "--set", "weights=nowhere.pth"], "no such file; allowed: hub, packaged, none"),
        (["train-all", "--set", "precision=fp16"], "precision = fp16 needs a GPU"),
        (["train-all", "--valid-only", "--folds", "0"], "--folds 0 holds nobody out"),
        (["train", "age", "--folds", "0", "--fold", "1"], "--fold goes with a fold plan"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(
    orch: Orch, people: Path, tmp_path: Path, words: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ORCH_DEBUG", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    folds = [] if "--folds" in words else ["--folds", 3]
    done = orch(*words, *folds, "--data", people / "train", "--workspace", tmp_path / "runs")
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err


def test_a_recipes_file_is_named_by_any_name(orch: Orch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = orch("recipes", "copy", "age", "quick", "age=z.toml")
    assert "--recipe ./age=z.toml" in done.err
    Path("~z.toml").write_bytes(Path("age=z.toml").read_bytes())
    for name in ("age=z.toml", "./age=z.toml", "./~z.toml", "~z.toml"):
        assert orch("recipes", "show", "age", name).code == 0, name
    done = orch("recipes", "lint", "age", "~no_such_user/x.toml")
    assert (done.code, "~no_such_user/x.toml: No such file" in done.err) == (2, True), done.err


def test_a_fault_of_ours_is_a_sentence_and_a_traceback_only_when_asked(
    orch: Orch, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("orchestrator.data.check.check", fail)
    monkeypatch.delenv("ORCH_DEBUG", raising=False)
    done = orch("data", "check", "--data", people / "train")
    assert done.code == 70
    assert "fault in orch, not in your input: ZeroDivisionError: a bug" in done.err
    assert "ORCH_DEBUG=1" in done.err
    monkeypatch.setenv("ORCH_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        orch("data", "check", "--data", people / "train")


def test_a_demo_that_was_killed_while_it_wrote_its_tables_draws_the_people_anew(
    orch: Orch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise ConfigError("far enough.")

    monkeypatch.setattr(api, "train_all", stop)
    tables, words = ("train/train.csv", "eval/truth.csv", "eval/info.csv"), ("demo", "--out", tmp_path, "--people", 24)
    assert "drawing 24 people" in orch(*words).err
    before = [(tmp_path / "people" / table).read_bytes() for table in tables]
    (tmp_path / "people/.unfinished").touch()  # as the kill leaves it: train.csv is written first
    for table in tables[1:]:
        (tmp_path / "people" / table).unlink()
    done = orch(*words)
    assert "drawing 24 people" in done.err
    assert "far enough." in done.err
    assert [(tmp_path / "people" / table).read_bytes() for table in tables] == before
    assert "people of an earlier demo" in orch(*words).err


def test_the_demo_deletes_nothing_that_it_did_not_make(orch: Orch, tmp_path: Path) -> None:
    (tmp_path / "people" / "train").mkdir(parents=True)
    (tmp_path / "people" / "train" / "train.csv").write_text("mine")
    for words in ([], ["--fresh"]):
        done = orch("demo", "--out", tmp_path, *words)
        assert done.code == 2
        assert "holds files that no demo has made" in done.err
    assert (tmp_path / "people" / "train" / "train.csv").read_text() == "mine"


@pytest.mark.parametrize("words", [["--seed", "-1"], ["--plan-seed", str(2**32)]])
def test_seeds_have_a_range(orch: Orch, people: Path, tmp_path: Path, words: list[str]) -> None:
    done = orch("train-all", "--data", people / "train", "-w", tmp_path / "runs", *words)
    assert done.code == 2
    assert f"'{words[0]}': '{words[1]}'; allowed: a whole number, 0 to 4294967295." in done.err
    assert not (tmp_path / "runs").exists()


def test_several_wrong_inputs_are_told_at_once_and_leave_nothing(orch: Orch, tmp_path: Path) -> None:
    done = orch(
        "train-all", "--data", tmp_path / "nowhere", "-w", tmp_path / "runs", "--device", "tpu", "--set", "foo=1",
        "--set", "age.augment=3", "--set", "age.augment.flip=1",
    )  # fmt: skip
    assert done.code == 2
    assert done.err.count("--set foo=1: unknown key 'foo'") == 1
    assert "'augment' is a table, and was given a plain value" in done.err
    assert "--device tpu" in done.err
    assert "no such folder or table" in done.err
    assert not (tmp_path / "runs").exists()
    (tmp_path / "train.csv").touch()
    done = orch("train-all", "--data", tmp_path, "--set", "mask.backbone=resnt", "--set", "age.backbone=resnet18.x")
    assert "train.csv: cannot be read as a CSV table: it is empty" in done.err
    assert "mask: backbone = 'resnt'" in done.err
    assert "age: backbone = 'resnet18.x'" in done.err


def test_damaged_records_are_named_with_what_is_wrong(orch: Orch, people: Path, workspace: Path) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    done = orch("predict", people / "eval" / "images", "-w", workspace, "--ensemble", "soft-001")
    assert (done.code, "Did you mean 'soft-0001'?" in done.err) == (2, True)
    record = workspace / "age-0001" / "run.json"
    whole = record.read_text()
    for text, message in (
        ("{", "not readable as JSON"), ("{}", "it has no format number or no digest"), ("[1, NaN]", "NaN is not JSON"),
        (f'{{"format": {RUN_FORMAT}, "digest": "x"}}', "do not match the digest in it"),
        ((workspace / "mask-0001" / "run.json").read_text(), "holds the run 'mask-0001', and must hold the run 'age-0001'"),
    ):  # fmt: skip
        record.write_text(text)
        done = orch("runs", "list", "-w", workspace)
        assert (done.code, message in done.err, "age-0001/run.json" in done.err) == (1, True, True), done.err
        assert "mask-0001" in done.out  # the others are listed all the same
    record.write_text(whole)
    edit_sealed(record, status="unfinished", make_current="auto", was_offered=False)
    rest = ["--data", people / "train", "-w", workspace, "--jobs", 1]
    done = orch("train", "age", *rest, "--fold", 1, "--base", "age-0001")
    assert "--fold shares the members of age-0001, and that run is unfinished: `orch resume age-0001" in done.err
    assert "age-0001 is unfinished: `orch resume age-0001" in orch("runs", "use", "age-0001", "-w", workspace).err


def test_long_work_shows_its_rate_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(console, "stderr_console", lambda: screen)
    with console.progress_bar("answering") as progress:
        for step in range(1, 8):
            progress(step * 10, 100)
            time.sleep(0.06)
    shown = screen.file.getvalue()
    assert "answering" in shown
    assert "70/100" in shown
    assert "/s" in shown
    assert re.search(r"70/100.*\d/s.*0:00:0\d", shown)  # how many are done, the rate, the time left


def test_wrong_options_are_told_together(orch: Orch, people: Path, workspace: Path, tmp_path: Path) -> None:
    done = orch("train-all", "--data", people / "train", "-w", tmp_path / "runs", "--device", "tpu", "--jobs", "-2",
                "--set", "weights=nowhere.pth", "--folds", "3")  # fmt: skip
    assert done.code == 2
    for message in ("--device tpu", "--jobs -2", "weights = 'nowhere.pth'"):
        assert message in done.err
    done = orch(
        "predict",
        "-w",
        workspace,
        "--on-error",
        "mrk",
        "--precision",
        "bf16",
        "--strategy",
        "sft",
        "--picture",
        "a.jpg",
    )
    assert done.code == 2
    for message in (
        "--on-error mrk",
        "Did you mean 'mark'?",
        "--precision bf16",
        "--strategy sft",
        "give exactly one of photos and",
        "a.jpg",
    ):
        assert message in done.err


def test_a_full_disk_is_never_a_fault_of_ours(orch: Orch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.delenv("ORCH_DEBUG", raising=False)
    monkeypatch.setattr(Path, "write_bytes", full)
    done = orch("data", "synth", tmp_path / "people", "--people", 6, "--jobs", 1)
    assert done.code == 2
    assert "The disk is full. Free some room and run the same command again." in done.err


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "Out of memory. Lower --batch (predict)"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
            "Out of memory. Lower --batch (predict)",
        ),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA"), "Out of memory. Lower --batch (predict)"),
    ],
)
def test_out_of_memory_while_predicting_says_what_to_lower(
    orch: Orch, people: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    assert orch("ensemble", "-w", workspace).code == 0

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.delenv("ORCH_DEBUG", raising=False)
    monkeypatch.setattr("orchestrator.inference.predictor.Predictor.predict", fail)
    done = orch("predict", people / "eval" / "images", "-w", workspace)
    assert (done.code, message in done.err) == (2, True), done.err


def test_a_table_of_photos_goes_all_the_way(orch: Orch, people: Path, tmp_path: Path) -> None:
    table = read(people / "train").table
    paths = [str((people / "train" / path).absolute()) for path in table["path"]]
    for suffix in ("csv", "parquet"):
        manifest, runs = tmp_path / f"m.{suffix}", tmp_path / suffix
        named = table.assign(path=paths).rename(columns={"person": "subject"})
        named.to_csv(manifest, index=False) if suffix == "csv" else named.to_parquet(manifest)
        words = ["--data", manifest, "--columns", "person=subject", "-w", runs, "--folds", 3, "--jobs", 1]
        done = orch("train-all", *words, *tiny("epochs=1"))
        assert done.code == 0, done.err
        assert orch("ensemble", "-w", runs).code == 0
        done = orch("predict", people / "eval" / "images", "-w", runs, "--json")
        assert {answer["label"] is not None for answer in json.loads(done.out)} == {True}
        assert len(json.loads(done.out)) == 28
    same = [hashes(tmp_path / suffix / "age-0001" / "fold-1")["weights.safetensors"] for suffix in ("csv", "parquet")]
    assert same[0] == same[1]


def test_a_plan_of_no_folds_and_a_recipe_without_a_suffix_are_told(orch: Orch, people: Path, tmp_path: Path) -> None:
    done = orch("data", "folds", "--data", people / "train", "--folds", 0)
    assert (done.code, "--folds 0 means no plan" in done.err) == (2, True)
    done = orch("recipes", "copy", "age", "quick", tmp_path / "mine.txt")
    assert done.code == 2
    assert "mine.txt" in done.err
    assert not (tmp_path / "mine.txt").exists()


def test_the_program_ends_with_its_output_and_its_exit_code(tmp_path: Path) -> None:
    def program(*words: object, **more: object) -> subprocess.CompletedProcess[str]:
        code = (
            "import atexit, sys; from orchestrator.cli.app import program; atexit.register(print, 'at exit'); program()"
        )
        command = [sys.executable, "-c", code, *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, **more)

    done = program("--version")
    assert (done.returncode, done.stdout) == (0, f"{__version__}\nat exit\n")
    done = program("data", "check", "--data", tmp_path / "none")
    assert done.returncode == 2
    assert "no such folder or table" in done.stderr
    assert done.stdout == "at exit\n"
    done = program("predict", "a.jpg", "--strategy", "sft")
    assert (done.returncode, "Did you mean 'soft'?" in done.stderr) == (2, True)
    done = program("no-such-command")
    assert done.returncode == 2
    done = program("data", "synth", tmp_path / "people", "--people", 8, "--jobs", 2, timeout=100)  # workers end as well
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("at exit\n")
    done = program("predict", "a.jpg", "--workspace", tmp_path / "none", env={**os.environ, "ORCH_DEBUG": "1"})
    assert done.returncode == 1
    assert "Traceback" in done.stderr
