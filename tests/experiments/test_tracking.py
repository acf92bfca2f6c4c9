"""Every epoch is sent once, and a tracker that fails costs no training."""

import json
from pathlib import Path

import pytest

from orchestrator.artifacts.cards import history_of
from orchestrator.artifacts.run import RunRecord
from orchestrator.core.epochs import TrainedEpoch
from orchestrator.core.errors import DamagedError
from orchestrator.core.events import EpochEnded, PlannedMember, TrainingEnded, TrainingStarted, forward_to_all
from orchestrator.experiments import tracking
from tests.conftest import Silent, edit_sealed


class Kept:
    """A tracker that keeps what it receives."""

    name, look, there = "kept=here", "here", True

    def __init__(self) -> None:
        self.received: list[object] = []
        self.losses: list[float] = []

    def knows(self, run: RunRecord, tracker_id: str) -> bool:
        return self.there

    def begin(self, run: RunRecord, tracker_id: str | None) -> str:
        self.received.append(("begin", run.id, tracker_id))
        return "its-name"

    def epoch(self, run: RunRecord, member: str, number: int, values: dict[str, float]) -> None:
        self.received.append((run.id, member, number))
        self.losses.append(values["loss"])

    def end(self, run: RunRecord, score: float | None) -> None:
        self.received.append(("end", run.id, score is not None))

    def close(self) -> None: ...


def test_a_training_that_goes_on_tells_every_epoch_once(workspace: Path) -> None:
    run = RunRecord.load(workspace / "age-0001")
    file, card = (run.folder / "fold-1" / name for name in ("history.json", "member.json"))
    whole, its_card = file.read_text(), card.read_text()
    file.write_text(json.dumps(json.loads(whole)[:1]))  # killed after an epoch
    card.unlink()
    record = (run.folder / "run.json").read_text()
    edit_sealed(run.folder / "run.json", status="unfinished")
    kept = Kept()
    assert tracking.send(kept, RunRecord.load(run.folder)) == 5
    assert kept.received[0] == ("begin", "age-0001", None)
    file.write_text(whole)
    card.write_text(its_card)
    (run.folder / "run.json").write_text(record)
    kept.received.clear()
    assert tracking.send(kept, RunRecord.load(run.folder)) == 1
    assert kept.received == [("begin", "age-0001", "its-name"), ("age-0001", "fold-1", 2), ("end", "age-0001", True)]
    assert tracking.send(kept, RunRecord.load(run.folder)) == 0
    kept.there = False  # somebody deleted it there: everything is sent again
    kept.received.clear()
    assert tracking.send(kept, RunRecord.load(run.folder)) == 6
    assert kept.received[0] == ("begin", "age-0001", None)
    kept.there = True
    file = run.folder / "tracking.json"
    file.write_text(file.read_text().replace('"ended": true', '"ended": false'))
    with pytest.raises(DamagedError, match=r"tracking\.json: its contents do not match the digest"):
        tracking.send(kept, RunRecord.load(run.folder))


def test_an_epoch_that_ends_is_sent_as_its_event_says_and_no_history_is_read(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, read = Kept(), list[Path]()
    monkeypatch.setattr(tracking, "open_trackers", lambda words, workspace: [kept])
    monkeypatch.setattr(tracking, "check_words", lambda words: None)
    monkeypatch.setattr(tracking, "history_of", lambda folder: read.append(folder) or history_of(folder))
    run = workspace / "age-0001"
    file = run / "fold-1" / "history.json"
    file.write_text(json.dumps(json.loads(file.read_text())[:1]))  # killed after an epoch
    card, record = (run / "fold-1" / "member.json").read_text(), (run / "run.json").read_text()
    (run / "fold-1" / "member.json").unlink()
    edit_sealed(run / "run.json", status="unfinished")

    def epoch(number: int) -> EpochEnded:
        return EpochEnded("age-0001", 1, TrainedEpoch(number, 10.0 + number, 1e-3, 20.0))

    tracked = tracking.Tracked(["kept"], workspace)
    tracked(TrainingStarted((PlannedMember("age-0001", 1, run / "fold-1", 2, 1, 1.0),), 1, 1, "cpu", workspace))
    for number in (1, 2, 3):  # it began again: the first is there already
        tracked(epoch(number))
    tracked(TrainingEnded())
    assert len(read) == 3  # what ended before this training, of each member
    assert kept.received[0] == ("begin", "age-0001", None)
    assert kept.received.count(("age-0001", "fold-1", 1)) == 1
    assert [item for item in kept.received if item != ("begin", "age-0001", "its-name")][-2:] == [
        ("age-0001", "fold-1", 2), ("age-0001", "fold-1", 3),
    ]  # fmt: skip
    assert kept.losses[-2:] == [12.0, 13.0]  # the events' numbers, which no file has
    (run / "fold-1" / "member.json").write_text(card)
    (run / "run.json").write_text(record)
    kept.received.clear()
    tracked.close()
    assert len(read) == 3
    assert kept.received == [("begin", "age-0001", "its-name"), ("end", "age-0001", True)]


def test_epochs_that_a_tracker_lacks_before_one_that_ends_are_read(workspace: Path) -> None:
    """As where somebody deleted the run there meanwhile."""
    run, kept = RunRecord.load(workspace / "age-0001"), Kept()
    last = history_of(run.member(1))[-1]
    assert tracking.send(kept, run, {"fold-1": [last]}) == 6  # the first epoch of its member is missing there
    assert tracking.send(kept, run, {"fold-1": [last]}) == 0
    kept.there = False
    assert tracking.send(kept, run, {"fold-1": [last]}) == 6


def test_a_tracker_that_fails_costs_no_training(
    people: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch, messages: list[str]
) -> None:
    from orchestrator.pipeline.retraining import starting_point
    from orchestrator.pipeline.settings import Settings
    from orchestrator.pipeline.training import retrain
    from orchestrator.specialists import SPECIALISTS
    from tests.conftest import TINY

    class Broken:
        name, look = "tensorboard=nowhere", "nowhere"

        def begin(self, run: RunRecord, tracker_id: str | None) -> str:
            raise ConnectionError("the server is gone\nand more")

        epoch = end = close = begin

    monkeypatch.setattr(tracking, "open_trackers", lambda words, workspace: [Broken()])
    monkeypatch.setattr(tracking, "check_words", lambda words: None)
    shows, tracked = Silent(), tracking.Tracked(["tensorboard"], workspace)
    settings = Settings(people / "train", workspace, changes=(*TINY, "lr=9e-3"), folds=3, jobs=1, device="cpu")
    report = retrain(starting_point(settings, SPECIALISTS["age"]), forward_to_all(shows, tracked))
    tracked.close()
    assert report.complete
    assert len(shows.jobs) == 3
    (word,) = [line for line in messages if "gets nothing more" in line]
    assert "the server is gone" in word
    assert "orch runs track" in word
