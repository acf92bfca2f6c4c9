"""Thin adapters to trackers that people have already: TensorBoard, MLflow, Weights & Biases."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from orchestrator.errors import ConfigError, nearest
from orchestrator.records.comparison import flat
from orchestrator.records.run import RunRecord

__all__ = ["KINDS", "Tracker", "check_words", "open_trackers"]

KINDS = ("tensorboard", "mlflow", "wandb")
PROJECT = "orchestrator"
NUMBERS = ("loss", "lr", "macro_f1", "accuracy", "log_loss", "photos_per_second")


class Tracker(Protocol):
    """What a tracker must do; each of its runs is one of ours."""

    name: str
    """Unlike that of any other place: what has been sent there is noted under it."""

    look: str
    """How to look at what it was told: a command, or an address."""

    def begin(self, run: RunRecord, known: str | None) -> str:
        """Opens a run, or goes on with the one that it called `known`; returns what it calls it."""

    def epoch(self, run: RunRecord, member: str, entry: dict[str, Any]) -> None:
        """One epoch of one member: the numbers of a history's entry."""

    def end(self, run: RunRecord, score: float | None) -> None:
        """The run is complete, with its out-of-fold macro F1."""

    def close(self) -> None:
        """Nothing more will come."""


def check_words(words: Sequence[str]) -> None:
    """Refuses `--track` words that name no tracker, or one that is not installed.

    Raises:
        ConfigError: all of them at once.
    """
    problems = []
    for word in words:
        kind = word.partition("=")[0]
        if kind not in KINDS:
            problems.append(f"tracker {word}: allowed: {', '.join(KINDS)}.{nearest(kind, KINDS)}")
        elif find_spec(kind) is None:
            problems.append(f'tracker {kind}: it is not installed: pip install "orchestrator[{kind}]"')
    if problems:
        raise ConfigError("\n".join(problems))


def open_trackers(words: Sequence[str], workspace: Path) -> list[Tracker]:
    """The trackers of `--track` words: `KIND` or `KIND=PLACE`.

    Args:
        words: `tensorboard`, `mlflow`, `wandb`; PLACE is a folder, for MLflow a tracking URI.
        workspace: where they write without a PLACE.

    Raises:
        ConfigError: an unknown kind, one that is not installed, or a place that cannot be reached.
    """
    check_words(words)
    makers: dict[str, Callable[[str], Tracker]] = {
        "tensorboard": lambda place: TensorBoard(Path(place or workspace / "tensorboard")),
        "mlflow": lambda place: MLflow(place or f"sqlite:///{(workspace / 'mlflow.db').absolute()}"),
        "wandb": lambda place: Wandb(Path(place or workspace)),
    }
    return [makers[word.partition("=")[0]](word.partition("=")[2]) for word in words]


class TensorBoard:
    """Event files, one folder for each member, so that folds lie over each other.

    Args:
        folder: of `tensorboard --logdir`.
    """

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter  # needs the package tensorboard

        self.name, self.look = f"tensorboard={folder.absolute()}", f"tensorboard --logdir {folder}"
        self._make, self._folder, self._writers = SummaryWriter, folder, dict[Path, Any]()

    def _writer(self, place: Path) -> Any:
        if place not in self._writers:
            self._writers[place] = self._make(str(place))
        return self._writers[place]

    def begin(self, run: RunRecord, known: str | None) -> str:
        """Writes the recipe as a table of text, once."""
        if known is None:
            rows = "\n".join(f"| {key} | {value} |" for key, value in flat(run.recipe).items())
            self._writer(self._folder / run.id).add_text("recipe", f"| setting | value |\n|---|---|\n{rows}")
        return run.id

    def epoch(self, run: RunRecord, member: str, entry: dict[str, Any]) -> None:
        """Writes the epoch's numbers."""
        writer = self._writer(self._folder / run.id / member)
        for key in NUMBERS:
            if key in entry:
                writer.add_scalar(key, entry[key], entry["epoch"])
        writer.flush()

    def end(self, run: RunRecord, score: float | None) -> None:
        """Writes the out-of-fold score."""
        if score is not None:
            self._writer(self._folder / run.id).add_scalar("macro_f1", score, 0)

    def close(self) -> None:
        """Closes the files."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()


class MLflow:
    """A tracking server, or a database in a file.

    Args:
        uri: as MLflow has it: `http://...`, `sqlite:///...`.

    Raises:
        ConfigError: it cannot be reached.
    """

    def __init__(self, uri: str) -> None:
        if "://" not in uri:
            raise ConfigError(f"tracker mlflow={uri}: PLACE is a tracking URI: http://HOST:PORT, or sqlite:///FILE.db.")
        from mlflow.tracking import MlflowClient

        for name in ("mlflow", "alembic"):  # of their tables, on every new file
            logging.getLogger(name).setLevel(logging.WARNING)
        os.environ.setdefault(
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2"
        )  # a server that is away must not hold a training up
        self.name, self._ids = f"mlflow={uri}", dict[str, str]()
        self.look = uri if uri.startswith("http") else f"mlflow ui --backend-store-uri {uri}"
        try:
            self._client = MlflowClient(uri)
            found = self._client.get_experiment_by_name(PROJECT)
            self._experiment = found.experiment_id if found else self._client.create_experiment(PROJECT)
        except Exception as error:  # requests', SQLAlchemy's or MLflow's own
            raise ConfigError(f"tracker mlflow: {uri} cannot be reached ({str(error).splitlines()[0]}).") from None

    def begin(self, run: RunRecord, known: str | None) -> str:
        """Creates the run with its recipe as parameters, or goes on with it."""
        if known is None:
            tags = {
                "task": run.task,
                "recipe": run.recipe_name,
                "seed": str(run.seed),
                "data": run.data["fingerprint"][:12],
            }
            made = self._client.create_run(self._experiment, run_name=run.id, tags=tags)
            known = str(made.info.run_id)
            for key, value in flat(run.recipe).items():
                self._client.log_param(known, key, str(value)[:500])
        self._ids[run.id] = known
        return known

    def epoch(self, run: RunRecord, member: str, entry: dict[str, Any]) -> None:
        """Logs the epoch's numbers as `fold-0/loss` and the like."""
        for key in NUMBERS:
            if key in entry:
                self._client.log_metric(self._ids[run.id], f"{member}/{key}", entry[key], step=entry["epoch"])

    def end(self, run: RunRecord, score: float | None) -> None:
        """Logs the out-of-fold score and marks the run finished."""
        if score is not None:
            self._client.log_metric(self._ids[run.id], "macro_f1", score)
        self._client.set_terminated(self._ids[run.id], "FINISHED")

    def close(self) -> None:
        """Nothing stays open."""


class Wandb:
    """Weights & Biases, offline unless WANDB_MODE says otherwise; `wandb sync` sends the folder later.

    Args:
        folder: in which it makes its own, `wandb/`.
    """

    def __init__(self, folder: Path) -> None:
        import wandb

        self.name, self._folder, self._runs = f"wandb={folder.absolute()}", folder, dict[str, Any]()
        self._wandb = wandb
        os.environ.setdefault("WANDB_MODE", "offline")
        self.look = "wandb.ai" if os.environ["WANDB_MODE"] == "online" else f"wandb sync {folder}/wandb/offline-run-*"

    def begin(self, run: RunRecord, known: str | None) -> str:
        """Opens the run with its recipe as its config."""
        if run.id in self._runs and known:
            return known
        self._folder.mkdir(parents=True, exist_ok=True)
        ours = known or f"{run.id}-{run.created}".replace(":", "").replace("+", "-")
        self._runs[run.id] = self._wandb.init(
            project=PROJECT, id=ours, name=run.id, group=run.task, dir=str(self._folder), resume="allow",
            config=flat(run.recipe), reinit="create_new", settings=self._wandb.Settings(console="off", silent=True),
        )  # fmt: skip
        return ours

    def epoch(self, run: RunRecord, member: str, entry: dict[str, Any]) -> None:
        """Logs the epoch's numbers, beside the epoch: members do not end their epochs together."""
        numbers = {f"{member}/{key}": entry[key] for key in ("epoch", *NUMBERS) if key in entry}
        self._runs[run.id].log(numbers)

    def end(self, run: RunRecord, score: float | None) -> None:
        """Puts the out-of-fold score into the run's summary."""
        if score is not None:
            self._runs[run.id].summary["macro_f1"] = score

    def close(self) -> None:
        """Writes what is left."""
        for run in self._runs.values():
            run.finish()
        self._runs.clear()
