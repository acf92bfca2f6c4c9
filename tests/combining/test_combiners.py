"""A combiner is a value: it survives JSON, is exact where it says that a vote is settled, and a new one needs no other change."""

import importlib
import importlib.util
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import combining
from orchestrator.combining import PROBABILITY, SHARE, STRATEGIES, Strategy
from orchestrator.combining.answers import Answers, Voter
from orchestrator.combining.combiners import COMBINERS, Combined, Combiner, SoftVote, by_source, read_combiner
from orchestrator.combining.votes import Decision, soft_vote
from orchestrator.core.labels import CLASS_COUNTS, CLASSES, TASKS, compose
from tests.conftest import Done, edit_sealed

Orch = Callable[..., Done]


def drawn(photos: int, members: int, seed: int, digits: int = 1) -> Answers:
    """Rounded to few digits, so that ties occur."""
    rng = np.random.default_rng(seed)
    voters, arrays = [], []
    for task, classes in CLASS_COUNTS.items():
        for fold in range(members):
            raw = np.round(rng.dirichlet(np.ones(classes), photos), digits) + 0.05
            voters.append(Voter(task, f"{task}-0001", fold, weight=float(rng.integers(1, 4))))
            arrays.append((raw / raw.sum(axis=1, keepdims=True)).astype(np.float32))
    return Answers(CLASS_COUNTS, photos, tuple(voters), tuple(arrays))


def test_every_strategy_has_a_class_and_a_column() -> None:
    assert list(COMBINERS) == list(STRATEGIES)
    assert {strategy.prefix for strategy in STRATEGIES.values()} <= {PROBABILITY, SHARE}
    for name, kind in COMBINERS.items():
        assert (kind.name, kind().as_dict()["name"]) == (name, name)
        assert kind.how.endswith(".")


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_a_combiner_survives_json(name: str) -> None:
    answers = drawn(40, 3, 1)
    combiner = COMBINERS[name]()
    again = read_combiner(json.loads(json.dumps(combiner.as_dict(), allow_nan=False)))
    assert type(again) is type(combiner)
    assert np.array_equal(again.combine(answers).label, combiner.combine(answers).label)
    with pytest.raises(ValueError, match="combiner 'best'; allowed: soft, "):
        read_combiner({"name": "best"})


@given(st.sampled_from(list(STRATEGIES)), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_the_label_is_the_code_of_the_decisions(name: str, members: int, seed: int) -> None:
    answers = drawn(25, members, seed)
    combined = COMBINERS[name]().combine(answers)
    assert list(combined.decisions) == list(TASKS)
    assert np.array_equal(combined.label, compose(*(combined.decisions[task].choice for task in TASKS)))
    with pytest.raises(ValueError, match="at least one voter"):
        COMBINERS[name]().combine(answers.where(lambda voter: voter.task != "age"))


@given(st.sampled_from(list(STRATEGIES)), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_agreement_is_that_of_the_task_that_is_agreed_on_least(name: str, members: int, seed: int) -> None:
    answers = drawn(25, members, seed)
    combined = COMBINERS[name]().combine(answers)
    shares = []
    for task, decision in combined.decisions.items():
        own = answers.of(task)
        agreeing = np.array([array.argmax(axis=1) == decision.choice for array in own.probabilities])
        shares.append(np.average(agreeing, axis=0, weights=own.weights))
    assert combined.agreement(answers) == pytest.approx(np.min(shares, axis=0), abs=1e-5)


@given(st.sampled_from(list(STRATEGIES)), st.integers(2, 5), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_no_answer_of_pending_voters_turns_a_settled_vote(name: str, members: int, answered: int, seed: int) -> None:
    """Whatever weights they have: all of them certain of each class in turn, or silent."""
    answered = min(answered, members - 1)
    combiner, whole = COMBINERS[name](), drawn(30, members, seed)
    for task, classes in CLASS_COUNTS.items():
        own = whole.of(task)
        so_far = own.where(lambda voter: voter.fold in range(answered))
        pending = [voter for voter in own.voters if voter not in so_far.voters]
        settled = combiner.settled(so_far, pending)
        now = combiner.decide(so_far).choice
        for answer in [*np.eye(classes, dtype=np.float32), np.zeros(classes, np.float32)]:
            rest = tuple(np.tile(answer, (30, 1)) for _ in pending)
            then = combiner.decide(so_far.with_voters(Answers(so_far.classes, 30, tuple(pending), rest))).choice
            assert np.array_equal(now[settled], then[settled])


def test_equal_votes_settle_as_soon_as_the_rest_cannot_catch_up() -> None:
    certain = np.tile(np.float32([0, 1]), (3, 1))
    voters = [Voter("gender", "gender-0001", fold) for fold in range(5)]
    for name in ("soft", "hard"):
        for answered, settled in ((1, False), (2, False), (3, True)):
            so_far = Answers({"gender": 2}, 3, tuple(voters[:answered]), (certain,) * answered)
            assert COMBINERS[name]().settled(so_far, voters[answered:]).tolist() == [settled] * 3


@given(st.integers(1, 30), st.integers(1, 4), st.integers(0, 2**32 - 1), st.booleans())
def test_a_source_answers_by_the_mean_of_its_members_that_answered(
    photos: int, members: int, seed: int, table: bool
) -> None:
    rng = np.random.default_rng(seed)
    answers = drawn(photos, members, seed, digits=3)
    silent = {voter: rng.random(photos) < 0.3 for voter in answers.voters}
    answers = replace(
        answers,
        probabilities=tuple(
            np.where(silent[voter][:, None], 0, array).astype(np.float32)
            for voter, array in zip(answers.voters, answers.probabilities, strict=True)
        ),
    )
    if table:
        old = np.tile(np.float32([0.2, 0.3, 0.5]), (photos, 1))
        voter = Voter("age", "old.csv", weight=members, external=True)
        answers = answers.with_voters(Answers(answers.classes, photos, (voter,), (old,)))
    means = by_source(answers)
    assert [(voter.task, voter.source, voter.fold, voter.weight) for voter in means.voters] == [
        *((task, f"{task}-0001", None, 1.0) for task in TASKS),
        *([("age", "old.csv", None, 1.0)] if table else []),
    ]
    for voter, mean in zip(means.voters, means.probabilities, strict=True):
        own = answers.of(voter.task).where(lambda member, source=voter.source: member.source == source)
        for photo in range(photos):
            rows = [array[photo] for array in own.probabilities if array[photo].any()]
            expected = np.mean(rows, axis=0) if rows else np.zeros(CLASS_COUNTS[voter.task])
            assert np.allclose(mean[photo], expected, atol=1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_what_was_combined_in_parts_is_gathered_in_order(seed: int, parts: int) -> None:
    answers = drawn(23, 3, seed)
    part_of = np.random.default_rng(seed).permutation(23) % parts
    rows = [np.flatnonzero(part_of == part) for part in range(parts)]
    for name in STRATEGIES:
        whole = COMBINERS[name]().combine(answers)
        gathered = Combined.gathered([(of_part, COMBINERS[name]().combine(answers.take(of_part))) for of_part in rows])
        assert np.array_equal(gathered.label, whole.label)
        for task in TASKS:
            assert np.array_equal(gathered.decisions[task].choice, whole.decisions[task].choice)
            assert np.allclose(gathered.decisions[task].shares, whole.decisions[task].shares, atol=1e-12)


class Weighted(Combiner):
    """A learned combiner as a stranger would add one: each run weighs by its accuracy; it cannot tell what is settled."""

    name = "weighted"
    learns = True
    how = "Within a task take the mean of the members' probabilities, weighted by `weights`."

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        self.weights = dict(weights or {})

    def fit(self, answers: Answers, truth: Mapping[str, np.ndarray], people: np.ndarray) -> Self:
        assert len(people) == len(answers)
        weights = {}
        for voter, array in zip(answers.voters, answers.probabilities, strict=True):
            weights[voter.source] = float((array.argmax(axis=1) == truth[voter.task]).mean())
        return type(self)(weights)

    def decide(self, answers: Answers) -> Decision:
        of_sources = by_source(answers)
        return soft_vote(of_sources.probabilities, [self.weights[voter.source] for voter in of_sources.voters])

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.name, "weights": self.weights}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        return cls(value["weights"])


class NeverOld(Combiner):
    """A decision rule: nobody is old."""

    name = "never_old"
    how = "As a soft vote, and 30-59 where it says >=60."
    vote = SoftVote()

    def decide(self, answers: Answers) -> Decision:
        voted = self.vote.decide(answers)
        return replace(voted, choice=np.minimum(voted.choice, 1)) if "age" in answers.classes else voted

    def settled(self, so_far: Answers, pending: Sequence[Voter]) -> np.ndarray:
        return self.vote.settled(so_far, pending)


@pytest.mark.parametrize("kind", [Weighted, NeverOld])
def test_a_new_combiner_is_a_class_and_its_name(
    orch: Orch, people: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: type[Combiner]
) -> None:
    """Scored, saved, predicted with, asked in a cascade and labelled with, and no line of these knows it."""
    name, images = kind.name, people / "eval/images"
    monkeypatch.setitem(COMBINERS, name, kind)
    monkeypatch.setitem(STRATEGIES, name, Strategy(PROBABILITY, "another"))
    done = orch("ensemble", "--strategy", name, "-w", workspace, "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert record["id"] == f"{name}-0001"
    scored = pd.read_parquet(workspace / record["id"] / "out_of_fold.parquet")
    predict = ("predict", images, "-w", workspace, "--engine", "torch", "--json")
    answers = json.loads(orch(*predict).out)
    assert {len(answer["probabilities"]) for answer in answers} == {3}
    if kind is NeverOld:
        assert not (scored["label"] % 3 == 2).any()
        assert not any(answer["label"] % 3 == 2 for answer in answers)
    else:
        weights = read_combiner(record["combiner"]).as_dict()["weights"]
        assert set(weights) == {f"{task}-0001" for task in TASKS}
        assert 0 < weights["mask-0001"] < 1
        by_fold = {
            fold: read_combiner(value).as_dict()["weights"] for fold, value in record["combiners_by_fold"].items()
        }
        assert set(by_fold) == {"0", "1", "2"}
        held_out = pd.read_parquet(workspace / "mask-0001/fold-1/held_out.parquet")
        answers_of_fold = held_out[[f"p(mask {name})" for name in CLASSES["mask"]]].to_numpy()
        right = answers_of_fold.argmax(axis=1) == held_out["truth"]
        rest = 1.5 * weights["mask-0001"] - 0.5 * right.mean()  # three folds of equally many photos
        assert by_fold["1"]["mask-0001"] == pytest.approx(rest)
    cascade = json.loads(orch(*predict, "--cascade").out)
    assert [answer["label"] for answer in cascade] == [answer["label"] for answer in answers]
    if kind is Weighted:
        assert {answer["asked"] for answer in cascade} == {9}
    labels = tmp_path / "labels.csv"
    assert orch("pseudo", images, "-w", workspace, "--out", labels, "--threshold", 0.5).code == 0
    if kind is Weighted:
        unfitted = f"--strategy {name} is learned when an ensemble is built: `orch ensemble --strategy {name}"
        assert orch("ensemble", "--strategy", "hard", "-w", workspace).code == 0
        refused = orch("predict", images, "-w", workspace, "--engine", "torch", "--strategy", name)
        assert (refused.code, unfitted in refused.err) == (2, True), refused.err
        refused = orch("ensemble", "--strategy", name, "--no-score", "-w", workspace)
        assert refused.code == 2
        assert f"--strategy {name} learns from out-of-fold scores, and there are none: left out as asked" in refused.err


def test_what_labels_a_fold_has_learned_nothing_from_its_people(
    orch: Orch, people: Path, three_runs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its labels are trained on by the member that will hold these people out."""
    monkeypatch.setitem(COMBINERS, Weighted.name, Weighted)
    monkeypatch.setitem(STRATEGIES, Weighted.name, Strategy(PROBABILITY, "another"))
    runs = ("age=age-0001,age-0002", "gender=gender-0001", "mask=mask-0001")
    assert orch("ensemble", "--strategy", Weighted.name, "-w", three_runs, "--members", *runs).code == 0
    record = three_runs / "weighted-0001/ensemble.json"

    def labels() -> pd.DataFrame:
        out = tmp_path / "labels.csv"
        done = orch("pseudo", people / "eval/images", "-w", three_runs, "--out", out, "--threshold", 0.5)
        assert done.code == 0, done.err
        return pd.read_csv(out).set_index(["path", "fold"])["p(age)"]

    before, by_fold = labels(), json.loads(record.read_text())["combiners_by_fold"]
    edit_sealed(
        record,
        combiners_by_fold={
            **by_fold,
            "1": {
                **by_fold["1"],
                "weights": {"age-0001": 1.0, "age-0002": 9.0} | dict.fromkeys(("gender-0001", "mask-0001"), 1.0),
            },
        },
    )
    changed = before[before != labels()]
    assert len(changed)
    assert set(changed.index.get_level_values("fold")) == {1}
    edit_sealed(record, combiners_by_fold={})
    refused = orch("pseudo", people / "eval/images", "-w", three_runs, "--out", tmp_path / "labels.csv")
    assert refused.code == 2
    assert "has learned comes from the only people who are held out" in " ".join(refused.err.split())


class Sharpened(Combiner):
    """A calibration: the mean, squared."""

    name = "sharpened"
    how = "As a soft vote, its probabilities squared."

    def decide(self, answers: Answers) -> Decision:
        voted = SoftVote().decide(answers)
        return replace(voted, scores=voted.shares**2)


def test_pseudo_labels_take_the_combiners_probabilities(
    orch: Orch, people: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(COMBINERS, Sharpened.name, Sharpened)
    monkeypatch.setitem(STRATEGIES, Sharpened.name, Strategy(PROBABILITY, "sharper"))
    tables = {}
    for strategy in ("soft", "hard", Sharpened.name):
        assert orch("ensemble", "--strategy", strategy, "-w", workspace, "--no-score").code == 0
        assert orch("ensembles", "use", f"{strategy}-0001", "-w", workspace).code == 0
        out = tmp_path / f"{strategy}.csv"
        done = orch("pseudo", people / "eval/images", "-w", workspace, "--out", out, "--threshold", 0.5)
        assert done.code == 0, done.err
        tables[strategy] = pd.read_csv(out, dtype=str).set_index(["path", "fold"])
    assert tables["hard"].equals(tables["soft"])  # shares of votes are not probabilities
    common = tables["soft"].index
    male = tables["soft"].loc[common, "p(gender)"].astype(float)
    expected = male**2 / (male**2 + (1 - male) ** 2)
    sharpened = tables[Sharpened.name].loc[common, "p(gender)"].astype(float)
    assert np.allclose(sharpened, expected, atol=5e-6)
    assert (sharpened > male).mean() > 0.9


def test_the_package_works_by_itself_wherever_it_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As beside an export: no import of orchestrator, the same answers."""
    shutil.copytree(Path(str(combining.__file__)).parent, tmp_path / "elsewhere")
    for path in (tmp_path / "elsewhere").glob("*.py"):
        assert "import orchestrator" not in path.read_text()
        assert "from orchestrator" not in path.read_text()
    monkeypatch.syspath_prepend(str(tmp_path))
    theirs: Any = importlib.import_module("elsewhere.combiners")
    assert theirs.COMBINERS is not COMBINERS
    answers = drawn(50, 3, 7)
    for name in STRATEGIES:
        voters = tuple(theirs.Voter(voter.task, voter.source, voter.fold, voter.weight) for voter in answers.voters)
        copied = theirs.Answers(answers.classes, 50, voters, answers.probabilities)
        mine, other = COMBINERS[name]().combine(answers), theirs.COMBINERS[name]().combine(copied)
        assert np.array_equal(mine.label, other.label)
        for task in TASKS:
            assert np.array_equal(mine.decisions[task].shares, other.decisions[task].shares)
