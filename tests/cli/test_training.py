"""Training from the command line: what is printed, listed and named as the next step."""

import io
import json
import re
import shlex
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from rich.console import Console

from orchestrator.artifacts.workspace import Workspace
from orchestrator.cli.display import TrainingDisplay
from orchestrator.cli.training import report_training
from orchestrator.core.events import Listener, PlannedMember, TrainingEnded, TrainingStarted
from orchestrator.execution import executor
from orchestrator.pipeline.training import Report
from orchestrator.training.job import MemberJob
from tests.conftest import TINY, Done, hashes, tiny, train

Orch = Callable[..., Done]


def test_a_single_split_and_training_on_everything(orch: Orch, people: Path, tmp_path: Path) -> None:
    single_split = tmp_path / "one"
    assert train(orch, people, single_split, "train-all", *tiny("epochs=1"), "--valid-only").code == 0
    ensemble = json.loads(orch("ensemble", "-w", single_split, "--json").out)
    assert ensemble["evaluation"]["label"]["people"] == 8
    everything = tmp_path / "all"
    done = orch("train-all", "--data", people / "train", "-w", everything, "--folds", 0, "--jobs", 1, *tiny("epochs=1"))
    assert done.code == 0, done.err
    assert "there will be no out-of-fold score" in done.err
    done = orch("ensemble", "-w", everything)
    assert done.code == 0
    assert "no out-of-fold score: mask-0001, gender-0001, age-0001: trained on everything" in done.out
    done = orch("predict", people / "eval" / "images", "-w", everything, "--json")
    assert len(json.loads(done.out)) == 28


def test_the_next_step_of_runs_that_did_not_become_current_names_them(
    orch: Orch, people: Path, workspace: Path
) -> None:
    """They cover fewer people than the current runs: the ensemble without --members would be of those."""
    done = train(orch, people, workspace, "train-all", *tiny("epochs=1"), "--valid-only")
    (line,) = [line for line in done.err.splitlines() if line.startswith("next: ")]
    done = orch(*shlex.split(line.removeprefix("next: "))[1:], "--json")
    assert done.code == 0, done.err
    runs = {member["run"] for members in json.loads(done.out)["members"].values() for member in members}
    assert runs == {"mask-0002", "gender-0002", "age-0002"}


def test_the_table_stands_above_the_next_step_which_json_and_failures_do_without(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Workspace(trained).run("age-0001")
    calls: list[str] = []

    def gone() -> str:
        calls.append(run.id)
        raise OSError("its photos are on a disk that is gone")

    with pytest.raises(OSError, match="a disk that is gone"):
        report_training(Report([run], {}, 1.0), False, gone)
    assert "age-0001" in capsys.readouterr().out
    report_training(Report([run], {}, 1.0), True, gone)
    with pytest.raises(typer.Exit):
        report_training(Report([replace(run, status="unfinished")], {("age-0001", 1): "why"}, 1.0), False, gone)
    assert calls == ["age-0001"]


def test_a_failing_fold_is_told_at_the_end_and_the_others_are_kept(
    orch: Orch, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = executor.train_fold

    def fail_once(job: MemberJob, listen: Listener) -> object:
        if job.task == "age" and job.fold == 1:
            raise MemoryError
        return real(job, listen)

    monkeypatch.setattr(executor, "train_fold", fail_once)
    runs = tmp_path / "runs"
    done = train(orch, people, runs, "train-all", *tiny("epochs=1"))
    assert done.code == 1
    assert "age-0001 fold 1: age fold 1: MemoryError" in done.err
    rows = {cells[0]: " ".join(cells) for line in done.out.splitlines() if (cells := line.split())}
    assert "complete" in rows["mask-0001"]
    assert "2/3" in rows["age-0001"]
    assert "failed" in rows["age-0001"]
    for fold in range(3):  # a plain line as each member ends, since this is no terminal
        assert re.search(
            rf"mask-0001 fold {fold} epoch 1/1: loss \d+\.\d{{4}}, macro F1 0\.\d{{4}}, \d+ photos/s \(\d of 9 members? done",
            done.err,
        )
    assert "\x1b[" not in done.out + done.err
    assert "the same command then trains what is missing" in done.err
    assert "mask-0001 is now the current mask run" in done.err
    assert len(list(runs.glob("age-0001/fold-*/member.json"))) == 2
    kept = hashes(runs / "age-0001" / "fold-0")
    monkeypatch.setattr(executor, "train_fold", real)
    done = train(orch, people, runs, "train-all", *tiny("epochs=1"))
    assert done.code == 0
    assert hashes(runs / "age-0001" / "fold-0") == kept
    assert orch("ensemble", "-w", runs).code == 0


def screen() -> Console:
    """A terminal of 100 columns, whose `file` holds what it has shown."""
    return Console(file=io.StringIO(), force_terminal=True, width=100)


def test_a_training_ends_while_its_table_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that draws holds rich's lock and waits for the display's; whoever stops it must hold neither."""
    stopped: list[bool] = []

    class Drawing:
        """All of rich's Live that is used."""

        def __init__(self, get_renderable: Callable[[], object], **_: object) -> None:
            self.draw = get_renderable

        def start(self) -> None:
            self.draw()

        def stop(self) -> None:
            drawn = threading.Thread(target=self.draw, daemon=True)
            drawn.start()
            drawn.join(20)
            stopped.append(not drawn.is_alive())

    monkeypatch.setattr("rich.live.Live", Drawing)
    display = TrainingDisplay(screen())
    member = PlannedMember("age-0001", 0, Path("fold-0"), epochs=2, trained=0, work=1.0)
    display(TrainingStarted((member,), 1, 1, "cpu", Path("runs")))
    display(TrainingEnded())
    assert stopped == [True], "the display's lock is held while the table is stopped"
    display.close()
    assert stopped == [True]


def test_the_live_table_shows_every_member_and_how_it_ended(
    people: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.pipeline import training as pipeline
    from orchestrator.specialists import SPECIALISTS

    real = executor.train_fold
    monkeypatch.setattr(executor, "train_fold", lambda job, listen: real(job, listen) if job.fold != 1 else 1 / 0)
    settings = pipeline.Settings(
        people / "train", workspace, changes=(*TINY, "epochs=1"), folds=3, jobs=1, device="cpu", seed=9
    )
    terminal = screen()
    report = pipeline.train_all(settings, {"age": SPECIALISTS["age"]}, TrainingDisplay(terminal))
    assert list(report.failures) == [("age-0002", 1)]
    *_, last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.file.getvalue()).split("state")  # the table is drawn anew
    rows = [line.split() for line in last.splitlines() if "age-0002" in line]
    assert [row[2] for row in rows] == ["0", "1", "2"]
    assert [row[-1] for row in rows] == ["done", "failed", "done"]
    assert "elapsed, 2 of 3 members done, 1 failed" in last


def test_a_profile_tells_where_the_time_went(orch: Orch, people: Path, tmp_path: Path) -> None:
    words = ("train-all", "--tasks", "mask", "--valid-only", "--profile", *tiny())
    done = train(orch, people, tmp_path / "runs", *words)
    assert done.code == 0, done.err
    for stage in ("read and augment", "forward", "backward", "optimiser", "score", "rest"):
        assert stage in done.out
    (entry, *_) = json.loads((tmp_path / "runs" / "mask-0001" / "fold-0" / "history.json").read_text())
    assert sum(entry["stages"].values()) == pytest.approx(entry["seconds"], rel=0.3)
    report = json.loads(train(orch, people, tmp_path / "again", *words, "--json").out)
    assert report["profile"]["mask-0001"]["backward"] > 0
    report = json.loads(train(orch, people, tmp_path / "runs", *words, "--json").out)
    assert report["profile"] == {}  # nothing was trained: the time of an earlier command is not this one's


def test_an_interrupted_run_has_no_fold_and_its_recipe_reads_alike_everywhere(
    orch: Orch, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(job: object, listen: Listener) -> object:
        raise KeyboardInterrupt

    words = [
        "train",
        "age",
        "--data",
        people / "train",
        "-w",
        tmp_path / "runs",
        "--folds",
        2,
        "--jobs",
        1,
        *tiny("epochs=1"),
    ]
    with monkeypatch.context() as patch:
        patch.setattr(executor, "train_fold", stop)
        done = orch(*words)
        assert done.code == 130, done.err
    (row,) = [line for line in orch("runs", "list", "-w", tmp_path / "runs").out.splitlines() if "age-0001" in line]
    assert " 0 of 2 " in row
    done = orch(*words)
    assert done.code == 0, done.err
    listed = orch("runs", "list", "-w", tmp_path / "runs").out
    rows = [line for line in f"{done.out}\n{listed}".splitlines() if "age-0001" in line and "macro" not in line]
    assert len(rows) == 2
    (recipe,) = {match[0] for row in rows if (match := re.search(r"quick \+\d+", row))}
    assert all(recipe in row for row in rows)
    assert " 2 of 2 " in rows[1]


def test_the_first_run_names_the_training_of_the_others_as_it_was_trained(
    orch: Orch, people: Path, tmp_path: Path
) -> None:
    """The same people, folds, seed, extra photos and recipe; pasted, it works."""
    photo = next((people / "eval/images").iterdir())
    extra, recipe = tmp_path / "ex tra.csv", tmp_path / "tiny.toml"
    extra.write_text(f"path,gender\n{photo},male\n")
    recipe.write_text('backbone = "test_efficientnet"\nweights = "none"\nheight = 32\nwidth = 32\nepochs = 1\n')
    words = ("--data", people / "train", "--folds", 2, "--plan-seed", 4, "--seed", 5, "--extra", extra, "--jobs", 1)
    changes = ("--recipe", recipe, "--set", "batch_size=16", "--set", "gender.lr=0.01")
    done = orch("train", "gender", *words, *changes, "-w", tmp_path / "n w")
    assert done.code == 0, done.err
    match = re.search(r"next: (orch train-all .+?)   then   (orch .+)", done.err)
    assert match, done.err
    assert "gender.lr" not in match[1]
    assert orch(*shlex.split(match[1])[1:], "--jobs", 1).code == 0
    runs = Workspace(tmp_path / "n w").runs()
    assert [run.task for run in runs] == ["age", "gender", "mask"]
    for run in runs:
        assert (run.seed, run.plan and run.plan.seed, run.recipe["batch_size"]) == (5, 4, 16)
        assert run.recipe["backbone"] == "test_efficientnet"
    assert orch(*shlex.split(match[2])[1:]).code == 0
    again = orch("train", "age", "--data", people / "train", "-w", tmp_path / "n w", "--jobs", 1)
    assert "Its seed was 5, this one's is 0." in again.err


def test_a_recipes_file_is_found_from_any_folder_and_missed_where_it_has_changed(
    orch: Orch, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A printed training must not train by another recipe without a word: by `quick`, or by another file of the same name."""
    for folder, epochs in (("mine", 1), ("yours", 2)):
        (tmp_path / folder).mkdir()
        text = f'backbone = "test_efficientnet"\nweights = "none"\nheight = 32\nwidth = 32\nepochs = {epochs}\n'
        (tmp_path / folder / "tiny.toml").write_text(text)
    monkeypatch.chdir(tmp_path / "mine")
    words = ("--data", people / "train", "--folds", 2, "--jobs", 1, "-w", tmp_path / "runs")
    assert orch("train-all", *words, "--recipe", "tiny.toml", "--tasks", "age").code == 0
    monkeypatch.chdir(tmp_path / "yours")
    done = orch("train", "age", *words, "--seed", 1)
    assert f"--recipe {tmp_path / 'mine' / 'tiny.toml'} " in done.err
    assert "tiny.toml" in done.out
    assert str(tmp_path / "mine") not in orch("runs", "list", "-w", tmp_path / "runs").out  # a name, in tables
    assert "age-0001" in orch("runs", "list", "-w", tmp_path / "runs", "--where", "recipe=tiny.toml").out
    shutil.copy("tiny.toml", tmp_path / "mine")
    done = orch("train", "age", *words, "--seed", 2)
    assert "--recipe FILE.toml" in done.err
    assert f"(FILE.toml: {tmp_path / 'mine' / 'tiny.toml'}, which is gone or has changed since)" in done.err


def test_what_the_data_does_not_teach_is_not_named_as_the_next_training(
    orch: Orch, people: Path, tmp_path: Path
) -> None:
    photos = sorted((people / "train/images").rglob("normal.*"))[:12]
    rows = [f"{path},{number},{20 + 15 * (number % 4)},male,wear\n" for number, path in enumerate(photos)]
    (tmp_path / "male.csv").write_text("path,person,age,gender,mask\n" + "".join(rows))
    words = ("--data", tmp_path / "male.csv", "--folds", 2, "--jobs", 1, "-w", tmp_path / "runs")
    done = orch("train", "age", *words, *tiny())
    assert done.code == 0, done.err
    assert "train-all" not in done.err
    assert "an ensemble needs runs of mask, gender over the same people too, which need other data." in done.err


def test_the_next_step_makes_runs_that_can_be_fused(orch: Orch, people: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "own"
    words = ("--data", people / "train", "-w", workspace, "--jobs", 1)
    done = orch("train", "age", *words, "--folds", 2, "--plan-seed", 3, *tiny("epochs=1"))
    assert done.code == 0, done.err
    (line,) = [line for line in done.err.splitlines() if line.startswith("next: ")]
    command, _, fuse = line.removeprefix("next: ").partition("   then   ")
    assert "--tasks mask,gender" in command
    assert orch(*shlex.split(command)[1:], "--jobs", 1, *tiny("epochs=1")).code == 0
    assert orch(*shlex.split(fuse)[1:]).code == 0


def test_the_next_step_after_other_folds_than_the_first_trains_all_of_them(
    orch: Orch, people: Path, tmp_path: Path
) -> None:
    words = ("--data", people / "train", "-w", tmp_path / "own", "--jobs", 1, *tiny("epochs=1"))
    done = orch("train", "age", *words, "--folds", 2, "--fold", 1)
    (line,) = [line for line in done.err.splitlines() if line.startswith("next: ")]
    command, _, fuse = line.removeprefix("next: ").partition("   then   ")
    assert orch(*shlex.split(command)[1:], "--jobs", 1, *tiny("epochs=1")).code == 0
    assert orch(*shlex.split(fuse)[1:]).code == 0


def test_the_next_step_of_a_single_split_is_one_too(orch: Orch, people: Path, tmp_path: Path) -> None:
    words = ("--data", people / "train", "-w", tmp_path / "own", "--jobs", 1, *tiny("epochs=1"))
    done = orch("train", "age", *words, "--folds", 3, "--valid-only")
    (line,) = [line for line in done.err.splitlines() if line.startswith("next: ")]
    command, _, fuse = line.removeprefix("next: ").partition("   then   ")
    assert "--folds-used 1" in command
    assert orch(*shlex.split(command)[1:], "--jobs", 1, *tiny("epochs=1")).code == 0
    assert orch(*shlex.split(fuse)[1:]).code == 0


def test_a_single_split_of_several_folds_is_refused(orch: Orch, people: Path, workspace: Path) -> None:
    done = train(orch, people, workspace, "train", "age", "--valid-only", "--folds-used", 2)
    assert done.code == 2
    assert "--valid-only trains fold 0 only, and --folds-used 2 the first 2: choose one." in done.err
