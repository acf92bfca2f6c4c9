"""Trackers that people have already: real ones, in files, read back by their own readers."""

import gc
import json
import sqlite3
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.artifacts.run import RunRecord
from orchestrator.core.errors import ConfigError
from orchestrator.core.events import TrainingEnded, TrainingStarted
from orchestrator.experiments import trackers, tracking
from tests.conftest import Done, hashes, tiny, train

Orch = Callable[..., Done]

pytestmark = [
    pytest.mark.filterwarnings("default::DeprecationWarning"),  # SQLAlchemy's, about MLflow's own code
    # MLflow's client has no way to be closed; Python 3.13 tells of the connections that it leaves.
    pytest.mark.filterwarnings("default:Exception ignored in.*sqlite3.Connection"),
    pytest.mark.filterwarnings("default:unclosed database"),
]


@pytest.fixture(scope="module", autouse=True)
def connections_collected() -> Iterator[None]:
    """What MLflow left is collected here, where the marks above apply, and not while another module's tests run."""
    yield
    gc.collect()


def histories(run: Path) -> dict[str, list[dict[str, float]]]:
    return {path.parent.name: json.loads(path.read_bytes()) for path in sorted(run.glob("fold-*/history.json"))}


def curves_of_tensorboard(folder: Path, tag: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_tensorboard_shows_every_epoch_of_every_member_once(orch: Orch, people: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    workspace = tmp_path / "runs"
    done = train(orch, people, workspace, "train-all", "--tasks", "mask", *tiny(), "--track", "tensorboard")
    assert done.code == 0, done.err
    for member, history in histories(workspace / "mask-0001").items():
        for key in ("loss", "macro_f1", "log_loss"):
            seen = curves_of_tensorboard(workspace / "tensorboard/mask-0001" / member, key)
            assert seen == [(entry["epoch"], pytest.approx(entry[key], rel=1e-6)) for entry in history]
    again = orch("runs", "track", "mask-0001", "--to", "tensorboard", "-w", workspace)
    assert "0 epochs sent" in again.err
    elsewhere = orch("runs", "track", "mask-0001", "--to", f"tensorboard={tmp_path / 'tb'}", "-w", workspace)
    assert "6 epochs sent" in elsewhere.err
    assert len(curves_of_tensorboard(tmp_path / "tb/mask-0001/fold-2", "loss")) == 2


def mlflow_metrics(file: Path) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """(run's name, metric) -> (step, value), as the database has them."""
    with closing(sqlite3.connect(file)) as base:
        rows = base.execute(
            "select runs.name, metrics.key, metrics.step, metrics.value from metrics join runs using (run_uuid) "
            "order by runs.name, metrics.key, metrics.step"
        ).fetchall()
    metrics: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for name, key, step, value in rows:
        metrics.setdefault((name, key), []).append((step, value))
    return metrics


def test_a_tracker_that_is_refused_leaves_no_run_behind(orch: Orch, people: Path, tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="the extra `mlflow` is not installed")
    (tmp_path / "mlflow.db").write_text("no database")
    done = train(
        orch, people, tmp_path / "runs", "train-all", *tiny(), "--track", f"mlflow=sqlite:///{tmp_path / 'mlflow.db'}"
    )
    assert done.code == 2, done.err
    assert "tracker mlflow:" in done.err
    assert "decoded" not in done.err  # before work
    assert not list((tmp_path / "runs").glob("*-0001"))


def test_mlflow_has_parameters_metrics_and_the_end_of_a_run(
    orch: Orch, people: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason="the extra `mlflow` is not installed")
    monkeypatch.chdir(workspace.parent)
    done = orch("runs", "track", "age-0001", "mask-0001", "--to", "mlflow", "-w", workspace)
    assert done.code == 0, done.err
    metrics = mlflow_metrics(workspace / "mlflow.db")
    for run in ("age-0001", "mask-0001"):
        for member, history in histories(workspace / run).items():
            assert metrics[run, f"{member}/loss"] == [
                (entry["epoch"], pytest.approx(entry["loss"])) for entry in history
            ]
        record = RunRecord.load(workspace / run)
        assert metrics[run, "macro_f1"] == [(0, pytest.approx(record.score))]
    with closing(sqlite3.connect(workspace / "mlflow.db")) as base:
        assert {row[0] for row in base.execute("select status from runs")} == {"FINISHED"}
        assert ("0.002",) in base.execute("select value from params where key = 'lr'").fetchall()
    assert orch("runs", "track", "age-0001", "--to", "mlflow", "-w", workspace).code == 0
    assert mlflow_metrics(workspace / "mlflow.db") == metrics


def wandb_records(data: bytes) -> Iterator[bytes]:
    """The records of a .wandb file: LevelDB's log format (blocks of 32 KiB, parts of 7 bytes' head) after 7 bytes of its own."""
    offset, parts = 7, b""
    while offset + 7 <= len(data):
        room = 2**15 - offset % 2**15
        if room < 7:
            offset += room
            continue
        _, length, kind = struct.unpack("<IHB", data[offset : offset + 7])
        parts += data[offset + 7 : offset + 7 + length]
        offset += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def test_wandb_writes_its_offline_files(
    orch: Orch, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="the extra `wandb` is not installed")
    from google.protobuf.message import DecodeError
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HOME", str(tmp_path))
    done = orch("runs", "track", "age-0001", "--to", f"wandb={tmp_path / 'there'}", "-w", workspace)
    assert done.code == 0, done.err
    (file,) = (tmp_path / "there").rglob("*.wandb")

    def losses() -> list[float]:
        recorded = []
        for data in wandb_records(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            try:
                record.ParseFromString(data)
            except DecodeError:  # wandb's own process is writing it
                break
            values = {
                item.nested_key[0] if item.nested_key else item.key: item.value_json for item in record.history.item
            }
            recorded += [json.loads(value) for key, value in values.items() if key == "fold-1/loss"]
        return recorded

    history = histories(workspace / "age-0001")["fold-1"]
    limit = time.monotonic() + 60
    while len(losses()) < len(history) and time.monotonic() < limit:  # wandb's own process may write after `finish`
        time.sleep(0.2)
    assert losses() == [pytest.approx(entry["loss"]) for entry in history]


def test_wrong_words_are_told_before_training(orch: Orch, people: Path, tmp_path: Path) -> None:
    words = ("train-all", *tiny(), "--track", "tensorbord", "--track", "elsewhere")
    done = train(orch, people, tmp_path / "runs", *words)
    assert done.code == 2
    assert "tracker tensorbord: allowed: tensorboard, mlflow, wandb. Did you mean 'tensorboard'?" in done.err
    assert "tracker elsewhere: allowed: tensorboard, mlflow, wandb." in done.err
    assert not (tmp_path / "runs").exists()


def test_a_server_out_of_reach_is_told(orch: Orch, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="the extra `mlflow` is not installed")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    before = hashes(workspace / "age-0001")
    done = orch("runs", "track", "age-0001", "--to", "mlflow=http://127.0.0.1:9", "-w", workspace)
    assert done.code == 2
    assert "tracker mlflow: http://127.0.0.1:9 cannot be reached" in done.err
    assert hashes(workspace / "age-0001") == before


def test_a_deleted_experiment_and_a_deleted_run_are_told_and_mended(
    orch: Orch, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the extra `mlflow` is not installed")
    moved = workspace.rename(workspace.parent / "w?1 a#b %20 한")  # and any letter in a workspace's name
    monkeypatch.chdir(moved.parent)
    words = ("runs", "track", "age-0001", "--to", "mlflow", "-w", moved)
    done = orch(*words)
    assert "6 epochs sent" in done.err, done.err
    assert [path.name for path in moved.parent.iterdir()] == [moved.name]
    assert (moved / "mlflow.db").is_file()
    client = mlflow.tracking.MlflowClient(trackers.sqlite_uri(moved / "mlflow.db"))
    (experiment,) = [experiment for experiment in client.search_experiments() if experiment.name == "orchestrator"]
    (run,) = client.search_runs([experiment.experiment_id])
    client.delete_run(run.info.run_id)
    assert "6 epochs sent" in orch(*words).err
    client.delete_experiment(experiment.experiment_id)
    done = orch(*words)
    assert done.code == 2, done.err
    assert "the experiment 'orchestrator' was deleted in sqlite:///" in done.err
    client.restore_experiment(experiment.experiment_id)
    assert orch(*words).code == 0


@pytest.mark.parametrize(
    ("method", "message"),
    [("create_experiment", "takes no new experiment"), ("get_experiment_by_name", "cannot be reached")],
)
def test_an_error_without_words_is_told_by_its_name(
    orch: Orch, workspace: Path, monkeypatch: pytest.MonkeyPatch, method: str, message: str
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the extra `mlflow` is not installed")

    def fail(*_: object) -> None:
        raise ConnectionResetError

    monkeypatch.setattr(mlflow.tracking.MlflowClient, method, fail)
    done = orch("runs", "track", "age-0001", "--to", "mlflow", "-w", workspace)
    assert done.code == 2, done.err
    assert message in done.err
    assert "ConnectionResetError" in done.err


@pytest.mark.parametrize("kind", ["tensorboard", "wandb"])
def test_any_letter_may_be_in_a_place(
    orch: Orch, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    pytest.importorskip(kind, reason=f"the extra `{kind}` is not installed")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    moved = workspace.rename(workspace.parent / "w?1 a#b %20 한")
    done = orch("runs", "track", "age-0001", "--to", kind, "-w", moved)
    assert "6 epochs sent" in done.err, done.err
    assert list(moved.rglob("*.wandb" if kind == "wandb" else "events.*"))


@pytest.mark.parametrize("mode", ["off", "Disabled"])
def test_a_mode_that_wandb_does_not_know_is_told(
    orch: Orch, workspace: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    pytest.importorskip("wandb", reason="the extra `wandb` is not installed")
    monkeypatch.setenv("WANDB_MODE", mode)
    done = orch("runs", "track", "age-0001", "--to", "wandb", "-w", workspace)
    assert done.code == 2
    assert f"WANDB_MODE={mode}. Unset it, or set it to one of offline, online, shared." in done.err


def test_a_tracker_that_throws_away_is_not_told(
    orch: Orch, workspace: Path, monkeypatch: pytest.MonkeyPatch, messages: list[str]
) -> None:
    pytest.importorskip("wandb", reason="the extra `wandb` is not installed")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    done = orch("runs", "track", "age-0001", "--to", "wandb", "-w", workspace)
    assert (done.code, "wandb would receive nothing: WANDB_MODE=disabled" in done.err) == (2, True)
    assert not (workspace / "age-0001/tracking.json").exists()
    tracked = tracking.Tracked(["wandb"], workspace)
    tracked(TrainingStarted((), 1, 1, "cpu", workspace))
    tracked(TrainingEnded())
    assert any("wandb would receive nothing" in line for line in messages)


def test_what_is_no_number_is_not_sent_and_errors_are_sentences(workspace: Path) -> None:
    class Picky:
        name, look = "picky", ""

        def __init__(self) -> None:
            self.received: list[object] = []

        def knows(self, run: RunRecord, tracker_id: str) -> bool:
            return True

        def begin(self, run: RunRecord, tracker_id: str | None) -> str:
            return "x"

        def epoch(self, run: RunRecord, member: str, number: int, values: dict[str, float]) -> None:
            json.dumps(values, allow_nan=False)
            self.received.append((number, values))

        def end(self, run: RunRecord, score: float | None) -> None:
            raise ZeroDivisionError("gone\nfor good")

        close = end

    picky = Picky()
    guarded = trackers._Guarded(picky)
    guarded.epoch(None, "fold-0", 1, {"loss": float("nan"), "lr": float("inf"), "macro_f1": 0.5})
    assert picky.received == [(1, {"macro_f1": 0.5})]
    with pytest.raises(ConfigError, match="tracker picky: gone. What was sent is recorded"):
        guarded.end(RunRecord.load(workspace / "age-0001"), 0.5)


def test_folders_that_mlflow_makes_of_a_quoted_place_go_also_when_it_fails(tmp_path: Path) -> None:
    folder = tmp_path / "a%20b" / "c"

    def make_and_fail() -> None:
        with trackers._without_stray_folders(f"sqlite:///{folder}/x.db"):
            folder.mkdir(parents=True)
            raise RuntimeError("no database")

    with pytest.raises(RuntimeError):
        make_and_fail()
    assert list(tmp_path.iterdir()) == []
