"""Every photo is judged by members that have not seen its person, and scored over all rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from orchestrator.artifacts.held_out import HeldOut, read_held_out
from orchestrator.combining.answers import Answers, Voter
from orchestrator.combining.combiners import Combiner
from orchestrator.combining.votes import Decision, soft_vote
from orchestrator.combining.voting import Vote
from orchestrator.core.errors import LeakError, PlanError, WorkspaceError
from orchestrator.core.labels import CLASS_COUNTS, CLASSES, TASKS, columns_of, compose
from orchestrator.core.metrics import macro_f1
from orchestrator.core.strategies import Strategy
from orchestrator.data.folds import FoldPlan
from orchestrator.ensembling.intervals import intervals
from orchestrator.ensembling.learning import StrategyLearner
from orchestrator.ensembling.out_of_fold import OutOfFold, added_by, cross_fit, evaluate, fitted_to, join, singles
from tests.conftest import SOFT

PLAN = FoldPlan(2, 0, {"a": 0, "b": 1, "c": 0, "d": 1}, ())


def held_out(task: str, fold: int, persons: list[str], seed: int = 0) -> pd.DataFrame:
    """Two photos a person, random answers."""
    rng = np.random.default_rng([seed, fold, len(task)])
    rows = [(f"{person}/{number}.jpg", person) for person in persons for number in range(2)]
    table = pd.DataFrame(rows, columns=["path", "person"]).assign(fold=fold)
    table["truth"] = rng.integers(0, len(CLASSES[task]), len(rows))
    shares = rng.dirichlet(np.ones(len(CLASSES[task])), len(rows)).astype(np.float32)
    return table.assign(**dict(zip(columns_of(task), shares.T, strict=True)))


def files(folder: Path, tables: list[pd.DataFrame]) -> list[Path]:
    paths = [folder / f"{number}.parquet" for number in range(len(tables))]
    for path, table in zip(paths, tables, strict=True):
        table.to_parquet(path)
    return paths


def test_members_answers_are_joined_photo_by_photo(tmp_path: Path) -> None:
    parts = [held_out("age", 1, ["d", "b"]), held_out("age", 0, ["a", "c"])]
    run = read_held_out("age", "age-0001", files(tmp_path, parts), PLAN)
    assert list(run.photos["path"]) == [f"{person}/{number}.jpg" for person in "abcd" for number in range(2)]
    row = parts[1].set_index("path").loc["c/1.jpg"]
    assert run.probabilities[5].tolist() == row[columns_of("age")].tolist()
    run.write(tmp_path / "again.parquet")
    again = read_held_out("age", "age-0001", [tmp_path / "again.parquet"], PLAN)
    assert again.photos.equals(run.photos)
    assert np.array_equal(again.truth, run.truth)
    assert np.array_equal(again.probabilities, run.probabilities)


def test_a_person_judged_by_a_member_of_another_fold_is_a_leak(tmp_path: Path) -> None:
    parts = [held_out("age", 0, ["a", "b"]), held_out("age", 1, ["d"])]
    with pytest.raises(LeakError, match=r"2 photos were judged by a member of another fold"):
        read_held_out("age", "age-0001", files(tmp_path, parts), PLAN)


def test_a_person_judged_twice_is_a_leak(tmp_path: Path) -> None:
    parts = [held_out("age", 0, ["a"]), held_out("age", 0, ["a", "c"])]
    with pytest.raises(LeakError, match="judged twice"):
        read_held_out("age", "age-0001", files(tmp_path, parts), PLAN)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -0.1, 2.0])
def test_what_is_no_probability_and_strangers_are_named(tmp_path: Path, wrong: float) -> None:
    table = held_out("age", 0, ["a", "c"])
    table.loc[2, "p(age <30)"] = wrong
    with pytest.raises(WorkspaceError, match=r"1 photos have no probabilities that sum to 1, c/0.jpg among them"):
        read_held_out("age", "age-0001", files(tmp_path, [table]), PLAN)
    with pytest.raises(PlanError, match="does not know 1 people"):
        read_held_out("age", "age-0001", files(tmp_path, [held_out("age", 0, ["stranger"])]), PLAN)


def of(task: str, table: pd.DataFrame) -> HeldOut:
    columns = table[columns_of(task)].to_numpy()
    return HeldOut(task, table[["path", "person", "fold"]], table["truth"].to_numpy(), columns)


def whole(task: str, seed: int = 0) -> HeldOut:
    parts = [held_out(task, 0, ["a", "c"], seed), held_out(task, 1, ["b", "d"], seed)]
    return of(task, pd.concat(parts).sort_values("path", ignore_index=True))


def test_an_evaluation_is_the_vote_scored_over_all_rows() -> None:
    runs = {f"{task}-000{number}": whole(task) for task in TASKS for number in (1, 2)}
    joined = join(runs)
    combined = SOFT.combine(joined.answers)
    evaluation = evaluate(joined, combined)
    truth = compose(*(runs[f"{task}-0001"].truth for task in TASKS))
    for task in TASKS:
        run = runs[f"{task}-0001"]
        assert evaluation[task].scores.macro_f1 == pytest.approx(macro_f1(run.truth, run.choice, len(CLASSES[task])))
        assert np.array_equal(combined.decisions[task].choice, run.choice)
        assert evaluation[task].people == 4
        expected = intervals(run.photos["person"], run.truth, run.choice, len(CLASSES[task]))
        assert evaluation[task].intervals == expected
        assert expected["accuracy"].low < expected["accuracy"].high
    assert np.array_equal(combined.label, compose(*(runs[f"{task}-0001"].choice for task in TASKS)))
    assert np.array_equal(joined.label, truth)
    assert evaluation["label"].scores.macro_f1 == pytest.approx(macro_f1(truth, combined.label, 18))


def test_runs_and_members_are_scored_alone_on_what_they_held_out() -> None:
    runs = {f"{task}-0001": whole(task, 3) for task in TASKS}
    for task, scores in singles(join(runs)).items():
        run = runs[f"{task}-0001"]
        assert [score.fold for score in scores] == [None, 0, 1]
        for score in scores:
            rows = np.ones(8, bool) if score.fold is None else run.photos["fold"].to_numpy() == score.fold
            expected = macro_f1(run.truth[rows], run.choice[rows], len(CLASSES[task]))
            assert (score.run, score.photos) == (f"{task}-0001", rows.sum())
            assert score.macro_f1 == pytest.approx(expected)


def test_runs_and_tasks_that_cover_other_photos_are_refused() -> None:
    runs = {f"{task}-0001": whole(task) for task in TASKS}
    half = of("age", held_out("age", 0, ["a", "c"]))
    with pytest.raises(PlanError, match="do not cover the same held-out photos"):
        join({**{name: run for name, run in runs.items() if run.task != "age"}, "age-0002": half})
    with pytest.raises(PlanError, match="age-0001 covers 8 held-out photos and age-0002 4"):
        join({**runs, "age-0002": half})


def test_what_a_voter_adds_is_the_vote_with_it_less_the_vote_without() -> None:
    """Two good voters and one that always answers the first class; a voter that a task cannot do without is not listed."""
    rng = np.random.default_rng(5)
    rows = range(90)
    photos = pd.DataFrame(
        {"path": [f"{row:03}" for row in rows], "person": [f"p{row // 3}" for row in rows], "fold": 0}
    )
    truth, voters, arrays = {}, [], []
    for task, classes in CLASS_COUNTS.items():
        truth[task] = rng.integers(0, classes, 90)
        good = [np.eye(classes)[truth[task]] * 0.4 + rng.dirichlet(np.ones(classes), 90) * 0.6 for _ in range(2)]
        weak = np.tile(np.eye(classes)[0] * 0.9 + 0.1 / classes, (90, 1))
        for name, array in zip(("one", "two", "weak"), [*good, weak] if task == "age" else good, strict=False):
            voters.append(Voter(task, name))
            arrays.append(np.asarray(array, np.float32))
    answers = Answers(CLASS_COUNTS, 90, tuple(voters), tuple(arrays))
    gains = added_by(OutOfFold(photos, truth, answers), StrategyLearner(Strategy.parse()))
    assert list(gains) == ["one", "two", "weak"]

    def macro(without: str = "") -> float:
        others = answers.where(lambda voter: voter.source != without)
        mean = {task: np.mean(others.of(task).probabilities, axis=0) for task in TASKS}
        label = compose(*(mean[task].argmax(axis=1) for task in TASKS))
        right = compose(*(truth[task] for task in TASKS))
        return float(f1_score(right, label, labels=range(18), average="macro", zero_division=0))

    for name in ("one", "two", "weak"):
        assert gains[name].value == pytest.approx(macro() - macro(name), abs=1e-6)
        assert gains[name].interval.low <= gains[name].value <= gains[name].interval.high
    alone = answers.where(lambda voter: voter.source == "one" or voter.task == "age")
    assert list(added_by(OutOfFold(photos, truth, alone), StrategyLearner(Strategy.parse()))) == ["two", "weak"]


def test_who_alone_answers_some_photo_is_not_taken_out() -> None:
    """Without the run a table that abstains would leave photos unanswered, which would count as the first class."""
    drawn = drawn_out_of_fold(2, seed=3)
    half = np.tile(np.float32([0.2, 0.3, 0.5]), (120, 1))
    half[::2] = 0
    table = Answers(CLASS_COUNTS, 120, (Voter("age", "old.csv", external=True),), (half,))
    joined = OutOfFold(drawn.photos, drawn.truth, drawn.answers.with_voters(table))
    for strategy in (
        Strategy.parse(),
        Strategy.parse("soft", "temperature"),
        Strategy.parse("greedy", pool_people=True),
    ):
        assert list(added_by(joined, StrategyLearner(strategy))) == ["old.csv"]


@dataclass(frozen=True)
class KnownByHeart(Vote):
    """Answers each photo's class from memory, as far as its answers tell it from others; otherwise a soft vote."""

    known: Mapping[bytes, int]
    name = "by_heart"
    how = "."

    def decide(self, answers: Answers) -> Decision:
        (task,) = answers.classes
        voted = soft_vote(answers.probabilities, answers.weights)
        rows = map(bytes, answers.probabilities[0])
        choice = [self.known.get(row, code) for row, code in zip(rows, voted.choice.tolist(), strict=True)]
        return Decision(np.array(choice), np.eye(answers.classes[task])[choice])


class ByHeart:
    """Learns each photo's class by heart."""

    learns = True

    def fit(self, answers: Answers, truth: Mapping[str, np.ndarray], people: np.ndarray) -> Combiner:
        assert len(people) == len(answers)
        return Combiner({
            task: KnownByHeart(
                dict(zip(map(bytes, answers.of(task).probabilities[0]), truth[task].tolist(), strict=True))
            )
            for task in TASKS
        })  # fmt: skip


def drawn_out_of_fold(folds: int, seed: int, voters: int = 1) -> OutOfFold:
    """40 people of 3 photos, answers and truth at random."""
    rng = np.random.default_rng(seed)
    people = np.repeat([f"p{number:02d}" for number in range(40)], 3)
    fold_of = rng.permutation(np.arange(40) % folds)
    photos = pd.DataFrame({"path": [f"{name}/{n % 3}" for n, name in enumerate(people)], "person": people})
    photos["fold"] = np.repeat(fold_of, 3)
    truth = {task: rng.integers(0, classes, 120) for task, classes in CLASS_COUNTS.items()}
    names = [Voter(task, f"{task}-{number:04d}") for task in TASKS for number in range(voters)]
    arrays = tuple(rng.dirichlet(np.ones(CLASS_COUNTS[voter.task]), 120).astype(np.float32) for voter in names)
    return OutOfFold(photos, truth, Answers(CLASS_COUNTS, 120, tuple(names), arrays))


@pytest.mark.parametrize("folds", [1, 2, 5])
def test_what_is_learned_is_scored_on_people_it_was_not_learned_from(folds: int) -> None:
    drawn = drawn_out_of_fold(folds, seed=folds)
    assert np.array_equal(fitted_to(drawn, ByHeart()).combine(drawn.answers).label, drawn.label)
    fitted = cross_fit(drawn, ByHeart())
    combined = fitted.combine(drawn)
    assert np.array_equal(combined.label, SOFT.combine(drawn.answers).label)  # knows nobody whom it judges
    assert evaluate(drawn, combined)["label"].scores.accuracy < 0.3
    assert set(fitted.by_fold) == (set() if folds == 1 else set(range(folds)))


@given(st.sampled_from([1, 2, 3]), st.integers(0, 2**16), st.booleans())
def test_no_combiner_judges_a_person_that_it_was_learned_from(folds: int, seed: int, learns: bool) -> None:
    drawn = drawn_out_of_fold(folds, seed)
    people = drawn.photos["person"].to_numpy()

    class Watched(ByHeart):
        def __init__(self) -> None:
            self.learns, self.fitted = learns, dict[int, set[str]]()

        def fit(self, answers: Answers, truth: Mapping[str, np.ndarray], people: np.ndarray) -> Combiner:
            combiner = super().fit(answers, truth, people)
            self.fitted[id(combiner)] = set(people)
            return combiner

    learner = Watched()
    fitted = cross_fit(drawn, learner)
    judged: list[str] = []
    for group, combiner in fitted.combiners.items():
        judges = set(people[fitted.groups == group])
        assert learner.fitted[id(combiner)] == (set(people) - judges if learns else set(people))
        judged += judges
    assert sorted(judged) == sorted(set(people))


def test_what_a_source_adds_to_what_is_learned_is_learned_without_it() -> None:
    drawn = drawn_out_of_fold(2, seed=1, voters=2)
    seen: list[list[str]] = []

    class Watched(ByHeart):
        def fit(self, answers: Answers, truth: Mapping[str, np.ndarray], people: np.ndarray) -> Combiner:
            seen.append(answers.sources)
            return super().fit(answers, truth, people)

    gains = added_by(drawn, Watched())
    sources = {f"{task}-{number:04d}" for task in TASKS for number in range(2)}
    assert set(gains) == sources
    for source in sources:
        assert any(set(names) == sources - {source} for names in seen)
