"""Searches from the command line: trials on record, pruned, gone on with after a kill; tuning in stages."""

import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from orchestrator.artifacts.run import RunRecord
from orchestrator.core.errors import DamagedError
from orchestrator.experiments.search import Search
from orchestrator.recipes.load import load_recipes
from orchestrator.recipes.spaces import parse_space
from orchestrator.specialists import SPECIALISTS
from tests.conftest import Done, hashes, tiny, train
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
    orch: Orch, people: Path, tmp_path: Path, space: Path
) -> None:
    place, best, picture = tmp_path / "runs", tmp_path / "best.toml", tmp_path / "trials.png"
    done = orch(*words_of(people, place, space, "--trials", 2, "--json", "--no-prune"))
    assert done.code == 0, done.err
    short = json.loads(done.out)
    assert [one["state"] for one in short["trials"]] == ["complete", "complete"]
    before = hashes(place / "age-0002")
    done = orch(
        *words_of(people, place, space, "--trials", 5, "--json", "--no-prune", "--out", best, "--picture", picture)
    )
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["sweep"] == short["sweep"]
    assert found["trials"][:2] == short["trials"]
    assert len(found["trials"]) == 5
    assert {name: digest for name, digest in hashes(place / "age-0002").items() if name in before} == before
    runs = json.loads(orch("runs", "list", "-w", place, "--where", f"tag={found['sweep']} tag=sweep", "--json").out)
    assert [run["id"] for run in runs] == [f"age-{number:04d}" for number in range(1, 7)]
    by_id = {run["id"]: run for run in runs}
    for trial in found["trials"]:
        run = by_id[trial["run"]]
        assert trial["changes"] == [f"lr={run['recipe']['lr']!r}", f'loss="{run["recipe"]["loss"]}"']
        assert run["changes"][-2:] == [f"age.{word}" for word in trial["changes"]]
        (member,) = run["members"]
        assert trial["macro_f1"] == pytest.approx(member["macro_f1"])
        assert not run["current"]
    top = max(found["trials"], key=lambda one: one["macro_f1"])
    assert found["trials"][found["best"]]["macro_f1"] == top["macro_f1"]
    recipe = load_recipes({"age": SPECIALISTS["age"]}, [str(best)])["age"]
    winner = top["run"] if top["macro_f1"] > found["reference"]["macro_f1"] else found["reference"]["run"]
    assert recipe.digest() == load_recipes({"age": SPECIALISTS["age"]}, [], [], {"age": type(recipe)(**by_id[winner]["recipe"])})[
        "age"
    ].digest()  # fmt: skip
    with Image.open(picture) as image:
        assert image.width > 700
    shown = orch(*words_of(people, place, space, "--trials", 5, "--no-prune"))
    assert "5 of 5 trials" in shown.out
    assert "(the recipe as it is)" in shown.out
    better = top["macro_f1"] > found["reference"]["macro_f1"]
    assert ("over all folds: orch train age" in shown.err) is better
    assert f"5 of 5 trials ended; best so far {top['macro_f1']:.4f} (trial {found['best']})." in done.err
    assert not list(place.glob("age-0007*"))


def test_a_trial_below_the_median_is_pruned_and_can_be_trained_to_its_end(
    orch: Orch, people: Path, tmp_path: Path
) -> None:
    place, space = tmp_path / "runs", tmp_path / "rates.toml"
    # Rates that learn come first or late as the draw has it; those of 1e-6 cannot pass a bar once four are complete.
    space.write_text("lr = [1e-6, 1.1e-6, 1.2e-6, 1.3e-6, 1.4e-6, 8e-3, 1e-2, 1.2e-2, 1.4e-2, 1.6e-2]")
    words = words_of(people, place, space, "--trials", 10, "--json", "--set", "epochs=6")
    done = orch(*words)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    stopped = [one for one in found["trials"] if one["state"] == "pruned"]
    assert stopped
    assert all("below 0." in one["why"] and one["macro_f1"] is None for one in stopped)
    assert min(one["number"] for one in stopped) >= 4
    record = RunRecord.load(place / stopped[0]["run"])
    assert not record.complete
    listed = json.loads(orch("runs", "list", "-w", place, "--where", "tag=pruned", "--json").out)
    assert [run["id"] for run in listed] == sorted(one["run"] for one in stopped)
    assert (place / record.id / "fold-0/checkpoint.pt").exists() or list(
        (place / record.id / "fold-0").glob("checkpoint*")
    )
    lr = record.recipe["lr"]
    grown = ("train", "age", *tiny("epochs=6", f"lr={lr}"), "--folds-used", 1)
    done = train(orch, people, place, *grown)
    assert done.code == 0, done.err
    assert RunRecord.load(place / record.id).complete
    done = train(orch, people, tmp_path / "whole", *grown)
    assert done.code == 0, done.err
    names = ("weights.safetensors", "held_out.parquet")
    one, other = (hashes(folder / "fold-0") for folder in (place / record.id, tmp_path / "whole/age-0001"))
    assert [one[name] for name in names] == [other[name] for name in names]


def test_stages_move_the_recipe_for_more_than_noise_only(orch: Orch, people: Path, tmp_path: Path) -> None:
    place, stages = tmp_path / "runs", tmp_path / "stages.toml"
    stages.write_text(
        '[loss]\nloss = ["focal", "cross_entropy"]\n[rate]\nlr = [1e-6, 2e-6]\n[tta]\nviews = [["flip"]]\n'
    )
    words = [
        "sweep", "mask", "--data", people / "train", "-w", place, "--folds", 2, "--jobs", 1,
        *tiny("lr=8e-3", "epochs=8", "height=64", "width=48"), "--space", stages, "--stages", "loss,rate,tta", "--small", 0.7,
    ]  # fmt: skip
    done = orch(*words, "--json", "--out", tmp_path / "tuned.toml")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert [one["stage"] for one in found] == ["loss", "rate", "tta"]
    for before, after in pairwise(found):
        assert after["before"] == before["after"]
    for one in found:
        low, high = one["gain_interval_95"]
        assert one["moved"] is ("the recipe moves" in one["why"])
        if low > 0:
            assert one["moved"]
        if high < 0:
            assert not one["moved"]
    rate = found[1]
    assert (rate["moved"], rate["after"], rate["tried"]) == (False, rate["before"], 2)  # nothing learns at 1e-6
    runs = {run["id"]: run for run in json.loads(orch("runs", "list", "-w", place, "--json").out)}
    assert runs[found[2]["best"]]["recipe"]["views"] == ["flip"]
    assert runs[found[2]["best"]]["parent"] == found[2]["before"]
    sizes = {(run["recipe"]["height"], run["recipe"]["width"]) for run in runs.values()}
    assert sizes == {(64, 48), (48, 32)}
    assert all((runs[one["best"]]["recipe"]["height"]) == 64 for one in found)
    assert all("tuning" in run["tags"] for run in runs.values() if run["parent"] is None)
    assert not (place / "current").exists()
    count = len(runs)
    done = orch(*words)
    assert done.code == 0, done.err
    assert "stage by stage" in done.out
    assert len(json.loads(orch("runs", "list", "-w", place, "--json").out)) == count  # all of it is found


@pytest.mark.parametrize(("more", "told"), [
    (("--out", "best.txt"), "give a name that ends in .toml"),
    (("--stages", "los"), "no stage is called 'los'"),
    (("--stages", "lr", "--picture", "x.png"), "--picture draws the trials of one search"),
    (("--set", "lr=fast"), "lr = 'fast'"),
    (("--folds-used", 9), "--folds-used 9; the plan has 3 folds"),
])  # fmt: skip
def test_wrong_words_are_told_before_any_training(
    orch: Orch, people: Path, tmp_path: Path, space: Path, more: tuple[object, ...], told: str
) -> None:
    done = orch(*words_of(people, tmp_path / "runs", space, *more))
    assert done.code == 2
    assert told in done.err
    assert not list(tmp_path.glob("runs/*-*/run.json"))


def test_without_data_or_optuna_it_says_what_to_do(
    orch: Orch, people: Path, tmp_path: Path, space: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "--data is missing" in orch("sweep", "age").err
    assert "'ag' is no specialist; allowed: mask, gender, age, joint. Did you mean 'age'?" in orch("sweep", "ag").err
    monkeypatch.setitem(sys.modules, "optuna", None)
    done = orch(*words_of(people, tmp_path / "runs", space))
    assert done.code == 2
    assert "pip install -e '.[sweep]'" in done.err
    for words in (("--print-space",), ("--print-space", "--stages", "loss")):
        printed = orch("sweep", "age", *words)
        assert printed.code == 0
        assert "lr = { low = 3e-4" in printed.out


def test_a_search_whose_trials_all_fail_stops(orch: Orch, people: Path, tmp_path: Path) -> None:
    space = tmp_path / "space.toml"
    space.write_text('net = [{ backbone = "resnet18", weights = "gone.safetensors" }, '
                     '{ backbone = "resnet34", weights = "gone.safetensors" }]\n'
                     "lr = { low = 1e-3, high = 1e-2 }\n")  # fmt: skip
    done = orch(*words_of(people, tmp_path / "runs", space, "--trials", 30))
    assert done.code == 2
    assert "the first 4 trials all failed" in done.err
    assert "gone.safetensors" in done.err


@pytest.mark.slow
def test_a_search_killed_at_random_moments_ends_as_one_that_was_not(people: Path, tmp_path: Path, space: Path) -> None:
    def start(place: Path) -> Program:
        words = [*map(str, words_of(people, place, space, "--trials", "6", "--json", "--set", "epochs=8"))]
        (tmp_path / f"{place.name}.json").unlink(missing_ok=True)
        return Program(words, tmp_path / f"{place.name}.log", tmp_path / f"{place.name}.json")

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
    assert [(one["changes"], one["macro_f1"], one["state"]) for one in whole["trials"]] == [
        (one["changes"], one["macro_f1"], one["state"]) for one in killed["trials"]
    ]


def test_a_search_of_few_points_draws_some_twice_and_shows_when_runs_are_deleted(
    orch: Orch, people: Path, tmp_path: Path
) -> None:
    place, space = tmp_path / "runs", tmp_path / "space.toml"
    space.write_text("drop_rate = { low = 0.0, high = 0.4, step = 0.4 }\n")
    words = words_of(people, place, space, "--jobs", 2, "--no-prune", "--json")
    done = orch(*words, "--trials", 6)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert {one["state"] for one in found["trials"]} == {"complete"}
    runs = {tuple(one["changes"]): one["run"] for one in found["trials"]}
    assert len(runs) == 2  # six trials, two points
    best = next(one["run"] for one in found["trials"] if one["number"] == found["best"])
    assert orch("runs", "delete", best, "-y", "-w", place).code == 0
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
    assert best.lr > 1e-9 * 2


@pytest.mark.parametrize(("text", "told"), [
    ("lr = { low = 1e-4, high = inf }", "finite"),
    ("lr = { low = nan, high = 1 }", "finite"),
])  # fmt: skip
def test_ranges_without_end_are_refused(orch: Orch, people: Path, tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "space.toml").write_text(text + "\n")
    done = orch(*words_of(people, tmp_path / "runs", tmp_path / "space.toml"))
    assert done.code == 2
    assert told in done.err


def test_whole_ends_with_broken_steps_are_broken_numbers(tmp_path: Path) -> None:
    search = Search(tmp_path / "search.db", parse_space("weight_decay = { low = 0, high = 1, step = 0.5 }", "here"), 0)
    drawn = {search.ask(1)[0].changes[0] for _ in range(1)}
    assert drawn <= {"weight_decay=0", "weight_decay=0.0", "weight_decay=0.5", "weight_decay=1", "weight_decay=1.0"}


def test_stages_without_held_out_people_are_refused_before_any_training(
    orch: Orch, people: Path, tmp_path: Path
) -> None:
    done = orch(
        "sweep", "age", "--data", people / "train", "-w", tmp_path / "runs", "--folds", 0, "--stages", "loss", *tiny()
    )
    assert done.code == 2
    assert "--folds 0 holds nobody out" in done.err
    assert not list(tmp_path.glob("runs/*-*/run.json"))


@pytest.mark.parametrize("name", ["w?1", "a#b %20 {x}", "한 글"])
def test_any_letter_may_be_in_a_workspaces_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / name / "sweeps/age-1.db"
    first = opened(file)
    drawn = first.ask(3)
    first.close()
    assert sorted(path.name for path in file.parent.iterdir()) == ["age-1.db", "age-1.json"]
    assert [path.name for path in tmp_path.iterdir()] == [name]
    again = opened(file)
    assert again.ask(3) == drawn
    again.close()


def opened(file: Path) -> Search:
    return Search(file, parse_space(SPACE, "here"), 0)


def damages(file: Path, other: Path) -> dict[str, Callable[[], object]]:
    """Whatever may have happened to a file, done for real."""
    data = bytearray(file.read_bytes())
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1

    def replaced(act: Callable[[], object]) -> Callable[[], object]:
        return lambda: (file.unlink(), act())

    return {
        "truncated": lambda: file.write_bytes(data[: len(data) // 2]), "empty": lambda: file.write_bytes(b""),
        "flipped": lambda: file.write_bytes(flipped), "another's": lambda: file.write_bytes(other.read_bytes()),
        "no database": lambda: file.write_bytes(b"{}"), "folder": replaced(file.mkdir),
        "link": replaced(lambda: file.symlink_to(file.parent / "nowhere")),
    }  # fmt: skip


HOW = ("deleted", "truncated", "empty", "flipped", "another's", "no database", "folder", "link")
SEALED = [(suffix, how, False) for suffix in ("db", "json") for how in HOW]
UNSEALED = [("db", how, True) for how in HOW if how != "flipped"]  # SQLite's own check, which does not see every bit


@pytest.mark.parametrize(("suffix", "how", "killed"), SEALED + UNSEALED)
def test_a_damaged_memory_is_told_with_a_way_out_that_works(
    tmp_path: Path, suffix: str, how: str, killed: bool
) -> None:
    drawn = {}
    for name in ("age-1", "age-2"):
        search = opened(tmp_path / f"{name}.db")
        drawn[name] = search.ask(3)
        search.close()
    db, file = tmp_path / "age-1.db", tmp_path / f"age-1.{suffix}"
    if killed:  # before the seal was written
        (tmp_path / "age-1.json").unlink()
    if how == "deleted":
        file.unlink()
    else:
        damages(file, tmp_path / f"age-2.{suffix}")[how]()
    if how == "deleted" or (killed and how == "empty"):
        search = opened(db)
        assert search.database_missing is (suffix == "db" and not killed)
        assert search.ask(3) == drawn["age-1"]  # begun anew, the same draws; or gone on with
        search.close()
        return
    with pytest.raises(DamagedError) as error:
        opened(db)
    assert str(file) in str(error.value)
    way_out = re.search(r"`(mv [^`]+)`", str(error.value))
    assert way_out, error.value
    subprocess.run(["bash", "-c", way_out[1]], check=True)
    search = opened(db)
    assert search.ask(3) == drawn["age-1"]
    search.close()
    opened(db).close()


def test_what_was_not_tried_is_not_called_tried(
    orch: Orch, people: Path, tmp_path: Path, space: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = orch(*words_of(people, tmp_path / "runs", space, "--trials", 3, "--minutes", 0))
    assert done.code == 0, done.err
    assert "the time is over: 0 of 3 trials ended." in done.err
    assert "nothing was tried: the time was over before a trial ended." in done.err
    stages = tmp_path / "stages.toml"
    stages.write_text('[loss]\nloss = ["focal", "cross_entropy"]\n[rate]\nlr = [1e-6, 2e-6]\n')
    words = [
        "sweep", "age", "--data", people / "train", "-w", tmp_path / "runs", "--folds", 3, "--folds-used", 1, "--jobs", 1,
        *tiny(), "--space", stages, "--stages", "loss,rate",
    ]  # fmt: skip
    done = orch(*words, "--minutes", 0)
    assert done.code == 0, done.err
    assert done.err.count("the time was over before it began: not tried.") == 2
    assert "The time was over: no trial of loss, rate ended." in done.err
    assert "as good as what was tried" not in done.err
    assert "could be trained" not in done.err
    found = json.loads(orch(*words, "--minutes", 0, "--json").out)
    assert [(one["tried"], one["out_of_time"]) for one in found] == [(0, True), (0, True)]
