"""Training from the command line: what is trained, kept, shared, and what becomes current."""

import io
import json
import re
import shlex
import shutil
import threading
import tomllib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from orchestrator.artifacts.run import RunRecord
from orchestrator.artifacts.workspace import Workspace
from orchestrator.core.errors import ConfigError
from orchestrator.core.events import Event, TrainingBegun, TrainingEnded
from orchestrator.data.readers import read
from orchestrator.execution import local
from orchestrator.pipeline.settings import Settings, changes_of, recipes_of
from orchestrator.recipes.spaces import STAGES, read_stages
from orchestrator.specialists import TRAINABLE
from tests.conftest import TINY, Done, Silent, edit_sealed, hashes, tiny, train

Orch = Callable[..., Done]


def test_train_all_again_keeps_what_is_complete(orch: Orch, people: Path, workspace: Path) -> None:
    before = hashes(workspace)
    done = train(orch, people, workspace, "train-all", *tiny())
    assert done.code == 0, done.err
    assert done.err.count("is complete already") == 3
    assert hashes(workspace) == before


def test_retraining_one_specialist_leaves_the_others_untouched(orch: Orch, people: Path, workspace: Path) -> None:
    before = {task: hashes(workspace / f"{task}-0001") for task in ("age", "gender", "mask")}
    done = train(orch, people, workspace, "train", "age", *tiny(), "--seed", 1)
    assert done.code == 0, done.err
    assert "age-0002 is now the current age run (was age-0001); `orch runs use age-0001" in done.err
    assert {task: hashes(workspace / f"{task}-0001") for task in before} == before
    runs = {run["id"]: run for run in json.loads(orch("runs", "list", "-w", workspace, "--json").out)}
    assert [name for name, run in runs.items() if run["current"]] == ["age-0002", "gender-0001", "mask-0001"]
    assert runs["age-0002"]["seed"] == 1
    weights = [
        member["sha256"]["weights.safetensors"] for name in ("age-0001", "age-0002") for member in runs[name]["members"]
    ]
    assert len(set(weights)) == 6


def test_retraining_one_fold_shares_the_other_members(orch: Orch, people: Path, workspace: Path) -> None:
    done = train(orch, people, workspace, "train", "mask", "--fold", 2, "--seed", 5)
    assert done.code == 0, done.err
    assert "mask-0002 shares folds 0, 1 with mask-0001." in done.err
    old, new = workspace / "mask-0001", workspace / "mask-0002"
    for fold in (0, 1):
        assert hashes(old / f"fold-{fold}").items() >= {
            (name, digest) for name, digest in hashes(new / f"fold-{fold}").items()
        }
    assert (old / "fold-2/weights.safetensors").read_bytes() != (new / "fold-2/weights.safetensors").read_bytes()
    record = json.loads((new / "run.json").read_text())
    assert (record["parent"], record["retrained"], record["folds"]) == ("mask-0001", [2], [0, 1, 2])
    shutil.rmtree(old)
    assert orch("ensemble", "-w", workspace).code == 0


def test_retraining_a_fold_refuses_another_recipe_plan_or_fold(orch: Orch, people: Path, workspace: Path) -> None:
    done = train(orch, people, workspace, "train", "mask", "--fold", 2, "--set", "lr=0.5")
    assert done.code == 2
    assert "A run has one recipe" in done.err
    done = train(orch, people, workspace, "train", "mask", "--fold", 2, "--plan-seed", 9)
    assert "members of different plans never mix" in done.err
    done = train(orch, people, workspace, "train", "mask", "--fold", 7)
    assert "--fold 7: allowed: 0 to 2" in done.err
    done = train(orch, people, workspace, "train", "mask", "--fold", 1, "--base", "age-0001")
    assert "a run of the age specialist; needed: one of mask" in done.err


def test_retraining_a_fold_refuses_changed_photos_and_initial_weights(orch: Orch, people: Path, tmp_path: Path) -> None:
    copy, runs = tmp_path / "people", tmp_path / "runs"
    shutil.copytree(people, copy)
    torch.manual_seed(0)
    weights = tmp_path / "body.safetensors"
    save_file(timm.create_model("test_efficientnet").state_dict(), weights)
    first = train(orch, copy, runs, "train-all", "--tasks", "mask", *tiny("epochs=1", f"weights={weights}"))
    assert first.code == 0, first.err
    save_file({key: value + 1 for key, value in timm.create_model("test_efficientnet").state_dict().items()}, weights)
    done = train(orch, copy, runs, "train", "mask", "--fold", 1)
    assert done.code == 2
    assert "are other bytes than those mask-0001 began from. Restore them, or retrain the whole specialist" in done.err
    torch.manual_seed(0)
    save_file(timm.create_model("test_efficientnet").state_dict(), weights)
    photo = next((copy / "train" / "images").rglob("normal.*"))
    Image.open(photo).rotate(180).save(photo)
    done = train(orch, copy, runs, "train", "mask", "--fold", 1)
    assert done.code == 2
    assert "the photos changed since mask-0001 was trained: members of different data never mix" in done.err


def test_changed_data_recipe_or_plan_is_a_new_run(orch: Orch, people: Path, workspace: Path, tmp_path: Path) -> None:
    copy = tmp_path / "people"
    shutil.copytree(people, copy)
    table = pd.read_csv(copy / "train" / "train.csv", dtype=str)
    table.loc[0, "age"] = str(int(table.loc[0, "age"]) + 1)
    table.to_csv(copy / "train" / "train.csv", index=False)
    assert train(orch, copy, workspace, "train-all", *tiny(), "--tasks", "mask").code == 0
    assert train(orch, people, workspace, "train-all", *tiny("epochs=1"), "--tasks", "mask").code == 0
    assert train(orch, people, workspace, "train-all", *tiny(), "--tasks", "mask", "--plan-seed", 4).code == 0
    keys = [RunRecord.load(path.parent).key for path in sorted(workspace.glob("mask-*/run.json"))]
    assert len(keys) == len(set(keys)) == 4
    done = orch("ensemble", "-w", workspace)
    assert done.code == 2
    assert "the runs follow different fold plans" in done.err
    assert "--no-score" in done.err
    done = orch("ensemble", "-w", workspace, "--members", "mask=mask-0002")
    assert "the runs were trained on different data" in done.err
    done = orch("ensemble", "-w", workspace, "--no-score", "--json")
    assert json.loads(done.out)["evaluation"] is None


def test_a_single_split_and_training_on_everything(orch: Orch, people: Path, tmp_path: Path) -> None:
    one = tmp_path / "one"
    assert train(orch, people, one, "train-all", *tiny("epochs=1"), "--valid-only").code == 0
    found = json.loads(orch("ensemble", "-w", one, "--json").out)
    assert found["evaluation"]["label"]["people"] == 8
    everything = tmp_path / "all"
    done = orch("train-all", "--data", people / "train", "-w", everything, "--folds", 0, "--jobs", 1, *tiny("epochs=1"))
    assert done.code == 0, done.err
    assert "there will be no out-of-fold score" in done.err
    done = orch("ensemble", "-w", everything)
    assert done.code == 0
    assert "no out-of-fold score: mask-0001, gender-0001, age-0001: trained on everything" in done.out
    done = orch("predict", people / "eval" / "images", "-w", everything, "--json")
    assert len(json.loads(done.out)) == 28


def test_a_failing_fold_is_told_at_the_end_and_the_others_are_kept(
    orch: Orch, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = local.train_fold

    def fail_once(job: object) -> object:
        if job.task == "age" and job.fold == 1:
            raise MemoryError
        return real(job)

    monkeypatch.setattr(local, "train_fold", fail_once)
    runs = tmp_path / "runs"
    done = train(orch, people, runs, "train-all", *tiny("epochs=1"))
    assert done.code == 1
    assert "age-0001 fold 1: age fold 1: MemoryError" in done.err
    rows = {words[0]: " ".join(words) for line in done.out.splitlines() if (words := line.split())}
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
    monkeypatch.setattr(local, "train_fold", real)
    done = train(orch, people, runs, "train-all", *tiny("epochs=1"))
    assert done.code == 0
    assert hashes(runs / "age-0001" / "fold-0") == kept
    assert orch("ensemble", "-w", runs).code == 0


def test_without_a_store_the_weights_are_the_same(orch: Orch, people: Path, workspace: Path, tmp_path: Path) -> None:
    done = train(orch, people, tmp_path / "direct", "train-all", *tiny(), "--no-store")
    assert done.code == 0, done.err
    assert not (tmp_path / "direct" / "store").exists()
    for task in ("mask", "gender", "age"):
        place = f"{task}-0001/fold-1/weights.safetensors"
        assert (tmp_path / "direct" / place).read_bytes() == (workspace / place).read_bytes()


def test_one_photo_under_two_people_is_refused_before_training(orch: Orch, people: Path, tmp_path: Path) -> None:
    copy = tmp_path / "people"
    shutil.copytree(people, copy)
    folders = sorted((copy / "train" / "images").iterdir())
    one, other = next(folders[0].glob("normal.*")), next(folders[1].glob("normal.*"))
    other.unlink()
    shutil.copy(one, folders[1] / one.name)
    done = train(orch, copy, tmp_path / "runs", "train-all", *tiny())
    assert done.code == 2
    assert "people would leak across folds" in done.err
    assert "is listed under 2 people" in done.err
    assert orch("data", "check", "--data", copy / "train").code == 1


def test_a_retraining_keeps_plan_and_recipe_of_the_current_run(orch: Orch, people: Path, workspace: Path) -> None:
    done = orch("train", "age", "--data", people / "train", "-w", workspace, "--jobs", 1, "--set", "lr=1e-4")
    assert done.code == 0, done.err
    assert "recipe: that of age-0001 (quick with 8 changes), with lr=1e-4." in done.err
    old, new = (json.loads((workspace / name / "run.json").read_text()) for name in ("age-0001", "age-0002"))
    assert new["plan"] == old["plan"]
    assert {key for key in new["recipe"] if new["recipe"][key] != old["recipe"][key]} == {"lr"}
    assert orch("ensemble", "-w", workspace).code == 0
    done = orch("train", "age", "--data", people / "train", "-w", workspace, "--jobs", 1)
    assert "age-0002 has it already: the same recipe, data, plan and seed. --again trains it once more" in done.err
    assert not (workspace / "age-0003").exists()
    done = orch("train", "age", "--data", people / "train", "-w", workspace, "--jobs", 1, "--again")
    assert done.code == 0, done.err
    hashes_of = [hashes(workspace / name / "fold-0")["weights.safetensors"] for name in ("age-0002", "age-0003")]
    assert len(set(hashes_of)) == 1
    near = orch(
        "train", "age", "--data", people / "train", "-w", workspace, "--jobs", 1, "--set", "lr=2e-4", "--set", 'views=["flip"]',
        "--valid-only",
    )  # fmt: skip
    (line,) = [line for line in near.err.splitlines() if line.startswith("age-0003 differs only in ")]
    assert "lr (0.0001 there, 0.0002 here)" in line
    assert "views (- there, flip here)" in line
    listed = orch("runs", "list", "-w", workspace).out
    assert "quick +" in listed


def test_an_old_run_never_takes_current_back_unless_asked(orch: Orch, people: Path, workspace: Path) -> None:
    assert train(orch, people, workspace, "train", "age", "--seed", 1, *tiny("epochs=1")).code == 0
    done = train(orch, people, workspace, "train-all", *tiny())
    assert "age-0001 is complete already" in done.err
    assert "age-0002 stays the current age run" in done.err
    assert Workspace(workspace).current("age") == "age-0002"
    assert "now the current age run (was age-0002)" in orch("runs", "use", "age-0001", "-w", workspace).err
    assert "age: age-0001 (current)" in orch("ensemble", "-w", workspace).err


def test_a_kill_before_the_last_step_is_made_up_for(orch: Orch, people: Path, workspace: Path) -> None:
    assert train(orch, people, workspace, "train", "age", "--seed", 1, *tiny("epochs=1")).code == 0
    edit_sealed(workspace / "age-0002" / "run.json", make_current="auto")
    Workspace(workspace).set_current("age", "age-0001")
    (workspace / "age-0002" / "fold-0" / "checkpoint.safetensors").write_bytes(b"left behind")
    done = train(orch, people, workspace, "train", "age", "--seed", 1, *tiny("epochs=1"))
    assert "age-0002 is now the current age run (was age-0001); `orch runs use age-0001" in done.err
    assert not (workspace / "age-0003").exists()


def test_a_single_split_does_not_push_out_a_whole_run(orch: Orch, people: Path, workspace: Path) -> None:
    done = train(orch, people, workspace, "train", "age", "--valid-only", *tiny("epochs=1"))
    assert done.code == 0, done.err
    assert "age-0002 covers people of fold 0 of 3: age-0001 stays the current age run" in done.err


def test_a_fold_that_the_base_lacks_joins_it(orch: Orch, people: Path, tmp_path: Path) -> None:
    runs = tmp_path / "one"
    assert train(orch, people, runs, "train-all", "--valid-only", *tiny("epochs=1")).code == 0
    done = train(orch, people, runs, "train", "age", "--fold", 1)
    assert done.code == 0, done.err
    record = json.loads((runs / "age-0002" / "run.json").read_text())
    assert (record["folds"], record["retrained"]) == ([0, 1], [1])
    assert (runs / "age-0002" / "fold-1" / "member.json").exists()
    assert "age-0002 is now the current age run (was age-0001)" in done.err  # of two folds, where one stood


def test_a_killed_first_command_does_not_block_the_next(orch: Orch, people: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / ".workspace.json.x.tmp").write_text("{")
    assert train(orch, people, tmp_path / "runs", "train-all", *tiny("epochs=1"), "--tasks", "mask").code == 0


def test_without_a_mask_column_any_photo_of_a_person_is_drawn(orch: Orch, people: Path, tmp_path: Path) -> None:
    photos = sorted((people / "train" / "images").rglob("*.jpg"))
    table = pd.DataFrame({"path": [str(path) for path in photos], "person": [path.parent.name for path in photos]})
    table["age"] = [int(person.rsplit("_", 1)[1]) for person in table["person"]]
    table.to_csv(tmp_path / "table.csv", index=False)
    done = orch(
        "train-all", "--data", tmp_path / "table.csv", "-w", tmp_path / "runs", "--folds", 2, "--jobs", 1,
        "--tasks", "age", *tiny("epochs=1"),
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "note: the data has no mask column: age draws any photo of a person." in done.err


def test_a_retraining_keeps_a_single_split_or_no_split(orch: Orch, people: Path, tmp_path: Path) -> None:
    for words, covers, folds in (
        (["--folds", 3, "--valid-only"], "people of fold 0 of 3", [0]),
        (["--folds", 0], "nobody: trained on everything", [None]),
    ):
        runs = tmp_path / f"runs-{words[1]}"
        rest = ["--data", people / "train", "-w", runs, "--jobs", 1]
        assert orch("train-all", *rest, *words, *tiny("epochs=1")).code == 0
        done = orch("train", "age", *rest, "--seed", 1)
        assert done.code == 0, done.err
        shown = json.loads(orch("runs", "show", "age-0002", "-w", runs, "--json").out)
        assert (shown["covers"], shown["folds"]) == (covers, folds)
        assert orch("ensemble", "-w", runs).code == 0


def test_nothing_is_begun_when_an_input_is_wrong(orch: Orch, people: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    done = train(orch, people, runs, "train-all", *tiny("weights=nope.pth"))
    assert done.code == 2
    assert not runs.exists()
    copy = tmp_path / "people"
    shutil.copytree(people, copy)
    photo = next((copy / "train" / "images").rglob("mask3.jpg"))
    photo.write_bytes(photo.read_bytes()[:300])  # its header is whole: only decoding finds it
    done = train(orch, copy, runs, "train-all", *tiny())
    assert done.code == 2
    assert "1 of 168 photos cannot be read" in done.err
    assert not list(runs.glob("*-0001"))


def test_going_on_under_other_versions_is_told(orch: Orch, people: Path, workspace: Path) -> None:
    path = workspace / "age-0001" / "run.json"
    environment = json.loads(path.read_text())["environment"]
    environment["versions"]["torch"] = "1.0"
    edit_sealed(path, environment=environment, status="unfinished", make_current="auto")
    done = train(orch, people, workspace, "train-all", *tiny())
    assert done.code == 0, done.err
    assert "note: age-0001 was begun with other versions (torch 1.0 -> " in done.err


def test_a_draw_goes_by_mask_state_unless_told_otherwise(people: Path, tmp_path: Path) -> None:
    from orchestrator.pipeline.settings import Settings
    from orchestrator.pipeline.training import first_jobs, train_all
    from orchestrator.specialists import SPECIALISTS

    for change, kinds in (("draw_by=mask", {0: 5, 1: 1, 2: 1}), ("draw_by=photo", {0: 7})):
        settings = Settings(people / "train", tmp_path / "runs", changes=(*TINY, change), folds=3, jobs=1, device="cpu")
        age = {"age": SPECIALISTS["age"]}
        train_all(settings, age, Silent())
        table = first_jobs(settings, age, Silent())["age"].table
        assert table.groupby("person")["kind"].value_counts().groupby("kind").unique().map(list).to_dict() == {
            kind: [count] for kind, count in kinds.items()
        }


def test_a_training_ends_while_its_table_is_drawn() -> None:
    """The thread that draws holds rich's lock and waits for the display's; whoever stops it must hold neither."""
    from orchestrator.cli.display import TrainingDisplay

    class Drawing:
        def stop(self) -> None:
            drawn = threading.Thread(target=display._table, daemon=True)
            drawn.start()
            drawn.join(20)
            assert not drawn.is_alive(), "the display's lock is held while the table is stopped"

    display = TrainingDisplay()
    display._live = Drawing()  # type: ignore[assignment]  # all of Live that is used
    display(TrainingEnded())
    assert display._live is None


def test_the_live_table_shows_every_member_and_how_it_ended(
    people: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console

    from orchestrator.cli.display import TrainingDisplay
    from orchestrator.pipeline import training as pipeline
    from orchestrator.specialists import SPECIALISTS

    shown: list[str] = []

    class Looked(TrainingDisplay):
        def __call__(self, event: Event) -> None:
            if isinstance(event, TrainingBegun):
                self._console = Console(file=io.StringIO(), force_terminal=True, width=100)
            if isinstance(event, TrainingEnded):
                console = Console(width=100)
                with console.capture() as captured:
                    console.print(self._table())
                shown.append(captured.get())
            super().__call__(event)

    real = local.train_fold
    monkeypatch.setattr(local, "train_fold", lambda job: real(job) if job.fold != 1 else 1 / 0)
    settings = pipeline.Settings(
        people / "train", workspace, changes=(*TINY, "epochs=1"), folds=3, jobs=1, device="cpu", seed=9
    )
    report = pipeline.train_all(settings, {"age": SPECIALISTS["age"]}, Looked())
    assert list(report.failures) == [("age-0002", 1)]
    rows = [line.split() for line in shown[0].splitlines() if "age-0002" in line]
    assert [row[2] for row in rows] == ["0", "1", "2"]
    assert [row[-1] for row in rows] == ["done", "failed", "done"]
    assert "elapsed, 2 of 3 members done, 1 failed" in shown[0]


def test_a_profile_tells_where_the_time_went(orch: Orch, people: Path, tmp_path: Path) -> None:
    words = ("train-all", "--tasks", "mask", "--valid-only", "--profile", *tiny())
    done = train(orch, people, tmp_path / "runs", *words)
    assert done.code == 0, done.err
    for stage in ("read and augment", "forward", "backward", "optimiser", "score", "rest"):
        assert stage in done.out
    (entry, *_) = json.loads((tmp_path / "runs" / "mask-0001" / "fold-0" / "history.json").read_text())
    assert sum(entry["stages"].values()) == pytest.approx(entry["seconds"], rel=0.3)
    told = json.loads(train(orch, people, tmp_path / "again", *words, "--json").out)
    assert told["profile"]["mask-0001"]["backward"] > 0
    told = json.loads(train(orch, people, tmp_path / "runs", *words, "--json").out)
    assert told["profile"] == {}  # nothing was trained: the time of an earlier command is not this one's


def test_dropped_people_must_leave_somebody_to_train_on(orch: Orch, people: Path, tmp_path: Path) -> None:
    everybody = json.dumps(sorted({*read(people / "train", {}).table["person"]}))
    done = train(orch, people, tmp_path / "runs", "train-all", "--tasks", "age", *tiny(f"age.drop_people={everybody}"))
    assert done.code == 2
    assert "drop_people leaves nobody to train on for fold 0, fold 1, fold 2" in done.err
    assert not list(tmp_path.glob("runs/age-*"))
    words = ("train", "age", "--data", people / "train", "-w", tmp_path / "runs", "--folds", 0)
    done = orch(*words, *tiny(f"drop_people={everybody}"))
    assert "drop_people leaves nobody to train on for all photos" in done.err
    nobody = tiny('drop_people=["nobody"]')
    assert "no person has that key" in train(orch, people, tmp_path / "runs", "train", "age", *nobody).err


@pytest.mark.slow
def test_loading_processes_of_several_jobs_train_the_same_bits(
    orch: Callable[..., Done], people: Path, tmp_path: Path
) -> None:
    found = []
    for workers in (2, 0):
        words = tiny("epochs=1", f"workers={workers}")
        folder = tmp_path / str(workers)
        done = orch(
            "train-all", "--data", people / "train", "-w", folder, "--folds", 2, "--tasks", "mask", "--jobs", 2, *words
        )
        assert done.code == 0, done.err
        found.append([hashes(folder / "mask-0001")[f"fold-{fold}/weights.safetensors"] for fold in (0, 1)])
    assert found[0] == found[1]


def some_of(people: Path, count: int, folder: Path) -> Path:
    """The first of the synthetic people, of one age, as a table: two of one gender (either may be a fold), more of both."""
    folders = sorted((people / "train" / "images").iterdir())[:count]
    rows = [
        {
            "path": str(path),
            "person": one.name[:6],
            "gender": "female" if number > 1 else "male",
            "age": 25,
            "mask": mask_of(path.stem),
        }
        for number, one in enumerate(folders)
        for path in sorted(one.iterdir())
    ]
    folder.mkdir()
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"


def mask_of(name: str) -> str:
    return {"normal": "not_wear", "incorrect_mask": "incorrect"}.get(name, "wear")


def test_one_photo_an_epoch_is_refused_before_any_run_is_written(orch: Orch, people: Path, tmp_path: Path) -> None:
    table = some_of(people, 2, tmp_path / "two")
    words = ["train-all", "--data", table, "-w", tmp_path / "runs", "--folds", 2, "--jobs", 1, *tiny()]
    done = orch(*words)
    assert done.code == 2
    for task in ("gender", "age"):
        assert (
            f"{task}: fold 0, fold 1: one photo a person is one photo an epoch, and a network's norms need 2"
            in done.err
        )
    assert "--set sampling=per_photo" in done.err
    assert not list((tmp_path / "runs").glob("*-0001"))
    scarce = "sample_factor={wear = 0.01, incorrect = 0.01, not_wear = 0.01}"
    done = orch("train", "mask", *words[1:], "--set", f"mask.{scarce}")
    assert done.code == 2
    assert "fold 0, fold 1: there is one photo an epoch" in done.err


@pytest.mark.parametrize(
    "changes", [[], ["sampling=per_photo", "frozen_stages=2"], ["mixup=0.3", "sam=0.05", "ema=0.9"]]
)
def test_two_photos_are_enough_for_every_network_with_norms(
    orch: Orch, people: Path, changes: list[str], tmp_path: Path
) -> None:
    words = ["--data", some_of(people, 4, tmp_path / "few"), "-w", tmp_path / "runs", "--folds", 2, "--jobs", 1]
    done = orch("train-all", *words, "--tasks", "gender", *tiny("epochs=1", *changes))
    assert done.code == 0, done.err


def test_people_who_are_said_to_be_distinct_stay_so_in_whatever_is_made_of_their_run(
    orch: Orch, people: Path, tmp_path: Path
) -> None:
    path, runs = some_of(people, 4, tmp_path / "few"), tmp_path / "runs"
    table = pd.read_csv(path, dtype=str)
    first, second, *_ = table["person"].unique()
    table["person"] = table["person"].replace({first: "Kim", second: "kim"})
    table.to_csv(path, index=False)
    words = ["train", "mask", "--data", path, "-w", runs, "--folds", 2, "--jobs", 1, *tiny("epochs=1")]
    done = orch(*words)
    assert done.code == 2
    assert "--distinct-people" in done.err
    done = orch(*words, "--distinct-people")
    assert done.code == 0, done.err
    run = Workspace(runs).run("mask-0001")
    assert run.data["distinct_people"] is True
    done = orch("tta", "mask-0001", "-w", runs, "--json")
    assert done.code == 0, done.err
    before = hashes(runs / "mask-0001")["fold-1/weights.safetensors"]
    shutil.rmtree(runs / "mask-0001" / "fold-1")
    done = orch("resume", "mask-0001", "-w", runs)
    assert done.code == 0, done.err
    assert hashes(runs / "mask-0001")["fold-1/weights.safetensors"] == before
    assert Workspace(runs).run("mask-0001").data["distinct_people"] is True


def test_a_runs_minutes_are_those_of_its_own_members(orch: Orch, people: Path, workspace: Path) -> None:
    assert train(orch, people, workspace, "train", "mask", "--fold", 2, "--seed", 5).code == 0
    runs = list(Workspace(workspace).runs())
    assert len(runs) == 4
    for run in runs:  # three of them trained by one command, which took longer than each
        cards = {fold: json.loads((run.member(fold) / "member.json").read_text()) for fold in run.folds}
        assert run.seconds == pytest.approx(sum(cards[fold]["seconds"] for fold in run.own_folds))
    assert Workspace(workspace).run("mask-0002").own_folds == [2]


def test_an_interrupted_run_has_no_fold_and_its_recipe_reads_alike_everywhere(
    orch: Orch, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(job: object) -> object:
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
        patch.setattr(local, "train_fold", stop)
        done = orch(*words)
        assert done.code == 130, done.err
    (row,) = [line for line in orch("runs", "list", "-w", tmp_path / "runs").out.splitlines() if "age-0001" in line]
    assert " 0 of 2 " in row
    done = orch(*words)
    assert done.code == 0, done.err
    listed = orch("runs", "list", "-w", tmp_path / "runs").out
    rows = [line for line in f"{done.out}\n{listed}".splitlines() if "age-0001" in line and "macro" not in line]
    assert len(rows) == 2
    (recipe,) = {found[0] for row in rows if (found := re.search(r"quick \+\d+", row))}
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
    found = re.search(r"next: (orch train-all .+?)   then   (orch .+)", done.err)
    assert found, done.err
    assert "gender.lr" not in found[1]
    assert orch(*shlex.split(found[1])[1:], "--jobs", 1).code == 0
    runs = Workspace(tmp_path / "n w").runs()
    assert [run.task for run in runs] == ["age", "gender", "mask"]
    for run in runs:
        assert (run.seed, (run.plan or {})["seed"], run.recipe["batch_size"]) == (5, 4, 16)
        assert run.recipe["backbone"] == "test_efficientnet"
    assert orch(*shlex.split(found[2])[1:]).code == 0
    again = orch("train", "age", "--data", people / "train", "-w", tmp_path / "n w", "--jobs", 1)
    assert "Its seed was 5, this one's is 0." in again.err


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


def test_words_that_change_nothing_are_no_changes(orch: Orch, people: Path, tmp_path: Path) -> None:
    words = ("--data", people / "train", "-w", tmp_path / "runs", "--folds", 2, "--jobs", 1)
    done = orch("train", "mask", *words, *tiny("mask.epochs=2", "epochs=2", "patience=0"))
    assert done.code == 0, done.err
    record = json.loads((tmp_path / "runs/mask-0001/run.json").read_text())
    keys = [change.partition("=")[0].removeprefix("mask.") for change in record["changes"]]
    assert keys.count("epochs") == 1  # said twice, counted once
    assert "patience" not in keys  # it is 0 anyway
    assert f"quick +{len(keys)}" in done.out


def words_on_record(task: str, changes: Sequence[str]) -> list[str]:
    """What a run's record says was changed, of a recipe that is in order."""
    return changes_of(Settings(Path("people"), changes=changes), TRAINABLE[task], None)


def test_words_that_are_right_together_only_are_kept() -> None:
    assert words_on_record("age", ["loss=focal", "focal_gamma=3"]) == ["loss=focal", "focal_gamma=3"]
    assert words_on_record("age", ["focal_gamma=3", "lr=0.1", "loss=focal"]) == [
        "focal_gamma=3",
        "lr=0.1",
        "loss=focal",
    ]


@pytest.mark.parametrize("task", sorted(TRAINABLE))
def test_whatever_the_stages_of_a_search_try_can_be_put_on_record(task: str) -> None:
    tried = 0
    names = [name for name, value in tomllib.loads(STAGES).items() if isinstance(value, dict)]
    for space in read_stages(None, names).values():
        for point in space.points or ():
            changes = space.words(point)
            with suppress(ConfigError):  # what a recipe refuses, a search leaves out
                recipes_of(Settings(Path("people"), changes=changes), {task: TRAINABLE[task]}, None)
                tried += 1
                assert set(words_on_record(task, changes)) <= set(changes)
    assert tried > 10


def test_what_is_held_against_a_run_is_trained_by_as_many_threads(
    orch: Orch, people: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other threads add up in another order: the same settings would come to another score."""
    place = Workspace(workspace)
    monkeypatch.setattr("joblib.externals.loky.cpu_count", lambda *_, **__: 3)
    threads = place.run("age-0001").threads
    done = train(orch, people, workspace, "train", "age", "--fold", 1, "--seed", 1)
    assert done.code == 0, done.err
    assert place.run("age-0002").threads == threads
    grid = ("train", "age", "--grid", "lr=1e-3,2e-3", "--folds-used", 1, "--data", people / "train", "-w", workspace)
    assert orch(*grid).code == 0
    assert {place.run(name).threads for name in ("age-0003", "age-0004")} == {threads}
    assert train(orch, people, workspace, "train-all", *tiny("lr=0.5")).code == 0
    assert place.run("age-0005").threads == 3


def test_a_fold_that_is_trained_so_already_is_found(orch: Orch, people: Path, workspace: Path) -> None:
    done = train(orch, people, workspace, "train", "age", "--fold", 1)
    assert done.code == 0, done.err
    assert "age-0001 has fold 1 already, by the same recipe, data, plan and seed" in done.err
    assert [run.id for run in Workspace(workspace).runs("age")] == ["age-0001"]
    before = hashes(workspace / "age-0001/fold-1")["weights.safetensors"]
    done = train(orch, people, workspace, "train", "age", "--fold", 1, "--again")
    assert done.code == 0, done.err
    assert hashes(workspace / "age-0002/fold-1")["weights.safetensors"] == before


def test_the_next_step_makes_runs_that_can_be_fused(orch: Orch, people: Path, tmp_path: Path) -> None:
    place = tmp_path / "own"
    words = ("--data", people / "train", "-w", place, "--jobs", 1)
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
