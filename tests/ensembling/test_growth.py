"""Runs that were trained before and after the data grew: who judges whom, over random histories."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.artifacts.held_out import HeldOut
from orchestrator.core.errors import PlanError
from orchestrator.core.labels import CLASS_COUNTS, TASKS
from orchestrator.data.folds import FoldPlan, plan_folds
from orchestrator.ensembling.growth import LaterAnswers, LaterPhotos, join_grown, who_may_answer

K = 3


@dataclass
class History:
    """A table of photos that changes: people join and leave, photos are added, replaced, and given to other people."""

    rng: np.random.Generator
    photos: dict[str, tuple[str, str]] = field(default_factory=dict)  # path -> (person, content)
    truth: dict[str, str] = field(default_factory=dict)  # content -> whom it shows, whatever the table says
    made: int = 0

    def join(self, people: int) -> None:
        for _ in range(people):
            person = f"p{self.made:03d}"
            self.made += 1
            for number in range(int(self.rng.integers(1, 4))):
                self.add(f"{person}/{number}.jpg", person, person)

    def add(self, path: str, person: str, shows: str) -> None:
        content = f"c{len(self.truth):04d}"
        self.photos[path], self.truth[content] = (person, content), shows

    def change(self) -> None:
        """One of the things that happen to a table."""
        people = sorted({person for person, _ in self.photos.values()})
        someone = people[int(self.rng.integers(len(people)))]
        paths = [path for path, (person, _) in self.photos.items() if person == someone]
        what = self.rng.integers(5)
        if what == 0:
            self.join(int(self.rng.integers(1, 6)))
        elif what == 1 and len(people) > 2 * K:
            for path in paths:
                del self.photos[path]
        elif what == 2:  # one more photo
            self.add(f"{someone}/more{len(self.truth)}.jpg", someone, someone)
        elif what == 3:  # another photo under the same name
            self.add(paths[0], someone, someone)
        else:  # all photos of a person under another name, as after a misspelling was corrected
            for path in paths:
                _, content = self.photos.pop(path)
                self.photos[f"renamed{self.made}/{path}"] = (f"renamed{self.made}", content)
            self.made += 1

    @property
    def table(self) -> pd.DataFrame:
        rows = [(path, person, content) for path, (person, content) in sorted(self.photos.items())]
        return pd.DataFrame(rows, columns=["path", "person", "content"])


def people_of(table: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(index=pd.Index(sorted(table["person"].unique()), name="person"))


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_nobody_is_ever_judged_by_a_member_that_has_learned_from_them(seed: int, changes: int) -> None:
    history = History(np.random.default_rng(seed))
    history.join(2 * K)
    plan: FoldPlan = plan_folds(people_of(history.table), K, 0)
    runs: list[tuple[pd.DataFrame, FoldPlan]] = []
    for _ in range(changes):
        if history.rng.random() < 0.5:
            plan = plan.extended(people_of(history.table))
            runs.append((history.table, plan))
        history.change()
    newest, plan = history.table, plan.extended(people_of(history.table))
    for own, fold_of in [(own, own_plan.fold_of) for own, own_plan in runs]:
        rows, may_answer, is_new = who_may_answer(own, fold_of, range(K), newest)
        shown = newest["content"].map(history.truth)
        for fold in range(K):
            learned = own[own["person"].map(fold_of) != fold]
            names, contents = set(learned["person"]), set(learned["content"])
            same_people = {history.truth[content] for content in contents}
            judged = newest.iloc[rows[may_answer[fold]]]
            held_out = newest.drop(index=rows)
            held_out = held_out[held_out["person"].map(fold_of) == fold]
            for part in (judged, held_out):
                assert names.isdisjoint(part["person"])
                assert contents.isdisjoint(part["content"])
            kept = newest.loc[judged.index][newest["content"].loc[judged.index].isin(own["content"])]
            assert same_people.isdisjoint(shown.loc[kept.index])
        seen = set(own["person"])
        assert not seen & set(newest["person"].iloc[rows[is_new]])
        if not newest["person"].str.startswith("renamed").any():  # then everybody has somebody to answer
            assert np.logical_or.reduce([may_answer[fold] for fold in range(K)]).all()
            assert (np.sum([may_answer[fold] for fold in range(K)], axis=0)[is_new] == K).all()


def test_a_photo_that_is_given_to_another_person_takes_both_peoples_folds_into_account() -> None:
    own = pd.DataFrame(
        {"path": ["a/0", "a/1", "b/0", "c/0"], "person": ["a", "a", "b", "c"], "content": ["0", "1", "2", "3"]}
    )
    newest = own.assign(person=["a", "b", "b", "c"])  # a's second photo shows b
    rows, may_answer, is_new = who_may_answer(own, {"a": 0, "b": 1, "c": 2}, [0, 1, 2], newest)
    assert [newest["path"].iloc[row] for row in rows] == ["a/1", "b/0"]  # b was learned from, in part, by b's own judge
    assert not any(may.any() for may in may_answer.values())
    assert not is_new.any()
    same_fold = {"a": 1, "b": 1, "c": 2}
    rows, may_answer, _ = who_may_answer(own, same_fold, [0, 1, 2], newest)
    assert [newest["path"].iloc[row] for row in rows] == ["a/1"]  # answered for another person: again
    assert {fold: may.tolist() for fold, may in may_answer.items()} == {0: [False], 1: [True], 2: [False]}


def later_of(rows: list[int], folds: dict[int, list[bool]]) -> LaterPhotos:
    return LaterPhotos(None, np.array(rows), {fold: np.array(may) for fold, may in folds.items()}, 0)  # type: ignore[arg-type, dict-item]  # no run is asked here


def test_answers_for_later_photos_are_the_mean_of_those_who_may_answer() -> None:
    photos = later_of([4, 7], {0: [True, False], 1: [True, True]})
    by_fold = {0: np.array([[0.2, 0.8], [0.9, 0.1]], np.float32), 1: np.array([[0.6, 0.4], [0.3, 0.7]], np.float32)}
    answers = LaterAnswers.mean_of(photos, by_fold).probabilities
    assert answers == pytest.approx(np.array([[0.4, 0.6], [0.3, 0.7]]))
    assert answers.dtype == np.float32


def test_everybody_in_the_newest_table_is_answered_once_by_each_run() -> None:
    newest = pd.DataFrame({"path": ["a", "b", "c"], "person": ["a", "b", "c"], "content": ["0", "1", "2"]})
    plan = FoldPlan(2, 0, {"a": 0, "b": 1, "c": 0, "gone": 1}, ())
    truth = {task: np.zeros(3, np.int64) for task in TASKS}
    held_out = {}
    for number, task in enumerate(TASKS):
        paths = ["a", "b", "c"] if task == "age" else ["a", "b", "gone"]
        answers = np.tile(np.eye(CLASS_COUNTS[task], dtype=np.float32)[0], (3, 1)) * 1.0
        photos = pd.DataFrame({"path": paths, "person": paths, "fold": [plan.fold_of[path] for path in paths]})
        held_out[f"{task}-000{number}"] = HeldOut(task, photos, np.zeros(3, np.int64), answers)
    with pytest.raises(PlanError, match=r"mask-0000: nobody has answered for 1 photos that joined later, c among them"):
        join_grown(newest, plan, truth, held_out, {})
    late = later_of([2], {0: [True], 1: [True]})
    later = {
        run: LaterAnswers(late, np.full((1, CLASS_COUNTS[of_run.task]), 1 / CLASS_COUNTS[of_run.task], np.float32))
        for run, of_run in held_out.items()
        if of_run.task != "age"
    }
    joined = join_grown(newest, plan, truth, held_out, later)
    assert joined.photos["fold"].tolist() == [0, 1, 0]
    for voter, array in zip(joined.answers.voters, joined.answers.probabilities, strict=True):
        assert array.sum(axis=1) == pytest.approx(np.ones(3))
        assert array[2].max() == pytest.approx(1.0 if voter.task == "age" else 1 / CLASS_COUNTS[voter.task])
    assert {run: rows.tolist() for run, rows in joined.later.items()} == {"mask-0000": [2], "gender-0001": [2]}
