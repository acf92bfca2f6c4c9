"""The jobs that runs become: their pixels, their tables, and the extra photos that join them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from orchestrator.artifacts.origins import plan_of
from orchestrator.artifacts.run import RunRecord
from orchestrator.artifacts.workspace import Workspace
from orchestrator.pipeline.inputs import read_inputs
from orchestrator.pipeline.preparation import RunJob, missing_jobs
from orchestrator.pipeline.settings import Settings
from orchestrator.specialists import TRAINABLE
from tests.conftest import TINY, Done, Silent, tiny, train

Orch = Callable[..., Done]


def test_without_a_store_the_weights_are_the_same(orch: Orch, people: Path, workspace: Path, tmp_path: Path) -> None:
    done = train(orch, people, tmp_path / "direct", "train-all", *tiny(), "--no-store")
    assert done.code == 0, done.err
    assert not (tmp_path / "direct" / "store").exists()
    for task in ("mask", "gender", "age"):
        weights = f"{task}-0001/fold-1/weights.safetensors"
        assert (tmp_path / "direct" / weights).read_bytes() == (workspace / weights).read_bytes()


def test_a_draw_goes_by_mask_state_unless_told_otherwise(people: Path, tmp_path: Path) -> None:
    from orchestrator.pipeline.settings import Settings
    from orchestrator.pipeline.training import first_jobs, train_all
    from orchestrator.specialists import SPECIALISTS

    for change, kinds in (("draw_by=mask", {0: 5, 1: 1, 2: 1}), ("draw_by=photo", {0: 7})):
        settings = Settings(people / "train", tmp_path / "runs", changes=(*TINY, change), folds=3, jobs=1, device="cpu")
        age = {"age": SPECIALISTS["age"]}
        train_all(settings, age, Silent())
        rows = first_jobs(settings, age, Silent())["age"].rows
        table = pd.DataFrame({"person": rows.person, "kind": rows.kind})
        assert table.groupby("person")["kind"].value_counts().groupby("kind").unique().map(list).to_dict() == {
            kind: [count] for kind, count in kinds.items()
        }


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
            extra = job.rows.extra
            assert extra.sum() == 42
            assert not extra[job.held_out].any()
            assert extra[job.train].sum() == count
            assert not set(job.rows.person[job.held_out]) & set(job.rows.person[job.train])
    (job, *_) = jobs_of(people, workspace, others, "age", "loss=soft_age")
    bands = job.rows.extra & (job.rows.target < 0)
    assert bands.sum() == 14
    assert (job.rows.target[bands] == -2).all()  # -1 - the code of 30-59
    assert (job.rows.truth[bands] == 1).all()
    (job, *_) = jobs_of(people, workspace, others, "age", "loss=cross_entropy")
    assert set(job.rows.target) <= {0, 1, 2}


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
    jobs = jobs_of(people, workspace, tmp_path / "known.csv", "age")
    number_of = {
        name: number
        for job in jobs
        for name, number in zip(job.held_out_photos["person"], job.rows.person[job.held_out], strict=True)
    }
    for job in jobs:
        learnt = number_of[person] in set(job.rows.person[job.train])
        assert learnt is (job.fold != plan.fold_of[person])


def test_people_who_are_dropped_are_never_learnt_from_and_still_scored(
    people: Path, workspace: Path, others: Path
) -> None:
    plain = jobs_of(people, workspace, others, "age")
    person = plain[0].held_out_photos["person"].iloc[0]
    dropped = jobs_of(people, workspace, others, "age", f'drop_people=["{person}"]')
    for before, after in zip(plain, dropped, strict=True):
        assert after.held_out_photos.equals(before.held_out_photos)
        assert len(before.train) - len(after.train) == (0 if before.fold == plain[0].fold else 7)
        assert set(after.train) < set(before.train) or before.fold == plain[0].fold
