"""Photos from elsewhere and pseudo-labels: they join training, never scoring, and nothing leaks through them."""

import json
import re
import shlex
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.artifacts.origins import plan_of
from orchestrator.artifacts.run import RunRecord
from orchestrator.artifacts.workspace import Workspace
from orchestrator.core.errors import DataError
from orchestrator.core.labels import CLASSES, TASKS
from orchestrator.data.extra import EVERY_FOLD, read_extra
from orchestrator.data.store import JoinedRows
from orchestrator.networks.heads import SoftAgeHead
from orchestrator.pipeline.inputs import read_inputs
from orchestrator.pipeline.preparation import RunJob, missing_jobs
from orchestrator.pipeline.settings import Settings
from orchestrator.specialists import SPECIALISTS, TRAINABLE
from tests.conftest import TINY, Done, hashes, member_files, tiny, train
from tests.programs import Program

Orch = Callable[..., Done]


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six other synthetic people with a table: two of them without a mask word, two with a band for an age."""
    from orchestrator.data.contest import read_contest
    from orchestrator.synthetic.people import write_people

    root = tmp_path_factory.mktemp("others")
    write_people(root, 6, 2, seed=99)
    photos = read_contest(root / "train")[0]
    table = photos.table.assign(path=[f"train/{path}" for path in photos.table["path"]])
    table["person"] = "x-" + table["person"]
    names = sorted(table["person"].unique())
    table["age"] = table["age"].astype(str)
    table.loc[table["person"].isin(names[:2]), "mask"] = ""
    table.loc[table["person"].isin(names[2:4]), "age"] = "30-59"
    table.to_csv(root / "extra.csv", index=False)
    return root / "extra.csv"


class NoPixels:
    """Jobs are looked at and not run."""

    def take(self, rows: np.ndarray) -> np.ndarray:
        raise AssertionError("nobody trains here")


def jobs_of(people: Path, workspace: Path, extra: Path, task: str, *changes: str, k: int = 3) -> list[object]:
    settings = Settings(
        people / "train", workspace, changes=(*TINY, *changes), folds=k, jobs=1, device="cpu", extra=[extra]
    )
    inputs = read_inputs(settings, {task: TRAINABLE[task]})
    record = RunRecord.load(workspace / "age-0001")
    record.id, record.task, record.folder = "new", task, workspace / "new-0001"
    return list(missing_jobs([RunJob(settings, TRAINABLE[task], inputs, record, NoPixels())]))


@pytest.mark.parametrize("how", ["one bit", "empty", "a folder", "of another"])
def test_damaged_hashes_of_extra_photos_are_counted_anew(people: Path, workspace: Path, others: Path, how: str) -> None:
    settings = Settings(people / "train", workspace, changes=TINY, folds=3, jobs=1, device="cpu", extra=[others])
    right = read_inputs(settings, {"age": TRAINABLE["age"]}).extra_of("age")
    assert right
    kept = workspace / "cache" / "extra_hashes.json"
    data = kept.read_bytes()
    kept.unlink()
    if how == "a folder":
        kept.mkdir()
    elif how == "of another":
        kept.write_bytes((workspace / "cache" / "hashes.json").read_bytes())
    else:
        at = data.index(b'": "') + 6  # in the first photo's hash
        kept.write_bytes(b"" if how == "empty" else data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    assert read_inputs(settings, {"age": TRAINABLE["age"]}).extra_of("age") == right
    assert kept.is_file()


def test_a_member_learns_from_extra_photos_that_tell_its_class_and_is_scored_on_none(
    people: Path, workspace: Path, others: Path
) -> None:
    table = pd.read_csv(others, dtype=str, keep_default_na=False)
    for task, count in (
        ("age", 42),
        ("mask", int((table["mask"] != "").sum())),
        ("joint", int((table["mask"] != "").sum())),
    ):
        for job in jobs_of(people, workspace, others, task):
            extra = job.table["extra"].to_numpy()
            assert extra.sum() == 42
            assert not extra[job.held_out].any()
            assert extra[job.train].sum() == count
            own = job.table[~extra]
            assert not set(own["person"].iloc[job.held_out]) & set(job.table["person"].iloc[job.train])
    (job, *_) = jobs_of(people, workspace, others, "age", "loss=soft_age")
    bands = job.table[job.table["extra"] & (job.table["target"] < 0)]
    assert len(bands) == 14
    assert (bands["target"] == -2).all()  # -1 - the code of 30-59
    assert (bands["truth"] == 1).all()
    (job, *_) = jobs_of(people, workspace, others, "age", "loss=cross_entropy")
    assert set(job.table["target"]) <= {0, 1, 2}


def test_extra_photos_are_drawn_by_their_factor(people: Path, workspace: Path, others: Path) -> None:
    def persons(*changes: str) -> int:
        (job, *_) = jobs_of(people, workspace, others, "age", "batch_size=2", *changes)
        return job.photos_per_epoch

    plain = 16
    assert persons() == plain + 6
    assert persons("extra_factor=0.5") == plain + 2  # 3, and a last batch that is not full
    assert persons("extra_factor=2") == plain + 12


def test_a_person_who_is_held_out_is_not_learnt_from_elsewhere(
    people: Path, workspace: Path, others: Path, tmp_path: Path
) -> None:
    table = pd.read_csv(others, dtype=str, keep_default_na=False)
    record = RunRecord.load(workspace / "age-0001")
    assert record.plan is not None
    plan = plan_of(Workspace(workspace), record)
    person = sorted(plan.fold_of)[0]
    table["person"] = table["person"].where(table["person"] != table["person"].iloc[0], person)
    table["path"] = [str(others.parent / path) for path in table["path"]]
    table.to_csv(tmp_path / "known.csv", index=False)
    for job in jobs_of(people, workspace, tmp_path / "known.csv", "age"):
        learnt = person in set(job.table["person"].iloc[job.train])
        assert learnt is (job.fold != plan.fold_of[person])


def test_what_would_leak_is_refused(orch: Orch, people: Path, workspace: Path, others: Path, tmp_path: Path) -> None:
    photo = next(iter(sorted((people / "train/images").rglob("*.*"))))
    shutil.copy(photo, tmp_path / "copy.jpg")
    (tmp_path / "twin.csv").write_text("path,mask\ncopy.jpg,wear\n")
    done = train(orch, people, workspace, "train", "mask", *tiny(), "--extra", tmp_path / "twin.csv")
    assert done.code == 2
    assert "would be trained on and scored" in done.err
    assert photo.name in done.err
    table = pd.read_csv(others, dtype=str, keep_default_na=False)
    table["path"] = [str(others.parent / path) for path in table["path"]]
    for more, told in (
        ({"fold": "0"}, "without saying by which plan"), ({"fold": "0", "plan": "0123456789ab"}, "made by plan 0123456789ab"),
    ):  # fmt: skip
        table.assign(**more).to_csv(tmp_path / "folds.csv", index=False)
        done = train(orch, people, workspace, "train", "age", *tiny(), "--extra", tmp_path / "folds.csv")
        assert done.code == 2
        assert told in done.err
    digest = json.loads((workspace / "age-0001/run.json").read_text())["plan"]["digest"]
    table.head(1).assign(fold="0", plan=digest[:12]).to_csv(tmp_path / "planned.csv", index=False)
    table.tail(1).assign(fold="0").to_csv(tmp_path / "unplanned.csv", index=False)
    both = [word for name in ("planned", "unplanned") for word in ("--extra", tmp_path / f"{name}.csv")]
    done = train(orch, people, workspace, "train", "age", *tiny(), *both)
    assert done.code == 2
    assert "without saying by which plan" in done.err  # another table's plan says nothing of this one's
    words = ("train", "age", "--data", people / "train", "-w", workspace, "--folds", 0)
    assert "--folds 0 has none" in orch(*words, *tiny(), "--extra", tmp_path / "folds.csv").err
    assert not (workspace / "age-0002").exists()


def test_all_that_is_wrong_with_an_extra_table_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    rows = "a.jpg,old,wear,0\nb.jpg,30-59,waer,x\na.jpg,200,,-1\na.jpg,20,,inf\na.jpg,20,,1.7\n"
    (tmp_path / "one.csv").write_text("path,age,mask,fold\n" + rows)
    (tmp_path / "two.csv").write_text("file,age\na.jpg,20\n")
    with pytest.raises(DataError) as caught:
        read_extra([tmp_path / "one.csv", tmp_path / "two.csv"])
    for told in (
        "one.csv line 2: age is 'old'", "one.csv line 3: no file b.jpg", "mask is 'waer'", "fold is 'x'", "line 4: age is '200'",
        "fold is '-1'", "fold is 'inf'", "fold is '1.7'", "two.csv: has the columns file, age; needed: path",
    ):  # fmt: skip
        assert told in str(caught.value)
    (tmp_path / "good.csv").write_text("path,age\na.jpg,<30\n")
    extra = read_extra([tmp_path / "good.csv"])
    assert list(extra.table["fold"]) == [EVERY_FOLD]
    assert not extra.table["age_exact"].iloc[0]
    assert extra.table["person"].iloc[0].startswith("extra:")
    (tmp_path / "twice.csv").write_text("path,age\na.jpg,20\na.jpg,30\n")
    with pytest.raises(DataError, match="stands in 2 rows|photos? in common"):
        read_extra([tmp_path / "twice.csv"])


def test_pseudo_labels_come_from_the_folds_own_members_and_train_them_alone(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path
) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    out = tmp_path / "pseudo.parquet"
    done = orch("pseudo", "--eval", people / "eval", "--out", out, "--threshold", 0.5, "-w", workspace, "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    table = pd.read_parquet(out)
    assert told["rows"] == len(table) <= 3 * told["photos"]
    record = RunRecord.load(workspace / "age-0001")
    assert record.plan is not None
    assert set(table["plan"]) == {record.plan["digest"][:12]}
    # By hand: the labels of fold 1 are those of the single members that hold fold 1 out.
    from orchestrator.data.preprocessing import decode
    from orchestrator.inference.engines import torch_runners
    from orchestrator.inference.member import load_members
    from orchestrator.inference.shared_backbone import unshared

    for task in TASKS:
        members = load_members(member_files(workspace, f"{task}-0001", 1))
        (runner,) = torch_runners([unshared(members[0])], "cpu")
        part = table[table["fold"] == 1].head(8)
        for row in part.itertuples():
            pixels = members[0].preprocess.geometry.apply(decode(Path(row.path)))[None]
            answer = runner(pixels)[0]
            word = getattr(row, task)
            assert word == (CLASSES[task][int(answer.argmax())] if answer.max() >= 0.5 else "")
    before = hashes(workspace / "gender-0001")
    done = train(orch, people, workspace, "train", "gender", *tiny(), "--extra", out)
    assert done.code == 0, done.err
    known = table[table["gender"] != ""]
    assert f"gender: {known['path'].nunique()} extra photos with {len(known)} labels join training" in done.err
    new = RunRecord.load(workspace / "gender-0002")
    assert new.data["extra"]["photos"] == len(table)
    assert new.data["fingerprint"] == record.data["fingerprint"]
    assert hashes(workspace / "gender-0001") == before
    for fold in range(3):
        card = json.loads((workspace / f"gender-0002/fold-{fold}/member.json").read_text())
        assert card["train"]["extra"] == int(((table["fold"] == fold) & (table["gender"] != "")).sum())
        held = pd.read_parquet(workspace / f"gender-0002/fold-{fold}/held_out.parquet")
        assert not set(held["path"]) & set(table["path"])
    assert orch("ensemble", "-w", workspace).code == 0
    again = train(orch, people, workspace, "train", "gender", *tiny(), "--extra", out)
    assert "gender-0002 has it already" in again.err
    done = train(orch, people, workspace, "train", "gender", "--fold", 1, "--seed", 3)
    assert done.code == 2
    assert "trained with other extra photos" in done.err


def test_extra_photos_show_wherever_runs_are_told_apart(
    orch: Orch, people: Path, workspace: Path, others: Path, tmp_path: Path
) -> None:
    done = train(orch, people, workspace, "train", "age", *tiny(), "--extra", others)
    assert done.code == 0, done.err
    fingerprint = json.loads((workspace / "age-0002/run.json").read_text())["data"]["extra"]["fingerprint"][:12]
    compared = orch("runs", "compare", "age-0001", "age-0002", "-w", workspace, "--json")
    assert json.loads(compared.out)["differing"]["extra"] == ["none", f"{others} ({fingerprint[:6]})"]
    listed = orch("runs", "list", "-w", workspace, "--where", f"extra={others}", "--json")
    assert [one["id"] for one in json.loads(listed.out)] == ["age-0002"]
    assert f"fingerprint {fingerprint}" in " ".join(orch("runs", "show", "age-0002", "-w", workspace).out.split())
    done = train(orch, people, workspace, "train", "age", *tiny("lr=0.004"), "--valid-only")
    assert "note: age-0002 learnt from extra photos too" in done.err
    assert "age-0002 differs only" not in done.err
    # Where the table lies does not matter, and neither does what the paths in it look like.
    moved = tmp_path / "moved"
    shutil.copytree(others.parent, moved)
    table = pd.read_csv(moved / others.name, dtype=str, keep_default_na=False)
    table.assign(path=[str(moved / path) for path in table["path"]]).to_csv(moved / "renamed.csv", index=False)
    done = train(orch, people, workspace, "train", "age", *tiny(), "--extra", moved / "renamed.csv")
    assert "age-0002 has it already" in done.err


def test_a_task_that_learns_nothing_from_a_table_is_not_trained_again(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path
) -> None:
    photo = sorted((people / "eval/images").iterdir())[0]
    (tmp_path / "extra.csv").write_text(f"path,gender\n{photo},male\n")
    done = train(orch, people, workspace, "train", "mask", *tiny(), "--extra", tmp_path / "extra.csv")
    assert done.code == 0, done.err
    assert "mask: 0 extra photos" in done.err
    assert "mask-0001 has it already" in done.err


@pytest.mark.parametrize(("words", "told"), [
    (("--threshold", 0.2), "--threshold 0.2; allowed: 0.5"),
    (("--threshold", 0.9999999), "lower --threshold"),
    (("--out", "labels.txt"), "give a name that ends in .csv or .parquet"),
])  # fmt: skip
def test_wrong_words_of_pseudo_are_told(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path, words: tuple[object, ...], told: str
) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    done = orch("pseudo", "--eval", people / "eval", "--out", tmp_path / "p.csv", "-w", workspace, *words)
    assert done.code == 2
    assert told in done.err


def test_what_cannot_label_by_folds_is_told_with_a_command_that_can(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("pseudo", "--eval", people / "eval", "--out", tmp_path / "p.csv", "--threshold", 0.5, "-w", workspace)
    assert orch("ensemble", "-w", workspace, "--no-score").code == 0
    assert orch(*words).code == 0  # folds are what it takes, and no score
    table = tmp_path / "old table.csv"
    assert orch("predict", "--eval", people / "eval", "-w", workspace, "--out", table).code == 0
    assert orch("ensemble", "-w", workspace, "--with", table).code == 0

    def load(*_: object, **__: object) -> None:
        raise AssertionError("a member was loaded")

    with monkeypatch.context() as patch:
        patch.setattr("orchestrator.inference.opening.load_members", load)
        done = orch(*words)
    assert done.code == 2
    assert "external tables have no folds" in done.err
    command = re.search(r"`orch ([^`]*)`", done.err)
    assert command
    assert orch(*shlex.split(command[1])).code == 0
    assert orch(*words).code == 0
    everybody = (
        "train",
        "age",
        *tiny("epochs=1"),
        "--data",
        people / "train",
        "-w",
        workspace,
        "--folds",
        0,
        "--jobs",
        1,
    )
    assert orch(*everybody).code == 0
    made = orch("ensemble", "-w", workspace, "--no-score", "--members", "age=age-0002", "--json")
    done = orch(*words, "--ensemble", json.loads(made.out)["id"])
    assert done.code == 2
    assert (
        "age-0002 learnt from everybody (--folds 0). Train by folds: `orch train age --data DIR --folds 3 " in done.err
    )


def test_a_band_without_years_teaches_the_band() -> None:
    head = SoftAgeHead(0, 100, (30, 60))
    outputs = torch.randn(3, 101, generator=torch.manual_seed(0))
    weights = torch.tensor([1.0, 2.0, 0.5])
    bands = head.probabilities(outputs)
    by_hand = -(bands[0, 0].log() * 1.0 + bands[2, 2].log() * 0.5)
    exact = head.loss(outputs[1:2], torch.tensor([44.0]), torch.ones(1)) * 2.0
    found = head.loss(outputs, torch.tensor([-1.0, 44.0, -3.0]), weights)
    assert found.item() == pytest.approx(((by_hand + exact) / 3).item(), rel=1e-5)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=20), st.integers(1, 9))
def test_joined_rows_are_the_rows_of_both(rows: list[int], count: int) -> None:
    values = np.arange(20).reshape(10, 2)

    class Part:
        def __init__(self, start: int) -> None:
            self.start = start

        def take(self, wanted: np.ndarray) -> np.ndarray:
            return values[wanted + self.start]

    found = JoinedRows(Part(0), count, Part(count), np.arange(10)).take(np.array(rows))
    assert (found == values[rows]).all()


@pytest.mark.slow
def test_killed_with_pseudo_labels_it_goes_on_to_the_same_bits(people: Path, workspace: Path, tmp_path: Path) -> None:
    record = RunRecord.load(workspace / "age-0001")
    assert record.plan is not None
    photos = sorted((people / "eval/images").iterdir())
    pd.DataFrame([
        {"path": str(path), "fold": fold, "plan": record.plan["digest"][:12], "age": CLASSES["age"][(fold + number) % 3]}
        for number, path in enumerate(photos) for fold in range(3)
    ]).to_parquet(tmp_path / "pseudo.parquet")  # fmt: skip
    words = [
        "train", "age", "--data", people / "train", "--folds", 3, "--jobs", 1, "--extra", tmp_path / "pseudo.parquet",
        *tiny("epochs=10"),
    ]  # fmt: skip
    for name in ("whole", "killed"):
        shutil.copytree(workspace, tmp_path / name)

    def start(name: str) -> Program:
        return Program([*words, "-w", tmp_path / name], tmp_path / f"{name}.log")

    assert start("whole").wait() == 0
    process = start("killed")
    begun = time.monotonic()
    while not list((tmp_path / "killed").glob("age-0002/fold-*/history.json")) and time.monotonic() - begun < 120:
        time.sleep(0.05)
    process.kill()
    assert not RunRecord.load(tmp_path / "killed/age-0002").complete
    assert start("killed").wait() == 0
    names = ("weights.safetensors", "held_out.parquet")
    one, other = (
        {key: value for key, value in hashes(tmp_path / name / "age-0002").items() if key.endswith(names)}
        for name in ("whole", "killed")
    )
    assert len(one) == 6
    assert one == other


def test_specialists_are_unchanged_by_what_is_not_given(people: Path, workspace: Path) -> None:
    """Without extra photos a run's key, table and draws are what they were."""
    settings = Settings(people / "train", workspace, changes=TINY, folds=3, jobs=1, device="cpu")
    inputs = read_inputs(settings, {"age": SPECIALISTS["age"]})
    record = RunRecord.load(workspace / "age-0001")
    from orchestrator.pipeline.run_plans import RunPlan

    assert RunPlan(settings, inputs, "age").key == record.key
    assert "extra" not in record.data


def test_a_table_that_is_given_twice_counts_once(others: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(others.parent)
    once, twice = read_extra([others]), read_extra([others, Path("extra.csv")])
    assert len(twice.sources) == 1
    pd.testing.assert_frame_equal(once.table, twice.table)
