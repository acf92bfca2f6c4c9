"""What tests share: synthetic people, a tiny recipe, a command line that runs in this process."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from hypothesis import settings
from packaging.requirements import Requirement

from orchestrator.combining.combiners import soft_combiner
from orchestrator.core.events import Event, TrainingStarted
from orchestrator.core.labels import TASKS
from orchestrator.core.strategies import Strategy
from orchestrator.ensembling.learning import plain_combiner

if TYPE_CHECKING:
    from orchestrator.inference.member import MemberFiles

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test never reaches for the network
# Each test process takes its share of the cores. Two processes of two threads each on two cores waited for one another: twelve
# tests that train took 135 s, and 19 s with a thread each; their CPU time was 17 and 12 s (a busy machine of two cores).
SHARE = str(max(1, (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))
os.environ.setdefault("LOKY_MAX_CPU_COUNT", SHARE)
os.environ.setdefault("OMP_NUM_THREADS", SHARE)
# Threads that wait by spinning hold up those that work: 82 tests that train took 208 and 267 s, with sleeping ones 105 and 120 s.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

settings.register_profile("orchestrator", deadline=None)  # machines are shared: an example's seconds say nothing
settings.load_profile("orchestrator")

ROOT = Path(__file__).parent.parent

SOFT = soft_combiner(TASKS)
HARD = plain_combiner(Strategy.parse("hard"))

LONG = (
    "e2e/test_readme.py",
    "e2e/test_kill.py",
    "cli/test_bench.py",
    "experiments/test_sweeps.py",
    "experiments/test_tuning.py",
    "inference/test_engines.py",
    "cli/test_terminal.py",
    "e2e/test_extras.py",
)
"""Files that take minutes: begun first, so that no process waits for one of them in the end."""


def pytest_configure(config: pytest.Config) -> None:
    """Hides GPUs, but from `pytest -m gpu`: what a CPU's tests hold, bits above all, is not promised on a GPU."""
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first (`--no-loadscope-reorder` keeps them there)."""
    rank = {name: position for position, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path.relative_to(ROOT / "tests").as_posix(), len(LONG)))


TINY = (
    "backbone=test_efficientnet",
    "weights=none",
    "height=32",
    "width=32",
    "epochs=2",
    "batch_size=16",
    "frozen_stages=0",
    "evaluate_every=1",
)
"""timm's own test network at 32 x 32: a member trains in a second."""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 synthetic people to train on (`train/`) and 4 others (`eval/`); never written to."""
    from orchestrator.synthetic.people import write_people

    root = tmp_path_factory.mktemp("people")
    write_people(root, 24, 4, seed=3)
    return root


@pytest.fixture
def orch(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """Runs the command line as a user would, in this process."""
    from orchestrator.cli.app import main

    def run(*words: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["orch", *map(str, words)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        text = capsys.readouterr()
        return Done(code, text.out, text.err)

    return run


def tiny(*more: str) -> list[str]:
    """`--set` words of the tiny recipe and of `more`."""
    return [word for change in (*TINY, *more) for word in ("--set", change)]


@pytest.fixture(scope="session")
def trained(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with one complete run of each specialist over three folds; read only."""
    from orchestrator.pipeline.settings import Settings
    from orchestrator.pipeline.training import train_all
    from orchestrator.specialists import SPECIALISTS

    workspace = tmp_path_factory.mktemp("trained") / "runs"
    settings = Settings(people / "train", workspace, changes=TINY, folds=3, jobs=1, device="cpu")
    report = train_all(settings, SPECIALISTS, Silent())
    assert report.complete, report.failures
    return workspace


@pytest.fixture
def workspace(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained workspace, to change."""
    copy = tmp_path / "runs"
    shutil.copytree(trained, copy)
    return copy


@pytest.fixture(scope="session")
def three(people: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained workspace with two more age runs: another rate, and other folds with another loss; read only."""
    from orchestrator.pipeline.retraining import starting_point
    from orchestrator.pipeline.settings import Settings
    from orchestrator.pipeline.training import retrain
    from orchestrator.specialists import SPECIALISTS

    workspace = tmp_path_factory.mktemp("three") / "runs"
    shutil.copytree(trained, workspace)
    for changes, k in ((("lr=3e-3",), 3), (("loss=focal", "lr=3e-3"), 2)):
        settings = Settings(people / "train", workspace, changes=(*TINY, *changes), folds=k, jobs=1, device="cpu")
        assert retrain(starting_point(settings, SPECIALISTS["age"]), Silent()).complete
    return workspace


@pytest.fixture
def three_runs(three: Path, tmp_path: Path) -> Path:
    """A copy of the workspace with three age runs, to change."""
    shutil.copytree(three, tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture(scope="session")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six other synthetic people with a table: two of them without a mask word, two with a band for an age; read only."""
    from orchestrator.data.contest import read_contest
    from orchestrator.synthetic.people import write_people

    root = tmp_path_factory.mktemp("others")
    write_people(root, 6, 2, seed=99)
    photos = read_contest(root / "train")[0]
    table = photos.table.assign(path=[f"train/{path}" for path in photos.table["path"]])
    table["person"] = "x-" + table["person"]
    names = sorted(table["person"].unique())
    table["age"] = table["age"].astype(str)
    table.loc[table["person"].isin(names[:2]), "mask"] = ""
    table.loc[table["person"].isin(names[2:4]), "age"] = "30-59"
    table.to_csv(root / "extra.csv", index=False)
    return root / "extra.csv"


@pytest.fixture(scope="session")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the trained workspace with an export of every member in its cache, which takes a second each; read only."""
    from orchestrator.inference.export import Exports
    from orchestrator.inference.member import load_members
    from orchestrator.inference.predictor import start_predictor

    copy = tmp_path_factory.mktemp("exported") / "runs"
    shutil.copytree(trained, copy)
    files = [member for task in TASKS for member in member_files(copy, f"{task}-0001", 0, 1, 2)]
    Exports(copy / "cache" / "engines").make(start_predictor(load_members(files), SOFT).runtime.splits)
    return copy


def member_files(runs: Path, run: str, *folds: int | None) -> list[MemberFiles]:
    """Whose files the members of a run are: of some folds."""
    from orchestrator.artifacts.run import member_folder
    from orchestrator.inference.member import MemberFiles

    task = run.rpartition("-")[0]
    return [MemberFiles(task, run, fold, runs / run / member_folder(fold)) for fold in folds]


def close_to_readers(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes opening a file fail as without permission; root may read everything, so its mode would not do."""
    real = open

    def closed(file: object, *more: object, **named: object) -> object:
        if str(file) == str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return real(file, *more, **named)  # type: ignore[call-overload]  # as it was called

    monkeypatch.setattr("builtins.open", closed)
    monkeypatch.setattr("io.open", closed)


def hashes(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def closure(needed: Iterable[Requirement]) -> Iterator[tuple[Requirement, Distribution | None]]:
    """What packages need here, and what those need in turn, extras included: each requirement once, with the installed package.

    What a package that is not installed (None) needs is unknown.
    """
    seen: set[Requirement] = set()
    left = list(needed)
    while left:
        requirement = left.pop()
        if requirement in seen:
            continue
        seen.add(requirement)
        try:
            package = distribution(requirement.name)
        except PackageNotFoundError:
            yield requirement, None
            continue
        yield requirement, package
        for inner in map(Requirement, package.requires or []):
            if inner.marker is None or any(
                inner.marker.evaluate({"extra": extra}) for extra in ("", *requirement.extras)
            ):
                left.append(inner)


def edit_sealed(path: Path, **changes: object) -> dict[str, object]:
    """Changes values of a sealed file and seals it anew, as a program that knows how would; returns what it holds."""
    from orchestrator.core.files import digest_of

    value = {**json.loads(path.read_text()), **changes}
    del value["digest"]
    path.write_text(json.dumps({**value, "digest": digest_of(value)}))
    return value


def edit_held_out(folder: Path, table: pd.DataFrame) -> None:
    """Puts another held-out table into a member's folder, with its hashes in card and record, as if it had been trained so."""
    from orchestrator.core.files import sha256_of

    table.to_parquet(folder / "held_out.parquet", index=False)
    digest = sha256_of(folder / "held_out.parquet")
    card = json.loads((folder / "member.json").read_text())
    (folder / "member.json").write_bytes((folder / "member.json").read_bytes())  # no longer shared with another run
    edit_sealed(folder / "member.json", sha256={**card["sha256"], "held_out.parquet": digest})
    record = json.loads((folder.parent / "run.json").read_text())
    files = {**record["files"], folder.name: {**record["files"][folder.name], "held_out.parquet": digest}}
    edit_sealed(folder.parent / "run.json", files=files)


def train(orch: Callable[..., Done], people: Path, workspace: Path, *words: object) -> Done:
    """A training command over three folds of the synthetic people."""
    return orch(*words, "--data", people / "train", "--workspace", workspace, "--folds", 3, "--jobs", 1)


def listed(orch: Callable[..., Done], workspace: Path, *words: object) -> list[str]:
    """The runs that `orch runs list` lists."""
    done = orch("runs", "list", "-w", workspace, "--json", *words)
    assert done.code == 0, done.err
    return [run["id"] for run in json.loads(done.out)]


def commands_in(text: str) -> list[str]:
    """Every whole command that a text prints between backticks."""
    return [part for part in re.findall(r"`(orch [^`]+)`", text) if not re.search(r"\b[A-Z]{3,}\b", part)]


@contextmanager
def listening() -> Iterator[list[str]]:
    """What the library says within the block."""
    sentences: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            sentences.append(record.getMessage())

    logger, handler = logging.getLogger("orchestrator"), Kept()
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield sentences
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


@pytest.fixture
def messages() -> Iterator[list[str]]:
    """What the library has said so far in this test; emptied by `messages.clear()`."""
    with listening() as sentences:
        yield sentences


class Silent:
    """Listens to a training, and keeps which members were begun."""

    def __init__(self) -> None:
        self.jobs: list[str] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, TrainingStarted):
            self.jobs = [f"{member.run}/{member.fold}" for member in event.members]
