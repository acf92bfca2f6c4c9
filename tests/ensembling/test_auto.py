"""`--strategy auto`: it finds what surely helps, keeps a soft vote where nothing does, and its score counts the choosing."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from orchestrator.combining.answers import Answers, Voter
from orchestrator.combining.voting import WeightedVote
from orchestrator.core.labels import CLASS_COUNTS, LABELS
from orchestrator.core.metrics import macro_f1
from orchestrator.core.strategies import Strategy
from orchestrator.ensembling.auto import SURE, AutoLearner, try_strategies
from orchestrator.ensembling.learning import plain_combiner
from orchestrator.ensembling.out_of_fold import cross_fit
from tests.conftest import Done, edit_held_out
from tests.ensembling.test_learning import NOISE, answers_for, out_of_fold_of, people_of, truth_of

Orch = Callable[..., Done]
SHARES = [0.4, 0.4, 0.2]
AUTO = Strategy.parse("auto")


def with_bad(answers: Answers, truth: dict[str, np.ndarray], task: str, number: int = 9) -> Answers:
    """One more run of a task, which is sure of a wrong class on most photos."""
    rng = np.random.default_rng(number)
    classes = CLASS_COUNTS[task]
    wrong = (truth[task] + rng.integers(0, classes, len(answers))) % classes
    probabilities = np.full((len(answers), classes), 0.02 / (classes - 1), np.float32)
    probabilities[np.arange(len(answers)), wrong] = 0.98
    bad = Answers(CLASS_COUNTS, len(answers), (Voter(task, f"{task}-{number:04d}"),), (probabilities,))
    return answers.with_voters(bad)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_soft_vote_stands_where_nothing_is_surely_better(seed: int) -> None:
    truth = truth_of(60, SHARES, seed)
    answers = answers_for(truth, NOISE, seed + 10, sources=2)
    tried = try_strategies(AUTO, answers, truth, people_of(60))
    soft, *votes, decided = tried.strategies
    assert [vote.name for vote in votes] == ["geometric", "hard", "greedy", "soft, without runs that hurt"]
    assert soft.over_soft is None
    sure = [vote for vote in votes if vote.over_soft is not None and vote.over_soft.probability >= SURE]
    assert decided.name.startswith(max(sure, key=lambda vote: vote.macro_f1).name if sure else "soft +")
    (chosen,) = [strategy for strategy in tried.strategies if strategy.chosen]
    assert chosen in (soft, decided) if not sure else chosen in (*sure, decided)
    combiner = AutoLearner(AUTO).fit(answers, truth, people_of(60))
    if chosen.name == "soft":
        assert combiner == plain_combiner(Strategy.parse("soft"))


def test_runs_that_hurt_are_left_out_and_named() -> None:
    truth = truth_of(150, SHARES, 3)
    answers = with_bad(with_bad(answers_for(truth, NOISE, 4, sources=2), truth, "age"), truth, "mask")
    tried = try_strategies(AUTO, answers, truth, people_of(150))
    soft, best = tried.strategies[0], next(strategy for strategy in tried.strategies if strategy.chosen)
    assert best.over_soft is not None
    assert best.macro_f1 > soft.macro_f1
    without = next(strategy for strategy in tried.strategies if strategy.name == "soft, without runs that hurt")
    assert without.over_soft is not None
    assert without.over_soft.interval.low > 0
    combiner = AutoLearner(AUTO).fit(answers, truth, people_of(150))
    for task in ("age", "mask"):
        vote = combiner.votes[task]
        assert isinstance(vote, WeightedVote)
        assert vote.weights[f"{task}-0009"] < 0.05
        assert min(vote.weights[f"{task}-000{number}"] for number in (0, 1)) > 0.05


def test_the_last_run_of_a_task_is_never_left_out() -> None:
    truth = truth_of(100, SHARES, 5)
    plain = answers_for(truth, NOISE, 6)
    answers = with_bad(plain.where(lambda voter: voter.task != "age"), truth, "age")
    label = AutoLearner(AUTO).fit(answers, truth, people_of(100)).combine(answers).label
    assert label.shape == (400,)


def test_what_is_learned_of_chance_is_not_in_the_score() -> None:
    """Truths without any relation to the answers: choosing the best of many on them must not look like a gain."""
    gains = []
    for seed in range(3):
        truth = truth_of(40, SHARES, seed)
        answers = answers_for(truth_of(40, SHARES, seed + 50), NOISE, seed + 90, sources=2)
        held = out_of_fold_of(truth, answers)
        soft = plain_combiner(Strategy.parse("soft")).combine(answers).label
        auto = cross_fit(held, AutoLearner(AUTO)).combine(held).label
        gains.append(macro_f1(held.label, auto, len(LABELS)) - macro_f1(held.label, soft, len(LABELS)))
    assert np.mean(gains) < 0.01
    assert max(gains) < 0.03


def test_auto_names_what_it_tried_and_leaves_runs_out_of_the_ensemble(
    orch: Orch, people: Path, three_runs: Path
) -> None:
    for run, shift, sure in (("age-0001", 0, 0.7), ("age-0002", 1, 1.0)):  # one knows, one is sure of the wrong age
        for fold in range(3):
            table = three_runs / f"{run}/fold-{fold}/held_out.parquet"
            answers = pd.read_parquet(table)
            columns = [column for column in answers if str(column).startswith("p(")]
            right = np.eye(3, dtype=np.float32)[(answers["truth"] + shift) % 3]
            answers[columns] = sure * right + (1 - sure) / 2 * (1 - right)
            edit_held_out(table.parent, answers)
    done = orch("ensemble", "--strategy", "auto", "--members", "age=age-0001,age-0002", "-w", three_runs)
    assert done.code == 0, done.err
    record = json.loads((three_runs / "auto-0001/ensemble.json").read_bytes())
    assert record["tried"][0]["name"] == "soft"
    assert sum(tried["chosen"] for tried in record["tried"]) == 1
    assert "strategies tried" in done.out
    assert record["left_out"] == ["age-0002"]
    assert "age-0002 is left out: it has no weight in any task" in done.out
    assert {member["run"] for member in record["members"]["age"]} == {"age-0001"}
    assert {entry["run"] for entry in record["single"]["age"]} == {"age-0001", "age-0002"}
    photo = next((people / "eval/images").iterdir())
    assert orch("predict", photo, "-w", three_runs).code == 0
    assert orch("workspace", "check", "-w", three_runs).code == 0
    assert "auto" in orch("ensembles", "list", "-w", three_runs).out


def test_auto_chooses_for_all_tasks_at_once(orch: Orch, workspace: Path) -> None:
    done = orch("ensemble", "--strategy", "mask=auto,age=soft", "-w", workspace)
    assert done.code == 2
    assert "auto chooses for all tasks at once. Write --strategy auto." in done.err
    assert orch("ensemble", "--strategy", "auto", "-w", workspace).code == 0
    record = json.loads((workspace / "auto-0001/ensemble.json").read_bytes())
    assert [tried["name"] for tried in record["tried"]] == [
        "soft",
        "soft +macro-f1",
    ]  # with one run a task, votes are alike
    done = orch("predict", "--strategy", "auto", "x.jpg", "-w", workspace)
    assert done.code == 2
