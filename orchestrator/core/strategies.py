"""Strategies: what a user asks of an ensemble's combiner, in words. Needs no NumPy.

`ensembling/learning.py` makes a combiner of a strategy, and learns the numbers that come from out-of-fold answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.core.errors import ConfigError, Mistakes, check_choice, nearest
from orchestrator.core.labels import TASKS

__all__ = [
    "AUTO",
    "CALIBRATIONS",
    "DECISIONS",
    "ENSEMBLE_KINDS",
    "LEARNED_VOTES",
    "OF_A_PERSON",
    "VOTES",
    "Strategy",
    "exponent_of",
]

VOTES: Mapping[str, str] = {
    "soft": "mean of probabilities",
    "hard": "majority of votes",
    "geometric": "geometric mean of probabilities",
    "power:P": "between these two means, as power:0.5",
    "greedy": "mean weighted by run, the weights learned out of fold",
    "auto": "the best of these out of fold, if it is surely better than soft; runs that hurt are left out",
}
"""Words of `--strategy` -> what they mean."""

AUTO = "auto"
"""The word that leaves the choice to scores; for all tasks at once, since the 18-way score decides."""

LEARNED_VOTES = ("greedy", AUTO)
"""Those of them whose numbers are learned from out-of-fold answers."""

OF_A_PERSON = ("gender", "age")
"""Tasks whose answer is the same on all photos of a person."""

CALIBRATIONS: Mapping[str, str] = {
    "none": "probabilities as voted",
    "temperature": "one number a task",
    "vector": "two numbers a class",
}
"""Words of `--calibrate` -> what is learned."""

DECISIONS: Mapping[str, str] = {
    "argmax": "the most probable class of each task",
    "macro-f1": "a rare class sooner: its probability times a number that is learned; for members trained without class weights",
}
"""Words of `--decide` -> which label is answered."""

POWER = "power:"
LEAST_EXPONENT = 0.01
"""With less, all probabilities to that power are nearly the same number: the geometric mean is meant."""

MIXED = "mixed"
ENSEMBLE_KINDS = (*(word.partition(":")[0] for word in VOTES), MIXED)
"""First parts of ensembles' names: the vote, or `mixed` where tasks have several."""


def exponent_of(word: str) -> float | None:
    """The exponent of a power mean in words, `power:0.5` or `geometric`; None for another vote.

    Raises:
        ValueError: it is no number from `LEAST_EXPONENT` to below 1.
    """
    if word == "geometric":
        return 0.0
    if not word.startswith(POWER):
        return None
    exponent = float(word.removeprefix(POWER)) if word.isascii() else 0.0
    if not LEAST_EXPONENT <= exponent < 1:
        raise ValueError(f"an exponent of {exponent:g}")
    return exponent


@dataclass(frozen=True)
class Strategy:
    """What a user asks of a combiner.

    Attributes:
        votes: task -> its vote, a word of `VOTES`; every task has one.
        calibrate: a word of `CALIBRATIONS`.
        decide: a word of `DECISIONS`.
        pool_people: whether it is learned how a person's photos answer together for age and gender.
    """

    votes: Mapping[str, str]
    calibrate: str = "none"
    decide: str = "argmax"
    pool_people: bool = False

    @classmethod
    def parse(
        cls, strategy: str = "soft", calibrate: str = "none", decide: str = "argmax", pool_people: bool = False
    ) -> Strategy:
        """A strategy from the words of `--strategy`, `--calibrate` and `--decide`, and `--pool-people`.

        Args:
            strategy: one vote for all tasks, or `TASK=VOTE,TASK=VOTE`; a task that is not named votes softly.
            calibrate: a word of `CALIBRATIONS`.
            decide: a word of `DECISIONS`.
            pool_people: as the attribute.

        Raises:
            ConfigError: words that are not allowed, or that do not go together; all at once.
        """
        mistakes, votes = Mistakes(), dict.fromkeys(TASKS, "soft")
        with mistakes.collect():
            votes |= _votes_of(strategy)
        with mistakes.collect():
            check_choice("--calibrate", calibrate, CALIBRATIONS)
        with mistakes.collect():
            check_choice("--decide", decide, DECISIONS)
        mistakes.raise_if_any()
        result = cls(votes, calibrate, decide, pool_people)
        whose = (
            set(votes.values()) if (calibrate, decide) != ("none", "argmax") else {votes[task] for task in OF_A_PERSON}
        )
        if "hard" in whose and result.options[2:]:
            raise ConfigError(
                f"{' '.join(result.options[2:])} needs probabilities, and a hard vote gives shares of votes. Choose another "
                "vote, for example --strategy soft."
            )
        return result

    @property
    def words(self) -> str:
        """As `--strategy` takes it: one word where all tasks vote alike."""
        if len(set(self.votes.values())) == 1:
            return next(iter(self.votes.values()))
        return ",".join(f"{task}={vote}" for task, vote in self.votes.items())

    @property
    def title(self) -> str:
        """Its name in messages: `soft vote`, `soft vote, vector calibration, decision for macro-f1`."""
        parts = [f"{self.words} vote"]
        parts += [f"{self.calibrate} calibration"] if self.calibrate != "none" else []
        parts += [f"decision for {self.decide}"] if self.decide != "argmax" else []
        parts += ["people's photos together"] if self.pool_people else []
        return ", ".join(parts)

    @property
    def short(self) -> str:
        """Its name in tables: the vote, and `+` for each further part, as in `soft +vector +macro-f1 +people`."""
        parts = [self.calibrate] if self.calibrate != "none" else []
        parts += [self.decide] if self.decide != "argmax" else []
        return " ".join([self.words, *(f"+{part}" for part in [*parts, *(["people"] if self.pool_people else [])])])

    @property
    def kind(self) -> str:
        """The first part of its ensembles' names."""
        kinds = {vote.partition(":")[0] for vote in self.votes.values()}
        return next(iter(kinds)) if len(kinds) == 1 else MIXED

    @property
    def is_auto(self) -> bool:
        """Whether the vote is chosen by scores."""
        return AUTO in self.votes.values()

    @property
    def learns(self) -> bool:
        """Whether it learns numbers from out-of-fold answers, without which it combines nothing."""
        return bool({*self.votes.values()} & {*LEARNED_VOTES}) or bool(self.options[2:])

    @property
    def options(self) -> list[str]:
        """The options of a command that asks for it."""
        options = ["--strategy", self.words]
        options += ["--calibrate", self.calibrate] if self.calibrate != "none" else []
        options += ["--decide", self.decide] if self.decide != "argmax" else []
        options += ["--pool-people"] if self.pool_people else []
        return options


def _votes_of(strategy: str) -> dict[str, str]:
    """Task -> vote, of the tasks that the words of `--strategy` name.

    Raises:
        ConfigError: words that are not allowed; all at once.
    """
    mistakes = Mistakes()
    if "=" not in strategy:
        _check_vote(strategy)
        return dict.fromkeys(TASKS, strategy)
    votes: dict[str, str] = {}
    for word in strategy.split(","):
        task, _, vote = word.partition("=")
        with mistakes.collect():
            if task not in TASKS or task in votes:
                if task in votes:
                    raise ConfigError(f"--strategy {word}: {task} appears twice.")
                raise ConfigError(
                    f"--strategy {word}: write TASK=VOTE with a task of {', '.join(TASKS)}.{nearest(task, TASKS)}"
                )
            _check_vote(vote)
            if vote == AUTO:
                raise ConfigError(f"--strategy {word}: auto chooses for all tasks at once. Write --strategy auto.")
            votes[task] = vote
    mistakes.raise_if_any()
    return votes


def _check_vote(word: str) -> None:
    try:
        exponent = exponent_of(word)
    except ValueError:
        raise ConfigError(f"--strategy {word}: P is a number from 0.01 to below 1, as in power:0.5.") from None
    if exponent is None and word not in VOTES:
        raise ConfigError(f"--strategy {word}; allowed: {', '.join(VOTES)}.{nearest(word, VOTES)}")
