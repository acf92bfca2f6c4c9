"""A combiner is a value: it survives JSON, is exact where it says that a vote is settled, and a new vote needs no more."""

import importlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import combining
from orchestrator.combining import voting
from orchestrator.combining.answers import Answers, Voter
from orchestrator.combining.calibration import Calibration
from orchestrator.combining.combiners import Combined, Combiner
from orchestrator.combining.people import PeoplePool
from orchestrator.combining.rules import Multipliers
from orchestrator.combining.votes import Decision, soft_vote
from orchestrator.combining.voting import HardVote, PowerVote, SoftVote, Vote, WeightedVote
from orchestrator.core import strategies
from orchestrator.core.labels import CLASS_COUNTS, TASKS, compose
from orchestrator.ensembling import learning
from tests.conftest import HARD, SOFT, Done, edit_sealed

Orch = Callable[..., Done]

VECTOR = Calibration(((1.2, 0.8, 1.0),), ((0.3, -0.2, 0.0),))
BY_MASK = Calibration(((1.0,) * 3, (2.0,) * 3, (0.5,) * 3), ((0.0,) * 3, (0.5, 0.0, 0.0), (0.0,) * 3), "mask")
SCALED = Calibration(((1.5,) * 3,), ((0.4, 0.0, -0.4),))
RULE = Multipliers({"age": (0.8, 1.0, 1.6), "gender": (1.1, 1.0)})
EACH = {
    "soft": SOFT,
    "hard": HARD,
    "mixed": Combiner({"mask": HardVote(), "gender": PowerVote(0.0), "age": SoftVote()}),
    "weighted": Combiner({task: WeightedVote({f"{task}-0001": 2.0}) for task in TASKS}),
    "temperature": replace(SOFT, calibrations={"age": Calibration(((2.0,) * 3,), ((0.0,) * 3,))}),
    "vector": replace(SOFT, calibrations={"age": VECTOR}),
    "by mask": replace(SOFT, calibrations={"age": BY_MASK}),
    "rule": replace(SOFT, rule=RULE),
    "scaled and rule": replace(SOFT, calibrations={"age": SCALED}, rule=RULE),
    "all": replace(SOFT, calibrations={"age": BY_MASK, "mask": VECTOR}, rule=RULE),
}  # fmt: skip
each = st.sampled_from(list(EACH))


def drawn(photos: int, members: int, seed: int, digits: int = 1) -> Answers:
    """Rounded to few digits, so that ties occur."""
    rng = np.random.default_rng(seed)
    voters, arrays = [], []
    for task, classes in CLASS_COUNTS.items():
        for fold in range(members):
            raw = np.round(rng.dirichlet(np.ones(classes), photos), digits) + 0.05
            voters.append(Voter(task, f"{task}-0001", fold))
            arrays.append((raw / raw.sum(axis=1, keepdims=True)).astype(np.float32))
    return Answers(CLASS_COUNTS, photos, tuple(voters), tuple(arrays))


@pytest.mark.parametrize("name", list(EACH))
def test_a_combiner_survives_json(name: str) -> None:
    again = Combiner.from_dict(json.loads(json.dumps(EACH[name].as_dict(), allow_nan=False)))
    assert again == EACH[name]
    assert again.how.endswith(".")
    assert " vote" in again.title


def test_titles_say_what_sets_combiners_apart() -> None:
    assert {name: combiner.title for name, combiner in EACH.items()} == {
        "soft": "soft vote", "hard": "hard vote", "mixed": "mask hard, gender geometric, age soft vote",
        "weighted": "weighted vote", "temperature": "soft vote, calibrated", "vector": "soft vote, calibrated",
        "by mask": "soft vote, calibrated", "rule": "soft vote, with multipliers",
        "scaled and rule": "soft vote, calibrated, with multipliers", "all": "soft vote, calibrated, with multipliers",
    }  # fmt: skip


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ValueError, match="age: shares of votes are no probabilities"):
        replace(HARD, calibrations={"age": VECTOR})
    with pytest.raises(ValueError, match="gender: shares of votes are no probabilities"):
        replace(HARD, rule=Multipliers({"gender": (1.0, 2.0)}))
    with pytest.raises(ValueError, match="numbers for mask, whose answers are not combined"):
        Combiner({"age": SoftVote()}, {"age": BY_MASK})


@given(each, st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_the_label_is_the_code_of_the_decisions(name: str, members: int, seed: int) -> None:
    answers = drawn(25, members, seed)
    combined = EACH[name].combine(answers)
    assert list(combined.decisions) == list(TASKS)
    assert np.array_equal(combined.label, compose(*(combined.decisions[task].choice for task in TASKS)))
    with pytest.raises(ValueError, match="at least one voter"):
        EACH[name].combine(answers.where(lambda voter: voter.task != "age"))


@given(each, st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_agreement_is_that_of_the_task_that_is_agreed_on_least(name: str, members: int, seed: int) -> None:
    answers = drawn(25, members, seed)
    combined = EACH[name].combine(answers)
    shares = []
    for task, decision in combined.decisions.items():
        own = answers.of(task)
        agreeing = np.array([array.argmax(axis=1) == decision.choice for array in own.probabilities])
        shares.append(np.average(agreeing, axis=0, weights=own.weights))
    assert combined.agreement(answers) == pytest.approx(np.min(shares, axis=0), abs=1e-5)


@given(st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_it_votes_then_calibrates_then_decides(members: int, seed: int) -> None:
    answers = drawn(40, members, seed, digits=3)
    voted = {task: np.mean(answers.of(task).probabilities, axis=0) for task in TASKS}
    combined = EACH["all"].combine(answers)
    age = BY_MASK.apply(voted["age"], SOFT.combine(answers).decisions["mask"].choice)
    assert np.allclose(combined.decisions["age"].shares, age, atol=1e-5)
    assert np.array_equal(
        combined.decisions["age"].choice, (combined.decisions["age"].shares * [0.8, 1, 1.6]).argmax(axis=1)
    )
    mask = VECTOR.apply(voted["mask"])
    assert np.allclose(combined.decisions["mask"].shares, mask, atol=1e-5)
    assert np.array_equal(combined.decisions["mask"].choice, combined.decisions["mask"].shares.argmax(axis=1))
    thresholds = EACH["all"].probabilities(answers)
    assert np.array_equal(thresholds["age"], combined.decisions["age"].shares)
    assert np.allclose(HARD.probabilities(answers)["age"], voted["age"], atol=1e-6)  # shares of votes are none


def test_numbers_that_do_not_fit_an_ensemble_are_refused() -> None:
    sources: dict[str, set[str]] = {task: {f"{task}-0001"} for task in TASKS}
    for combiner in EACH.values():
        combiner.check(CLASS_COUNTS, sources)
    for combiner, message in (
        (Combiner({"age": SoftVote()}), "votes for age"),
        (Combiner({**SOFT.votes, "age": WeightedVote({"age-0009": 1.0})}), "no weight was learned for age-0001"),
        (replace(SOFT, calibrations={"gender": VECTOR}), "a calibration of other classes than those of gender"),
        (replace(SOFT, calibrations={"age": replace(BY_MASK, given="gender")}), "a calibration of other classes"),
        (replace(SOFT, rule=Multipliers({"age": (1.0, 2.0)})), "multipliers of other classes"),
        (replace(SOFT, people=PeoplePool({"age": "log"}, "mask", {"age": (1.0, 2.0)})), "weights of photos by 'mask'"),
        (replace(SOFT, people=PeoplePool({"age": "log"}, "hat", {"age": (1.0,)})), "weights of photos by 'hat'"),
    ):
        with pytest.raises(ValueError, match=message):
            combiner.check(CLASS_COUNTS, sources)


def test_extreme_temperatures_settle_nothing_wrongly_and_raise_nothing() -> None:
    sharp = Calibration(((0.001,) * 3,), ((0.5, 0.0, -0.5),))
    combiner = replace(SOFT, calibrations={"age": sharp}, rule=RULE)
    voters = [Voter("age", "age-0001", fold) for fold in range(5)]
    so_far = Answers({"age": 3}, 2, tuple(voters[:4]), (np.float32([[0.2, 0.3, 0.5], [0.0, 0.0, 1.0]]),) * 4)
    settled = combiner.settled(so_far, voters[4:])
    rest = {task: Decision(np.zeros(2, np.int64), np.eye(n)[[0, 0]]) for task, n in CLASS_COUNTS.items()}
    choices = [
        combiner.finish({
            **rest, "age": soft_vote([*so_far.probabilities, np.tile(np.float32(row), (2, 1))], [1.0] * 5),
        }).decisions["age"].choice[settled].tolist()
        for row in np.eye(3)
    ]  # fmt: skip
    assert choices[0] == choices[1] == choices[2]


def test_what_can_be_answered_where_a_task_has_no_voters() -> None:
    assert SOFT.answerable({"age", "gender"}) == ["gender", "age"]
    assert EACH["by mask"].answerable({"age", "gender"}) == ["gender"]
    assert EACH["by mask"].answerable({"age", "mask"}) == ["mask", "age"]


@given(each, st.integers(2, 5), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_no_answer_of_pending_voters_turns_a_settled_decision(
    name: str, members: int, answered: int, seed: int
) -> None:
    answered = min(answered, members - 1)
    combiner, whole = EACH[name], drawn(30, members, seed)
    for task, classes in CLASS_COUNTS.items():
        own = whole.of(task)
        others = whole.where(lambda voter, task=task: voter.task != task)
        so_far = own.where(lambda voter: voter.fold in range(answered))
        pending = [voter for voter in own.voters if voter not in so_far.voters]
        settled = combiner.settled(so_far, pending)
        silent = tuple(np.zeros((30, classes), np.float32) for _ in pending)
        now = combiner.combine(
            others.with_voters(so_far).with_voters(Answers(so_far.classes, 30, tuple(pending), silent))
        )
        for answer in np.eye(classes, dtype=np.float32):
            rest = Answers(so_far.classes, 30, tuple(pending), tuple(np.tile(answer, (30, 1)) for _ in pending))
            then = combiner.combine(others.with_voters(so_far).with_voters(rest))
            assert np.array_equal(now.label[settled] >= 0, then.label[settled] >= 0)
            assert np.array_equal(now.decisions[task].choice[settled], then.decisions[task].choice[settled])


def test_decisions_that_a_number_moves_settle_too() -> None:
    certain = np.tile(np.float32([1, 0, 0]), (2, 1))
    voters = [Voter("age", "age-0001", fold) for fold in range(5)]
    so_far = Answers({"age": 3}, 2, tuple(voters[:4]), (certain,) * 4)
    for name, settled in (
        ("soft", True),
        ("rule", True),
        ("scaled and rule", True),
        ("temperature", True),
        ("vector", False),
    ):
        assert EACH[name].settled(so_far, voters[4:]).tolist() == [settled] * 2, name


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_what_was_combined_in_parts_is_gathered_in_order(seed: int, parts: int) -> None:
    answers = drawn(23, 3, seed)
    part_of = np.random.default_rng(seed).permutation(23) % parts
    rows = [np.flatnonzero(part_of == part) for part in range(parts)]
    for combiner in EACH.values():
        whole = combiner.combine(answers)
        gathered = Combined.gathered([(of_part, combiner.combine(answers.take(of_part))) for of_part in rows])
        assert np.array_equal(gathered.label, whole.label)
        for task in TASKS:
            assert np.array_equal(gathered.decisions[task].choice, whole.decisions[task].choice)
            assert np.allclose(gathered.decisions[task].shares, whole.decisions[task].shares, atol=1e-12)


@dataclass(frozen=True)
class NeverOld(Vote):
    """A vote as a stranger would add one: nobody is old; it cannot tell what is settled."""

    name = "never_old"

    @property
    def how(self) -> str:
        return "as a soft vote, and 30-59 where it says >=60."

    def decide(self, answers: Answers) -> Decision:
        voted = soft_vote(answers.probabilities, answers.weights)
        return replace(voted, choice=np.minimum(voted.choice, 1)) if "age" in answers.classes else voted


@dataclass(frozen=True)
class Trusting(Vote):
    """One that learns: each run counts by its accuracy."""

    accuracies: Mapping[str, float]
    name = "trusting"

    @property
    def how(self) -> str:
        return "take the mean of the members' probabilities, weighted by `accuracies`."

    def decide(self, answers: Answers) -> Decision:
        return soft_vote(answers.probabilities, [self.accuracies[voter.source] for voter in answers.voters])

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.name, "accuracies": dict(self.accuracies)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        return cls(value["accuracies"])


def trust(answers: Answers, truth: np.ndarray, people: np.ndarray) -> Trusting:
    assert len(people) == len(answers)
    rights = [(array.argmax(axis=1) == truth).mean() for array in answers.probabilities]
    return Trusting({voter.source: float(right) for voter, right in zip(answers.voters, rights, strict=True)})


def enter(monkeypatch: pytest.MonkeyPatch, kind: type[Vote]) -> None:
    """A vote's class, its word, and where its numbers come from."""
    monkeypatch.setitem(voting.VOTES, kind.name, kind)
    monkeypatch.setitem(strategies.VOTES, kind.name, "another")
    if kind is Trusting:
        monkeypatch.setitem(learning.LEARNED, kind.name, trust)
        monkeypatch.setattr(strategies, "LEARNED_VOTES", (*strategies.LEARNED_VOTES, kind.name))
    else:
        monkeypatch.setitem(learning.PLAIN, kind.name, kind())


@pytest.mark.parametrize("kind", [NeverOld, Trusting])
def test_a_new_vote_is_a_class_and_its_word(
    orch: Orch, people: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: type[Vote]
) -> None:
    """Scored, saved, predicted with, asked in a cascade and labelled with, and no line of these knows it."""
    enter(monkeypatch, kind)
    name, images = kind.name, people / "eval/images"
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
        assert "combiners_by_fold" not in record
        assert "plain" not in record
    else:
        whole = record["combiner"]["votes"]["mask"]["accuracies"]["mask-0001"]
        assert 0 < whole < 1
        by_fold = {fold: value["votes"]["mask"]["accuracies"] for fold, value in record["combiners_by_fold"].items()}
        assert set(by_fold) == {"0", "1", "2"}
        held_out = pd.read_parquet(workspace / "mask-0001/fold-1/held_out.parquet")
        right = held_out.filter(like="p(mask").to_numpy().argmax(axis=1) == held_out["truth"]
        rest = 1.5 * whole - 0.5 * right.mean()  # three folds of equally many photos
        assert by_fold["1"]["mask-0001"] == pytest.approx(rest)
        assert set(record["plain"]) == {*TASKS, "label"}
    cascade = json.loads(orch(*predict, "--cascade").out)
    assert [answer["label"] for answer in cascade] == [answer["label"] for answer in answers]
    assert {answer["asked"] for answer in cascade} == {9}
    labels = tmp_path / "labels.csv"
    assert orch("pseudo", images, "-w", workspace, "--out", labels, "--threshold", 0.5).code == 0


def test_what_was_learned_is_not_asked_of_an_ensemble_that_learned_nothing(
    orch: Orch, people: Path, workspace: Path
) -> None:
    assert orch("ensemble", "--strategy", "hard", "-w", workspace).code == 0
    images = people / "eval/images"
    refused = orch("predict", images, "-w", workspace, "--engine", "torch", "--strategy", "greedy")
    assert refused.code == 2
    assert "--strategy greedy is learned when an ensemble is built: `orch ensemble --strategy greedy" in refused.err
    for words in (("--strategy", "greedy"), ("--calibrate", "vector"), ("--decide", "macro-f1")):
        refused = orch("ensemble", *words, "--no-score", "-w", workspace)
        assert refused.code == 2
        asked = "learns from out-of-fold answers, and there are none: left out as asked"
        assert f"{' '.join(words)} {asked}" in " ".join(refused.err.replace("--strategy soft ", "").split())


def test_what_labels_a_fold_has_learned_nothing_from_its_people(
    orch: Orch, people: Path, three_runs: Path, tmp_path: Path
) -> None:
    """Its labels are trained on by the member that will hold these people out."""
    runs = ("age=age-0001,age-0002", "gender=gender-0001", "mask=mask-0001")
    assert orch("ensemble", "--strategy", "greedy", "-w", three_runs, "--members", *runs).code == 0
    record = three_runs / "greedy-0001/ensemble.json"

    def labels() -> pd.DataFrame:
        out = tmp_path / "labels.csv"
        done = orch("pseudo", people / "eval/images", "-w", three_runs, "--out", out, "--threshold", 0.5)
        assert done.code == 0, done.err
        return pd.read_csv(out).set_index(["path", "fold"])["p(age)"]

    by_fold = json.loads(record.read_text())["combiners_by_fold"]
    weights = {"name": "weighted", "weights": {"age-0001": 0.5, "age-0002": 0.5}}
    other = {"name": "weighted", "weights": {"age-0001": 0.1, "age-0002": 0.9}}
    equal = {fold: {**value, "votes": {**value["votes"], "age": weights}} for fold, value in by_fold.items()}
    edit_sealed(record, combiners_by_fold=equal)
    before = labels()
    edit_sealed(
        record, combiners_by_fold={**equal, "1": {**equal["1"], "votes": {**equal["1"]["votes"], "age": other}}}
    )
    changed = before[before != labels()]
    assert len(changed)
    assert set(changed.index.get_level_values("fold")) == {1}
    edit_sealed(record, combiners_by_fold={})
    refused = orch("pseudo", people / "eval/images", "-w", three_runs, "--out", tmp_path / "labels.csv")
    assert refused.code == 2
    assert "has learned comes from the only people who are held out" in " ".join(refused.err.split())


def test_pseudo_labels_take_calibrated_probabilities_and_no_shares_of_votes(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path
) -> None:
    tables = {}
    for strategy in ("soft", "hard", "tempered"):
        words = ("--strategy", strategy) if strategy != "tempered" else ("--calibrate", "temperature")
        done = orch("ensemble", *words, "-w", workspace, "--json")
        assert done.code == 0, done.err
        name = json.loads(done.out)["id"]
        if strategy == "tempered":
            squared = {"scale": [[2.0, 2.0]], "bias": [[0.0, 0.0]], "given": ""}
            record = json.loads((workspace / name / "ensemble.json").read_text())
            by_fold = {
                fold: {**value, "calibrations": {**value["calibrations"], "gender": squared}}
                for fold, value in record["combiners_by_fold"].items()
            }
            edit_sealed(workspace / name / "ensemble.json", combiners_by_fold=by_fold)
        assert orch("ensembles", "use", name, "-w", workspace).code == 0
        out = tmp_path / f"{strategy}.csv"
        done = orch("pseudo", people / "eval/images", "-w", workspace, "--out", out, "--threshold", 0.5)
        assert done.code == 0, done.err
        tables[strategy] = pd.read_csv(out, dtype=str).set_index(["path", "fold"])
    assert tables["hard"].equals(tables["soft"])  # shares of votes are not probabilities
    common = tables["soft"].index.intersection(tables["tempered"].index)
    assert len(common) > 10
    chosen = tables["soft"].loc[common, "p(gender)"].astype(float)
    sharpened = tables["tempered"].loc[common, "p(gender)"].astype(float)
    assert np.allclose(sharpened, chosen**2 / (chosen**2 + (1 - chosen) ** 2), atol=5e-6)


def test_the_package_works_by_itself_wherever_it_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As beside an export: no import of orchestrator, the same answers."""
    shutil.copytree(Path(str(combining.__file__)).parent, tmp_path / "elsewhere")
    for path in (tmp_path / "elsewhere").glob("*.py"):
        assert "import orchestrator" not in path.read_text()
        assert "from orchestrator" not in path.read_text()
    monkeypatch.syspath_prepend(str(tmp_path))
    theirs: Any = importlib.import_module("elsewhere.combiners")
    assert theirs.Combiner is not Combiner
    answers = drawn(50, 3, 7)
    voters = tuple(theirs.Voter(voter.task, voter.source, voter.fold, voter.weight) for voter in answers.voters)
    copied = theirs.Answers(answers.classes, 50, voters, answers.probabilities)
    for combiner in EACH.values():
        mine, other = combiner.combine(answers), theirs.Combiner.from_dict(combiner.as_dict()).combine(copied)
        assert np.array_equal(mine.label, other.label)
        for task in TASKS:
            assert np.array_equal(mine.decisions[task].shares, other.decisions[task].shares)
