"""Thin adapters to trackers that people have already: TensorBoard, MLflow, Weights & Biases."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

from orchestrator.artifacts.differences import flat_settings
from orchestrator.artifacts.run import RunRecord
from orchestrator.core.commands import shell_join
from orchestrator.core.errors import (
    ConfigError,
    Mistakes,
    OrchestratorError,
    escape_non_utf8,
    first_line,
    nearest,
    printable,
)
from orchestrator.core.extras import import_optional, require
from orchestrator.core.outputs import Output, check_outputs

__all__ = ["KINDS", "Tracker", "check_words", "open_trackers", "why_disabled"]

KINDS = ("tensorboard", "mlflow", "wandb")
PROJECT = "orchestrator"
WANDB_MODES = ("offline", "online", "shared")
"""Modes in which wandb keeps what it gets (`wandb.Settings.mode`, without older names of these)."""


Result = TypeVar("Result")


class Tracker(Protocol):
    """A tracker's interface; each of its runs is one of ours."""

    name: str
    """Unique per destination: what has been sent there is recorded under this name."""

    look: str
    """How to view the results: a command, or an address."""

    def knows(self, run: RunRecord, tracker_id: str) -> bool:
        """Whether the run that the tracker calls `tracker_id` still exists: somebody may have deleted it."""

    def begin(self, run: RunRecord, tracker_id: str | None) -> str:
        """Opens a run, or resumes the one that the tracker calls `tracker_id`; returns its id in the tracker."""

    def epoch(self, run: RunRecord, member: str, number: int, values: Mapping[str, float]) -> None:
        """One epoch of one member: its number, from 1, and its finite numbers by the keys of `NUMBERS`."""

    def end(self, run: RunRecord, score: float | None) -> None:
        """The run is complete, with its out-of-fold macro F1."""

    def close(self) -> None:
        """Called when nothing more will be sent."""


def check_words(words: Sequence[str]) -> None:
    """Refuses `--track` words that name no tracker, one that is not installed, or a place that it cannot write to.

    Raises:
        ConfigError: says what is wrong with each of them.
    """
    mistakes = Mistakes()
    for word in words:
        kind, has_place, destination = word.partition("=")
        if kind not in KINDS:
            mistakes.add(ConfigError(f"tracker {word}: allowed: {', '.join(KINDS)}.{nearest(kind, KINDS)}"))
            continue
        with mistakes.collect():
            require(f"tracker {kind}", kind)
        if has_place and not destination:
            mistakes.add(
                ConfigError(f"tracker {word}: names no place. Write {kind} alone for a place in the workspace.")
            )
        if word != escape_non_utf8(word):  # all three keep their places as UTF-8 text
            mistakes.add(
                ConfigError(f"tracker {printable(word)}: the name of the place must be UTF-8. Choose another.")
            )
            continue
        with mistakes.collect():
            if destination and kind == "mlflow":
                _check_uri(destination)
            elif destination:
                check_outputs([Output(f"tracker {kind}:", Path(destination), folder=True)])
    mistakes.raise_if_any()


def _check_uri(uri: str) -> None:
    """Refuses what is no tracking URI of MLflow's, which would take it for a folder."""
    if "://" not in uri:
        raise ConfigError(f"tracker mlflow={uri}: PLACE is a tracking URI: http://HOST:PORT, or sqlite:///FILE.db.")
    if uri.startswith("sqlite:///"):
        check_outputs([Output("tracker mlflow:", Path(uri.removeprefix("sqlite:///").partition("?")[0]))])


def why_disabled(word: str) -> str:
    """Why a tracker would discard all that it gets; empty if it would not."""
    mode = os.environ.get("WANDB_MODE", "offline")
    if word.partition("=")[0] != "wandb" or mode in WANDB_MODES:
        return ""
    reason = "wandb would receive nothing" if mode == "disabled" else "wandb has no such mode"
    return f"{reason}: WANDB_MODE={mode}. Unset it, or set it to one of {', '.join(WANDB_MODES)}."


def open_trackers(words: Sequence[str], workspace: Path) -> list[Tracker]:
    """The trackers of `--track` words: `KIND` or `KIND=PLACE`.

    Args:
        words: `tensorboard`, `mlflow`, `wandb`; PLACE is a folder, for MLflow a tracking URI.
        workspace: where they write without a PLACE.

    Raises:
        ConfigError: an unknown kind, one that is not installed or cannot be imported, or a place that cannot be reached.
    """
    check_words(words)
    defaults = {
        "tensorboard": Output("tracker tensorboard:", workspace / "tensorboard", folder=True),
        "wandb": Output("tracker wandb:", workspace / "wandb", folder=True),
        "mlflow": Output("tracker mlflow:", workspace / "mlflow.db"),
    }
    check_outputs([output for word, output in defaults.items() if word in words])
    if off := [why for word in words if (why := why_disabled(word))]:
        raise ConfigError("\n".join(off))
    makers: dict[str, Callable[[str], Tracker]] = {
        "tensorboard": lambda destination: TensorBoard(Path(destination or workspace / "tensorboard")),
        "mlflow": lambda destination: MLflow(destination or sqlite_uri(workspace / "mlflow.db")),
        "wandb": lambda destination: Wandb(Path(destination or workspace)),
    }
    return [_Guarded(makers[word.partition("=")[0]](word.partition("=")[2])) for word in words]


def sqlite_uri(file: Path) -> str:
    """SQLAlchemy's URL of an SQLite file, quoted by SQLAlchemy itself.

    Raises:
        ConfigError: this version of it has no way to write such a path (before 2.1: one with a question mark).
    """
    urls = import_optional("sqlalchemy.engine", "tracker mlflow", "mlflow")
    plain = str(file.absolute())
    uri: str = urls.URL.create("sqlite", database=plain).render_as_string(hide_password=False)
    if urls.make_url(uri).database != plain:
        raise ConfigError(
            f"tracker mlflow: {file}: the installed SQLAlchemy cannot open this path; name a place: mlflow=URI."
        )
    return uri


def finite(values: Mapping[str, float]) -> dict[str, float]:
    """The finite numbers (a loss may be infinite): trackers reject NaN and infinity, or plot them wrongly."""
    return {key: value for key, value in values.items() if math.isfinite(value)}


class _Guarded:
    """A tracker whose errors, of dozens of kinds, become `ConfigError`s."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker, self.name, self.look = tracker, tracker.name, tracker.look

    def knows(self, run: RunRecord, tracker_id: str) -> bool:
        return self._try(self._tracker.knows, run, tracker_id)

    def begin(self, run: RunRecord, tracker_id: str | None) -> str:
        return self._try(self._tracker.begin, run, tracker_id)

    def epoch(self, run: RunRecord, member: str, number: int, values: Mapping[str, float]) -> None:
        self._try(self._tracker.epoch, run, member, number, finite(values))

    def end(self, run: RunRecord, score: float | None) -> None:
        self._try(self._tracker.end, run, score if score is not None and math.isfinite(score) else None)

    def close(self) -> None:
        self._try(self._tracker.close)

    def _try(self, act: Callable[..., Result], *arguments: Any) -> Result:
        try:
            return act(*arguments)
        except OrchestratorError:
            raise
        except Exception as error:  # each tracker's client has exceptions of its own
            raise ConfigError(
                f"tracker {self.name}: {first_line(error)}. What was sent is recorded: the same command goes on from there."
            ) from error


class TensorBoard:
    """Event files in one folder per member, so that the folds' curves are overlaid.

    Args:
        folder: the folder for `tensorboard --logdir`.
    """

    def __init__(self, folder: Path) -> None:
        writers = import_optional("torch.utils.tensorboard", "tracker tensorboard", "tensorboard")
        self.name, self.look = f"tensorboard={folder.absolute()}", shell_join(["tensorboard", "--logdir", folder])
        self._make, self._folder, self._writers = writers.SummaryWriter, folder, dict[Path, Any]()

    def _writer(self, folder: Path) -> Any:
        if folder not in self._writers:
            self._writers[folder] = self._make(str(folder))
        return self._writers[folder]

    def knows(self, run: RunRecord, tracker_id: str) -> bool:  # noqa: ARG002  (other trackers need it)
        """Whether its folder is there."""
        return (self._folder / tracker_id).is_dir()

    def begin(self, run: RunRecord, tracker_id: str | None) -> str:
        """Writes the recipe as a table of text, once."""
        if tracker_id is None:
            rows = "\n".join(f"| {key} | {value} |" for key, value in flat_settings(run.recipe).items())
            self._writer(self._folder / run.id).add_text("recipe", f"| setting | value |\n|---|---|\n{rows}")
        return run.id

    def epoch(self, run: RunRecord, member: str, number: int, values: Mapping[str, float]) -> None:
        """Writes the epoch's numbers as scalars of the member's own folder."""
        writer = self._writer(self._folder / run.id / member)
        for key, value in values.items():
            writer.add_scalar(key, value, number)
        writer.flush()

    def end(self, run: RunRecord, score: float | None) -> None:
        """Writes the run's out-of-fold score as a scalar, if it has one."""
        if score is not None:
            self._writer(self._folder / run.id).add_scalar("macro_f1", score, 0)

    def close(self) -> None:
        """Closes the event files of all members."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()


class MLflow:
    """A tracking server, or a database in a file.

    Args:
        uri: MLflow's tracking URI: `http://...`, `sqlite:///...`.

    Raises:
        ConfigError: it cannot be reached, or its package cannot be imported.
    """

    def __init__(self, uri: str) -> None:
        tracking = import_optional("mlflow.tracking", "tracker mlflow", "mlflow")
        for name in ("mlflow", "alembic"):  # they log their tables for every new file
            logging.getLogger(name).setLevel(logging.WARNING)
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # an unreachable server must not delay training
        self.name, self._ids = f"mlflow={uri}", dict[str, str]()
        self.look = uri if uri.startswith("http") else shell_join(["mlflow", "ui", "--backend-store-uri", uri])
        try:
            if not uri.startswith("http"):
                _try_database(uri)  # MLflow itself would try for a minute and a half
            with _without_stray_folders(uri):
                self._client = tracking.MlflowClient(uri)
                experiment = self._client.get_experiment_by_name(PROJECT)
        except OrchestratorError:
            raise
        except Exception as error:  # requests', SQLAlchemy's or MLflow's own
            anew = (
                " Set a damaged file aside under another name: the next command begins a new one."
                if uri.startswith("sqlite:")
                else ""
            )
            raise ConfigError(f"tracker mlflow: {uri} cannot be reached ({first_line(error)}).{anew}") from None
        if experiment is not None and experiment.lifecycle_stage == "deleted":
            restore = shell_join(["mlflow", "experiments", "restore", "--experiment-id", str(experiment.experiment_id)])
            where = f"MLFLOW_TRACKING_URI={shell_join([uri])}"
            raise ConfigError(
                f"tracker mlflow: the experiment '{PROJECT}' was deleted in {uri}. Restore it: `{where} {restore}`; "
                "or name another place: mlflow=URI."
            )
        try:
            self._experiment = experiment.experiment_id if experiment else self._client.create_experiment(PROJECT)
        except Exception as error:  # requests', SQLAlchemy's or MLflow's own, some without a word
            raise ConfigError(f"tracker mlflow: {uri} takes no new experiment ({first_line(error)}).") from None

    def knows(self, run: RunRecord, tracker_id: str) -> bool:
        """Whether the run is there and not deleted."""
        exceptions = import_optional("mlflow.exceptions", "tracker mlflow", "mlflow")
        if self._ids.get(run.id) == tracker_id:
            return True
        try:
            is_active = self._client.get_run(tracker_id).info.lifecycle_stage == "active"
        except exceptions.MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
        if is_active:
            self._ids[run.id] = tracker_id
        return bool(is_active)

    def begin(self, run: RunRecord, tracker_id: str | None) -> str:
        """Creates the run with its recipe as parameters, or goes on with it."""
        if tracker_id is None:
            tags = {
                "task": run.task,
                "recipe": run.recipe_title,
                "seed": str(run.seed),
                "data": run.data.fingerprint[:12],
            }
            made = self._client.create_run(self._experiment, run_name=run.id, tags=tags)
            tracker_id = str(made.info.run_id)
            for key, value in flat_settings(run.recipe).items():
                self._client.log_param(tracker_id, key, str(value)[:500])
        self._ids[run.id] = tracker_id
        return tracker_id

    def epoch(self, run: RunRecord, member: str, number: int, values: Mapping[str, float]) -> None:
        """Logs the epoch's numbers as `fold-0/loss` and the like."""
        for key, value in values.items():
            self._client.log_metric(self._ids[run.id], f"{member}/{key}", value, step=number)

    def end(self, run: RunRecord, score: float | None) -> None:
        """Logs the out-of-fold score and marks the run finished."""
        if score is not None:
            self._client.log_metric(self._ids[run.id], "macro_f1", score)
        self._client.set_terminated(self._ids[run.id], "FINISHED")

    def close(self) -> None:
        """Does nothing: MLflow's client keeps nothing open between calls."""


class Wandb:
    """Weights & Biases, offline unless WANDB_MODE says otherwise; `wandb sync` sends the folder later.

    Args:
        folder: the folder in which wandb makes its own, `wandb/`.
    """

    def __init__(self, folder: Path) -> None:
        wandb = import_optional("wandb", "tracker wandb", "wandb")
        self.name, self._folder, self._runs = f"wandb={folder.absolute()}", folder, dict[str, Any]()
        self._wandb = wandb
        os.environ.setdefault("WANDB_MODE", "offline")
        sync = f"wandb sync {shell_join([folder / 'wandb'])}/offline-run-*"
        self.look = "wandb.ai" if os.environ["WANDB_MODE"] == "online" else sync

    def knows(self, run: RunRecord, tracker_id: str) -> bool:  # noqa: ARG002  (other trackers need it)
        """Whether its files exist; a run on the server is assumed to exist."""
        return os.environ["WANDB_MODE"] == "online" or any(self._folder.glob(f"wandb/*run-*-{tracker_id}"))

    def begin(self, run: RunRecord, tracker_id: str | None) -> str:
        """Opens the run with its recipe as its config."""
        if run.id in self._runs and tracker_id:
            return tracker_id
        self._folder.mkdir(parents=True, exist_ok=True)
        run_id = tracker_id or f"{run.id}-{run.created}".replace(":", "").replace("+", "-")
        self._runs[run.id] = self._wandb.init(
            project=PROJECT, id=run_id, name=run.id, group=run.task, dir=str(self._folder), resume="allow",
            config=flat_settings(run.recipe), reinit="create_new", settings=self._wandb.Settings(console="off", silent=True),
        )  # fmt: skip
        if getattr(self._runs[run.id], "disabled", False):  # by its own settings file
            raise RuntimeError("wandb is disabled here, and discards all that it gets (`wandb enabled` turns it on)")
        return run_id

    def epoch(self, run: RunRecord, member: str, number: int, values: Mapping[str, float]) -> None:
        """Logs the epoch with its number, because members do not end their epochs together."""
        self._runs[run.id].log({f"{member}/{key}": value for key, value in {"epoch": number, **values}.items()})

    def end(self, run: RunRecord, score: float | None) -> None:
        """Puts the out-of-fold score into the run's summary."""
        if score is not None:
            self._runs[run.id].summary["macro_f1"] = score

    def close(self) -> None:
        """Ends every run, which writes what wandb has not written yet."""
        for run in self._runs.values():
            run.finish()
        self._runs.clear()


@contextmanager
def _without_stray_folders(uri: str) -> Iterator[None]:
    """Removes the empty folders that MLflow makes for a path that is quoted for its URI (`a%20b`)."""
    parent, made = Path(uri.removeprefix("sqlite:///")).parent, list[Path]()
    while uri.startswith("sqlite:") and not parent.exists():
        made.append(parent)
        parent = parent.parent
    try:
        yield
    finally:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()


def _try_database(uri: str) -> None:
    """Opens a database once, to raise its error if it cannot be opened."""
    engine = import_optional("sqlalchemy", "tracker mlflow", "mlflow").create_engine(uri)
    try:
        engine.connect().close()
    finally:
        engine.dispose()
