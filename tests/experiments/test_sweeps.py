"""Searches: every trial is a run on record, pruned, and gone on with after a kill."""

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from safetensors.torch import save_file

from orchestrator.artifacts.run import RunRecord
from orchestrator.core.errors import StoreError
from orchestrator.experiments import curves
from orchestrator.networks.lean import timm
from orchestrator.pipeline import preparation
from orchestrator.recipes.load import load_recipes
from orchestrator.specialists import SPECIALISTS
from tests.conftest import Done, edit_sealed, hashes, tiny, train
from tests.programs import Program

pytest.importorskip("optuna", reason="the extra `sweep` is not installed")

Orch = Callable[..., Done]

SPACE = """
lr = { low = 1e-3, high = 2e-2, log = true }
loss = ["cross_entropy", "focal"]
"""


@pytest.fixture
def space(tmp_path: Path) -> Path:
    (tmp_path / "space.toml").write_text(SPACE)
    return tmp_path / "space.toml"


def words_of(people: Path, workspace: Path, space: Path, *more: object) -> list[object]:
    return [
        "sweep", "age", "--data", people / "train", "-w", workspace, "--folds", 3, "--folds-used", 1, "--jobs", 1, *tiny(),
        "--space", space, *more,
    ]  # fmt: skip


def test_every_trial_is_a_run_and_a_longer_search_goes_on(
    orch: Orch, people: Path, tmp_path: Path, space: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    real = curves.save
    monkeypatch.setattr(curves, "save", lambda figure, path: (drawn.append(figure), real(figure, path)))
    workspace, best, picture = tmp_path / "runs", tmp_path / "best.toml", tmp_path / "trials.png"
    done = orch(*words_of(people, workspace, space, "--trials", 2, "--json", "--no-prune"))
    assert done.code == 0, done.err
    short = json.loads(done.out)
    assert [trial["state"] for trial in short["trials"]] == ["complete", "complete"]
    before = hashes(workspace / "age-0002")
    done = orch(
        *words_of(people, workspace, space, "--trials", 5, "--json", "--no-prune", "--out", best, "--picture", picture)
    )
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["sweep"] == short["sweep"]
    assert result["trials"][:2] == short["trials"]
    assert len(result["trials"]) == result["requested"] == result["ended"] == 5
    assert {name: digest for name, digest in hashes(workspace / "age-0002").items() if name in before} == before
    runs = json.loads(
        orch("runs", "list", "-w", workspace, "--where", f"tag={result['sweep']} tag=sweep", "--json").out
    )
    assert [run["id"] for run in runs] == [f"age-{number:04d}" for number in range(1, 7)]
    by_id = {run["id"]: run for run in runs}
    for trial in result["trials"]:
        run = by_id[trial["run"]]
        assert trial["changes"] == [f"lr={run['recipe']['lr']!r}", f'loss="{run["recipe"]["loss"]}"']
        assert run["changes"][-2:] == [f"age.{word}" for word in trial["changes"]]
        (member,) = run["members"]
        assert trial["macro_f1"] == pytest.approx(member["macro_f1"])
        assert not run["current"]
    top = max(result["trials"], key=lambda trial: trial["macro_f1"])
    (compared,) = result["comparison"]
    assert (compared["run"], compared["macro_f1"]) == (top["run"], pytest.approx(top["macro_f1"]))
    assert compared["gain"] == pytest.approx(top["macro_f1"] - result["reference"]["macro_f1"])
    assert set(result["importance"]) <= {"lr", "loss"}
    assert all(0 <= share <= 1 for share in result["importance"].values())
    assert result["trials"][result["best"]]["macro_f1"] == top["macro_f1"]
    recipe = load_recipes({"age": SPECIALISTS["age"]}, [str(best)])["age"]
    winner = top["run"] if top["macro_f1"] > result["reference"]["macro_f1"] else result["reference"]["run"]
    assert recipe.digest() == load_recipes({"age": SPECIALISTS["age"]}, [], [], {"age": type(recipe)(**by_id[winner]["recipe"])})[
        "age"
    ].digest()  # fmt: skip
    assert picture.read_bytes().startswith(b"\x89PNG")
    best_so_far, scores = drawn[0].axes[0].lines[:2]
    macro_f1 = [trial["macro_f1"] for trial in result["trials"]]
    assert scores.get_ydata().tolist() == macro_f1
    assert best_so_far.get_ydata().tolist() == np.maximum.accumulate(macro_f1).tolist()
    shown = orch(*words_of(people, workspace, space, "--trials", 5, "--no-prune"))
    assert "5 of 5 trials" in shown.out
    assert "(the recipe as it is)" in shown.out
    better = top["macro_f1"] > result["reference"]["macro_f1"]
    assert ("over all folds: orch train age" in shown.err) is better
    assert f"5 of 5 trials ended; best so far {top['macro_f1']:.4f} (trial {result['best']})." in done.err
    assert not list(workspace.glob("age-0007*"))


def test_a_trial_below_the_median_is_pruned_and_can_be_trained_to_its_end(
    orch: Orch, people: Path, tmp_path: Path
) -> None:
    workspace, space = tmp_path / "runs", tmp_path / "rates.toml"
    # Rates that learn come first or late as the draw has it; those of 1e-6 cannot pass a bar once four are complete.
    space.write_text("lr = [1e-6, 1.1e-6, 1.2e-6, 1.3e-6, 1.4e-6, 8e-3, 1e-2, 1.2e-2, 1.4e-2, 1.6e-2]")
    words = words_of(people, workspace, space, "--trials", 10, "--json", "--set", "epochs=6")
    done = orch(*words)
    assert done.code == 0, done.err
    result = json.loads(done.out)
    stopped = [trial for trial in result["trials"] if trial["state"] == "pruned"]
    assert stopped
    assert all("below 0." in trial["why"] and trial["macro_f1"] is None for trial in stopped)
    assert min(trial["number"] for trial in stopped) >= 4
    record = RunRecord.load(workspace / stopped[0]["run"])
    assert not record.complete
    listed = json.loads(orch("runs", "list", "-w", workspace, "--where", "tag=pruned", "--json").out)
    assert [run["id"] for run in listed] == sorted(trial["run"] for trial in stopped)
    assert (workspace / record.id / "fold-0/checkpoint.pt").exists() or list(
        (workspace / record.id / "fold-0").glob("checkpoint*")
    )
    lr = record.recipe["lr"]
    grown = ("train", "age", *tiny("epochs=6", f"lr={lr}"), "--folds-used", 1)
    done = train(orch, people, workspace, *grown)
    assert done.code == 0, done.err
    assert RunRecord.load(workspace / record.id).complete
    done = train(orch, people, tmp_path / "whole", *grown)
    assert done.code == 0, done.err
    names = ("weights.safetensors", "held_out.parquet")
    continued, whole = (hashes(folder / "fold-0") for folder in (workspace / record.id, tmp_path / "whole/age-0001"))
    assert [continued[name] for name in names] == [whole[name] for name in names]


def test_a_search_trains_a_damaged_member_of_an_unfinished_run_again(
    orch: Orch, people: Path, tmp_path: Path, space: Path
) -> None:
    words = words_of(people, tmp_path / "runs", space, "--trials", 1)
    assert orch(*words).code == 0
    run = tmp_path / "runs/age-0001"  # the recipe as it is
    edit_sealed(run / "run.json", status="unfinished", files={})  # as a kill leaves it
    (run / "fold-0/member.json").write_bytes(b"{")
    done = orch(*words)
    assert done.code == 0, done.err
    assert "age-0001 trains it again" in done.err
    assert RunRecord.load(run).complete


def test_a_search_whose_trials_all_fail_stops_and_goes_on_when_the_cause_is_gone(
    orch: Orch, people: Path, tmp_path: Path
) -> None:
    space, weights = tmp_path / "space.toml", tmp_path / "gone.safetensors"
    space.write_text(f'lr = {{ low = 1e-3, high = 1e-2 }}\nnet = [{{ weights = "{weights}" }}]\n')
    for _ in range(2):  # what failed in an earlier command may have been put right
        done = orch(*words_of(people, tmp_path / "runs", space, "--trials", 8))
        assert done.code == 2
        assert "the first 4 trials of this command all failed" in done.err
        assert f"weights = '{weights}'" in done.err
    assert "run the same command again, with more --trials: it goes on with other points." in done.err
    save_file(timm.create_model("test_efficientnet").state_dict(), weights)
    done = orch(*words_of(people, tmp_path / "runs", space, "--trials", 9, "--json"))
    assert done.code == 0, done.err
    assert [trial["state"] for trial in json.loads(done.out)["trials"]] == [*["failed"] * 8, "complete"]


def test_a_point_that_draws_too_few_photos_fails_alone(orch: Orch, people: Path, tmp_path: Path) -> None:
    space = tmp_path / "space.toml"
    space.write_text('sample_factor = [{ "<30" = 0.01, "30-59" = 0.01, ">=60" = 0.01 }, { "<30" = 2 }]\n')
    done = orch(*words_of(people, tmp_path / "runs", space, "--trials", 2, "--json"))
    assert done.code == 0, done.err
    assert {trial["state"] for trial in json.loads(done.out)["trials"]} == {"failed", "complete"}
    assert "a network's norms need 2 at least" in done.err


def test_a_full_disk_fails_no_trial(
    orch: Orch, people: Path, tmp_path: Path, space: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = words_of(people, tmp_path / "runs", space, "--trials", 1, "--json")
    real, built = preparation.build_stores, []

    def full(*given: Any) -> Any:
        built.append(given)
        if len(built) == 2:  # the trial's, after that of the recipe as it is
            raise StoreError("No space left for the pixel store.")
        return real(*given)

    monkeypatch.setattr(preparation, "build_stores", full)
    done = orch(*words)
    assert done.code == 2
    assert "No space left for the pixel store." in done.err
    done = orch(*words)
    assert done.code == 0, done.err
    assert [trial["state"] for trial in json.loads(done.out)["trials"]] == ["complete"]


@pytest.mark.slow
def test_a_search_killed_at_random_moments_ends_as_one_that_was_not(people: Path, tmp_path: Path, space: Path) -> None:
    def start(workspace: Path) -> Program:
        words = [*map(str, words_of(people, workspace, space, "--trials", "6", "--json", "--set", "epochs=8"))]
        (tmp_path / f"{workspace.name}.json").unlink(missing_ok=True)
        return Program(words, tmp_path / f"{workspace.name}.log", tmp_path / f"{workspace.name}.json")

    assert start(tmp_path / "whole").wait() == 0, (tmp_path / "whole.log").read_text()
    draw, kills = random.Random(1), 0
    for begun in (1, 2, 4, 5):  # of the six trials' trainings; a while later it is killed
        process = start(tmp_path / "killed")
        while process.poll() is None and len(list(tmp_path.glob("killed/age-*/fold-0/history.json"))) < begun:
            time.sleep(0.05)
        time.sleep(draw.uniform(0, 0.3))
        kills += process.poll() is None
        process.kill()
    assert kills >= 2
    assert start(tmp_path / "killed").wait() == 0, (tmp_path / "killed.log").read_text()
    whole, killed = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("whole", "killed"))
    assert [(trial["changes"], trial["macro_f1"], trial["state"]) for trial in whole["trials"]] == [
        (trial["changes"], trial["macro_f1"], trial["state"]) for trial in killed["trials"]
    ]


def test_a_search_of_few_points_draws_some_twice_and_shows_when_runs_are_deleted(
    orch: Orch, people: Path, tmp_path: Path
) -> None:
    workspace, space = tmp_path / "runs", tmp_path / "space.toml"
    space.write_text("drop_rate = { low = 0.0, high = 0.4, step = 0.4 }\n")
    words = words_of(people, workspace, space, "--jobs", 2, "--no-prune", "--json")
    done = orch(*words, "--trials", 6)
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert {trial["state"] for trial in result["trials"]} == {"complete"}
    runs = {tuple(trial["changes"]): trial["run"] for trial in result["trials"]}
    assert len(runs) == 2  # six trials, two points
    best = next(trial["run"] for trial in result["trials"] if trial["number"] == result["best"])
    assert orch("runs", "delete", best, "-y", "-w", workspace).code == 0
    done = orch(*words, "--trials", 6)
    assert done.code == 0, done.err
    assert "were deleted: their scores count, nothing else is left." in done.err


def test_a_search_with_extra_photos_is_another_one(orch: Orch, people: Path, tmp_path: Path, space: Path) -> None:
    photo = sorted((people / "eval/images").iterdir())[0]
    (tmp_path / "extra.csv").write_text(f"path,age\n{photo},61\n")
    names = []
    for more in ((), ("--extra", tmp_path / "extra.csv")):
        done = orch(*words_of(people, tmp_path / "runs", space, "--trials", 1, "--json", *more))
        assert done.code == 0, done.err
        names.append(json.loads(done.out)["sweep"])
    assert names[0] != names[1]


def test_the_recipe_as_it_is_may_win(orch: Orch, people: Path, tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_text("clip_norm = [1.0, 1.0]\n")
    done = orch(*words_of(people, tmp_path / "runs", tmp_path / "space.toml", "--trials", 2))
    assert done.code == 0, done.err
    assert "best: age-0001, the recipe as it is." in done.err + done.out


def test_a_search_that_finds_nothing_better_says_so(orch: Orch, people: Path, tmp_path: Path) -> None:
    """Rates too low to learn at: the recipe as it is stays, also as the file of the best recipe."""
    (tmp_path / "space.toml").write_text("lr = [1e-9, 2e-9]\n")
    more = ("--trials", 2, "--set", "epochs=6", "--out", tmp_path / "best.toml")
    done = orch(*words_of(people, tmp_path / "runs", tmp_path / "space.toml", *more))
    assert done.code == 0, done.err
    assert "no trial scores above the recipe as it is (age-0001). The best, age-000" in done.err
    assert "over age-0001" not in done.err
    best = load_recipes({"age": SPECIALISTS["age"]}, [str(tmp_path / "best.toml")])["age"]
    assert best.digest() == RunRecord.load(tmp_path / "runs/age-0001").checked_recipe().digest()


def test_what_was_not_tried_is_not_called_tried(
    orch: Orch, people: Path, tmp_path: Path, space: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = orch(*words_of(people, tmp_path / "runs", space, "--trials", 3, "--minutes", 0))
    assert done.code == 0, done.err
    assert "time ran out: 0 of 3 trials ended." in done.err
    assert "nothing was tried: time ran out before a trial ended." in done.err
    stages = tmp_path / "stages.toml"
    stages.write_text('[loss]\nloss = ["focal", "cross_entropy"]\n[rate]\nlr = [1e-6, 2e-6]\n')
    words = [
        "sweep", "age", "--data", people / "train", "-w", tmp_path / "runs", "--folds", 3, "--folds-used", 1, "--jobs", 1,
        *tiny(), "--space", stages, "--stages", "loss,rate",
    ]  # fmt: skip
    done = orch(*words, "--minutes", 0)
    assert done.code == 0, done.err
    assert done.err.count("time ran out before it began: not tried.") == 2
    assert "Time ran out: no trial of loss, rate ended." in done.err
    assert "as good as what was tried" not in done.err
    assert "could be trained" not in done.err
    results = json.loads(orch(*words, "--minutes", 0, "--json").out)
    assert [(result["tried"], result["out_of_time"]) for result in results] == [(0, True), (0, True)]
