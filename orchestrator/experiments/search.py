"""A search's storage and sampler: Optuna, with an SQLite file that survives a kill at any moment.

    sweeps/age-1a2b3c4d.db      the trials
    sweeps/age-1a2b3c4d.json    its seal: sha256 of the file after the last command; absent while one is running

Every draw is seeded by the search's seed and the trial's number alone, so a search that was killed and run again draws what it
would have drawn.
"""

from __future__ import annotations

import os
import sqlite3
import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.core.commands import set_aside_command
from orchestrator.core.errors import DamagedError, OrchestratorError, first_line
from orchestrator.core.extras import import_optional
from orchestrator.core.files import digest_of, sha256_of
from orchestrator.core.sealed import check_file, damaged_error, read_sealed, write_sealed
from orchestrator.recipes.spaces import Choice, Space

__all__ = ["COMPLETE", "FAILED", "PRUNED", "RUNNING", "Search", "Trial", "thresholds_of"]

RUNNING, COMPLETE, PRUNED, FAILED = "running", "complete", "pruned", "failed"

NAME = "sweep"  # name of the only study in a file

FIRST_SHARE = 0.2
"""Share of a training before which nothing is pruned: scores during warm-up say little."""

FEWEST = 4
"""Complete trials needed for a threshold: the median of fewer means little."""

STARTUP = 8
"""Trials drawn at random before the sampler learns from them."""


@dataclass(frozen=True)
class Trial:
    """One point of the space that was or is tried.

    Attributes:
        number: its number, from 0.
        changes: the changed settings, `KEY=VALUE`.
        state: `running`, `complete`, `pruned` or `failed`.
        score: out-of-fold macro F1; None unless complete.
        run: the id of its run; None before it has one.
        why: the reason if it was pruned or failed.
        curve: (share of the training done, best macro F1 so far) of its first member.
    """

    number: int
    changes: tuple[str, ...]
    state: str
    score: float | None = None
    run: str | None = None
    why: str = ""
    curve: tuple[tuple[float, float], ...] = ()


SEAL_FORMAT = 1

BEGIN_ANEW = "the same command starts the search over; runs that are trained are found, and not trained again"


class Search:
    """Trials of one space, on disk.

    The file changes while the search runs; `close` seals it. A file without a seal is from a killed search, and only
    SQLite's own check applies.

    Args:
        file: the SQLite database, created if it is missing; its name is the search's.
        space: the search space.
        seed: seed of the draws.

    Raises:
        ConfigError: Optuna is not installed, or cannot be imported.
        DamagedError: the file is not the one that was written.
    """

    def __init__(self, file: Path, space: Space, seed: int) -> None:
        optuna, pool = (
            import_optional("optuna", "a search", "sweep"),
            import_optional("sqlalchemy.pool", "a search", "sweep"),
        )
        self._optuna, self.space, self._seed, self._file = optuna, space, seed, file
        self._seal = file.with_suffix(".json")
        self._storage: Any = None
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        file.parent.mkdir(parents=True, exist_ok=True)
        self.database_missing = self._seal.exists() and not os.path.lexists(file)
        """Whether the database of an earlier command is missing: the search starts over."""
        if not self.database_missing:
            self._check()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Alembic's, about which a user can do nothing
                # The path goes to SQLite as it is: in an URL, a ? or a % in a workspace's name would mean something else.
                # Without a pool, as nothing can close that of a storage which could not be opened.
                self._storage = optuna.storages.RDBStorage(
                    "sqlite:///search.db",
                    engine_kwargs={"creator": lambda: sqlite3.connect(file, timeout=60), "poolclass": pool.NullPool},
                )
                self._study = optuna.create_study(
                    storage=self._storage, study_name=NAME, direction="maximize", load_if_exists=True
                )
            if self._study.user_attrs.setdefault("search", file.stem) != file.stem:
                raise _broken(file, f"holds the search {self._study.user_attrs['search']}")
            self._study.set_user_attr("search", file.stem)
            self._seal.unlink(missing_ok=True)
            self._axes = {name: self._distribution(name) for name in space.axes}
            self.trials  # noqa: B018  # all of them can be read
        except DamagedError:
            self.release()
            raise
        except Exception as error:  # SQLAlchemy's and SQLite's, dozens of kinds
            self.release()
            raise _broken(file, f"cannot be read as a search ({first_line(error)})") from None

    def _check(self) -> None:
        """Checks the file against its seal; without a seal, by SQLite's own check."""
        file = self._file
        if os.path.lexists(self._seal):
            again = f"`{set_aside_command(self._seal)}`, and the same command goes on with the search, if it is whole"
            body = read_sealed(self._seal, "search", file.stem, SEAL_FORMAT, again)
            check_file(file, body["sha256"], f"`{set_aside_command(file)}`: {BEGIN_ANEW}")
        elif os.path.lexists(file):
            if not file.is_file():
                raise _broken(file, "a folder or a link that leads nowhere, where a file must be")
            try:
                with closing(sqlite3.connect(file, timeout=60)) as base:
                    (integrity,) = base.execute("pragma integrity_check(1)").fetchone()
            except (sqlite3.Error, UnicodeError) as error:
                integrity = str(error)
            if integrity != "ok":
                raise _broken(file, f"damaged ({integrity})")

    def release(self) -> None:
        """Closes the file without sealing it; safe to repeat."""
        if self._storage is not None:
            self._storage.remove_session()
            self._storage.engine.dispose()

    def close(self) -> None:
        """Closes the file and seals it; safe to repeat."""
        self.release()
        with suppress(
            OSError, OrchestratorError
        ):  # no room on the disk: as after a kill, only SQLite's own check will apply
            write_sealed(self._seal, "search", self._file.stem, SEAL_FORMAT, {"sha256": sha256_of(self._file)})

    def _distribution(self, name: str) -> Any:
        axis, distributions = self.space.axes[name], self._optuna.distributions
        if isinstance(axis, Choice):
            return distributions.CategoricalDistribution(list(axis.options))
        if axis.is_integer:
            return distributions.IntDistribution(int(axis.low), int(axis.high), axis.log, int(axis.step or 1))
        return distributions.FloatDistribution(axis.low, axis.high, axis.log, axis.step)

    @property
    def trials(self) -> list[Trial]:
        """All trials so far, in the order of their numbers, each checked against its digests."""
        return [self._trial(trial) for trial in self._study.get_trials(deepcopy=False)]

    def _trial(self, frozen: Any) -> Trial:
        """A trial, checked against its digests.

        Raises:
            DamagedError: the trial has changed since it was written.
        """
        states = {"RUNNING": RUNNING, "COMPLETE": COMPLETE, "PRUNED": PRUNED}
        notes = frozen.user_attrs
        curve = tuple((share, score) for share, score in notes.get("curve", ()))
        trial = Trial(
            frozen.number, tuple(self.space.settings(frozen.params)), states.get(frozen.state.name, FAILED),
            frozen.value if frozen.state.name == "COMPLETE" else None, notes.get("run"), notes.get("why", ""), curve,
        )  # fmt: skip
        sound = notes.get("drawn") == _drawn_digest(trial.number, frozen.params, notes)
        if not sound or (trial.state != RUNNING and notes.get("ended") != _ended_digest(trial)):
            raise _broken(self._file, f"trial {trial.number} is not as it was written")
        return trial

    def ask(self, count: int) -> list[Trial]:
        """Draws a round of `count` trials, or resumes the round that a killed command left running.

        A round's draws do not depend on when it was killed: the rest of its trials is drawn, and those that have not
        ended are returned. In a space of choices alone no point is drawn twice, so there may be fewer.
        """
        trials = self._study.get_trials(deepcopy=False)
        notes = next(
            (trial.user_attrs for trial in trials if trial.state.name == "RUNNING"), {"round": len(trials), "of": count}
        )
        of_round = [trial for trial in trials if trial.user_attrs.get("round") == notes.get("round")]
        for _ in range(notes.get("of", 0) - len(of_round)):
            trials = self._study.get_trials(deepcopy=False)
            values = self._drawn(trials)
            if values is None:
                break
            # Optuna's own `ask` writes setting by setting; added like this, a kill leaves a whole trial or none.
            self._study.add_trial(
                self._optuna.trial.create_trial(
                    state=self._optuna.trial.TrialState.RUNNING,
                    params=values,
                    distributions=self._axes,
                    user_attrs={**notes, "drawn": _drawn_digest(len(trials), values, notes)},
                )
            )
        return [trial for trial in self.trials if trial.state == RUNNING]

    def _drawn(self, trials: Sequence[Any]) -> dict[str, Any] | None:
        """A point for the next trial, given the earlier ones; None when all points of a space of choices are tried."""
        entropy = np.random.SeedSequence([self._seed, len(trials)])
        if self.space.points is not None:
            tried = [trial.params for trial in trials]
            untried = [point for point in self.space.points if point not in tried]
            return untried[int(np.random.default_rng(entropy).integers(len(untried)))] if untried else None
        sampler = self._optuna.samplers.TPESampler(seed=int(entropy.generate_state(1)[0]), n_startup_trials=STARTUP)
        memory = self._optuna.create_study(direction="maximize", sampler=sampler)
        memory.add_trials(trials)
        return dict(memory.ask(self._axes).params)

    def note_run(self, number: int, run: str) -> None:
        """Records the run of a trial."""
        self._storage.set_trial_user_attr(self._id(number), "run", run)

    def record_end(self, trial: Trial) -> None:
        """Records how a trial ended."""
        states = self._optuna.trial.TrialState
        state = {COMPLETE: states.COMPLETE, PRUNED: states.PRUNED, FAILED: states.FAIL}[trial.state]
        trial_id = self._id(trial.number)
        curve, ended = [list(pair) for pair in trial.curve], _ended_digest(trial)
        for key, value in (("run", trial.run), ("why", trial.why), ("curve", curve), ("ended", ended)):
            self._storage.set_trial_user_attr(trial_id, key, value)
        for share, score in trial.curve:  # for Optuna's own dashboards: steps are per cent of the training
            self._storage.set_trial_intermediate_value(trial_id, round(100 * share), score)
        self._study.tell(trial.number, trial.score, state)

    def _id(self, number: int) -> int:
        study = self._storage.get_study_id_from_name(NAME)
        return int(self._storage.get_trial_id_from_study_id_trial_number(study, number))

    def importance(self) -> dict[str, float]:
        """Axis -> share of the differences between complete trials that it explains; empty for too few trials.

        Optuna's PED-ANOVA (Watanabe et al. 2023, arXiv 2304.10255).
        """
        scores = {trial.score for trial in self.trials if trial.state == COMPLETE}
        if len(scores) < 2 * FEWEST or len(self._axes) < 2:
            return {}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                shares = self._optuna.importance.get_param_importances(self._study)
        except (RuntimeError, ValueError):  # nothing differs
            return {}
        return {name: float(share) for name, share in shares.items() if np.isfinite(share)}


def _drawn_digest(number: int, values: Mapping[str, Any], notes: Mapping[str, Any]) -> str:
    """A digest of a drawn trial: the file of a killed search has no seal, so each trial has its own digests."""
    return digest_of([number, dict(values), notes.get("round"), notes.get("of")])


def _ended_digest(trial: Trial) -> str:
    """A digest of how a trial ended."""
    curve = [list(pair) for pair in trial.curve]
    return digest_of([trial.number, list(trial.changes), trial.state, trial.score, trial.run, trial.why, curve])


def _broken(file: Path, reason: str) -> DamagedError:
    return damaged_error(file, reason, f"`{set_aside_command(file)}`: {BEGIN_ANEW}")


def thresholds_of(trials: Sequence[Trial], epochs: int, evaluate_every: int) -> dict[int, float]:
    """Pruning thresholds of a new trial: the median of the complete trials' best scores up to the same point.

    The median stopping rule (Golovin et al. 2017, "Google Vizier", section 3.2.2), by the share of the training done,
    so that trials of few and of many epochs are compared by their scores and not by their length.

    Args:
        trials: all trials; only complete ones count.
        epochs: number of epochs of the new trial.
        evaluate_every: epochs between its scores.

    Returns:
        Epoch -> macro F1; empty while there are too few complete trials.
    """
    curves = [trial.curve for trial in trials if trial.state == COMPLETE and trial.curve]
    pruning_thresholds: dict[int, float] = {}
    for epoch in range(evaluate_every, epochs, evaluate_every):
        share = epoch / epochs
        scores = [best[-1] for curve in curves if (best := [score for done, score in curve if done <= share + 1e-9])]
        if share >= FIRST_SHARE and len(scores) >= FEWEST:
            pruning_thresholds[epoch] = float(np.median(scores))
    return pruning_thresholds
