"""Notes and tags lie beside a run and leave it as it is."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from orchestrator.artifacts.annotations import Annotations, annotate
from orchestrator.artifacts.run import RunRecord
from tests.conftest import Done, hashes, listed

Orch = Callable[..., Done]


def test_notes_and_tags_lie_beside_a_run_and_leave_it_as_it_is(orch: Orch, three_runs: Path) -> None:
    before = hashes(three_runs / "age-0002")
    assert orch("runs", "note", "age-0002", "a faster rate", "--tag", "lr", "--tag", "try", "-w", three_runs).code == 0
    assert listed(orch, three_runs, "--where", "tag=lr") == ["age-0002"]
    assert orch("runs", "note", "age-0002", "--untag", "try", "-w", three_runs).code == 0
    shown = json.loads(orch("runs", "show", "age-0002", "-w", three_runs, "--json").out)
    assert (shown["note"], shown["tags"]) == ("a faster rate", ["lr"])
    assert "a faster rate" in orch("runs", "show", "age-0002", "-w", three_runs).out
    after = hashes(three_runs / "age-0002")
    assert {name: after[name] for name in before} == before
    assert "one word" in orch("runs", "note", "age-0002", "--tag", "two words", "-w", three_runs).err
    assert "give a note" in orch("runs", "note", "age-0002", "-w", three_runs).err


def test_tags_that_are_added_at_once_are_all_kept(workspace: Path) -> None:
    run = RunRecord.load(workspace / "age-0001")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: annotate(run, tags=[f"tag{number}"]), range(16)))
    assert len(Annotations.read(run.folder).tags) == 16
