"""What a search draws and remembers, killed, changed or damaged."""

import math
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import pytest

from orchestrator.core.errors import DamagedError
from orchestrator.experiments.search import COMPLETE, FAILED, PRUNED, RUNNING, Search, Trial, thresholds_of
from orchestrator.recipes.spaces import Choice, Space, parse_space
from tests.recipes.test_spaces import SPACE

needs_optuna = pytest.mark.skipif(find_spec("optuna") is None, reason="the extra `sweep` is not installed")


def test_bars_are_the_median_of_complete_trials_at_the_same_share() -> None:
    def trial(number: int, state: str, *curve: tuple[float, float]) -> Trial:
        return Trial(number, (), state, 0.5, None, "", curve)

    trials = [
        trial(0, COMPLETE, (0.25, 0.1), (0.5, 0.3), (1.0, 0.6)),
        trial(1, COMPLETE, (0.25, 0.2), (0.5, 0.4), (1.0, 0.6)),
        trial(2, COMPLETE, (0.5, 0.5), (1.0, 0.7)),
        trial(3, COMPLETE, (0.25, 0.4), (0.5, 0.6), (1.0, 0.7)),
        trial(4, PRUNED, (0.25, 0.9)),
        trial(5, FAILED),
    ]
    # At a quarter only three trials have a score; at half and three quarters four, of which the median lies between.
    assert thresholds_of(trials, 8, 2) == {4: pytest.approx(0.45), 6: pytest.approx(0.45)}
    assert thresholds_of(trials, 4, 1) == {2: pytest.approx(0.45), 3: pytest.approx(0.45)}
    assert thresholds_of(trials[:3], 8, 2) == {}
    more = [*trials, *(trial(number, COMPLETE, (0.1, 0.01 * number)) for number in range(6, 12))]
    assert (
        thresholds_of(more, 10, 1)[2] == thresholds_of(more, 5, 1)[1] == pytest.approx(0.085)
    )  # at a fifth: six have a score
    assert 1 not in thresholds_of(more, 10, 1)  # a tenth of a training says little


def finished(search: Search, trials: list[Trial]) -> None:
    for trial in trials:
        search.record_end(
            Trial(
                trial.number,
                trial.changes,
                COMPLETE,
                1.0 / (1 + len(" ".join(trial.changes)) % 7),
                f"run-{trial.number}",
            )
        )


Searched = Callable[[Path, Space, int], Search]


@pytest.fixture
def searched() -> Iterator[Searched]:
    """Opens searches, and lets go of their files in the end: in between they are left as a kill leaves them."""
    kept: list[Search] = []

    def opened(file: Path, space: Space, seed: int) -> Search:
        kept.append(Search(file, space, seed))
        return kept[-1]

    yield opened
    for search in kept:
        search.release()


def test_a_search_that_was_killed_draws_what_it_would_have_drawn(
    searched: Searched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    optuna = pytest.importorskip("optuna", reason="the extra `sweep` is not installed")
    space = parse_space(SPACE, "here")
    whole, killed = (searched(tmp_path / f"{name}.db", space, 7) for name in ("whole", "killed"))
    for _ in range(6):
        finished(whole, whole.ask(2))
    finished(killed, killed.ask(2))
    add, added = optuna.study.Study.add_trial, list[object]()

    def die(study: object, trial: object) -> None:
        if added:
            sys.exit("killed: one of a round is drawn, and not the other")
        added.append(trial)
        add(study, trial)

    monkeypatch.setattr(optuna.study.Study, "add_trial", die)
    with pytest.raises(SystemExit):
        killed.ask(2)
    monkeypatch.setattr(optuna.study.Study, "add_trial", add)
    killed = searched(tmp_path / "killed.db", space, 7)
    again = killed.ask(2)
    assert [trial.number for trial in again] == [2, 3]
    assert [trial.state for trial in again] == [RUNNING, RUNNING]
    finished(killed, again[:1])  # killed again: one of the round has ended, and no other must be drawn in its place
    killed = searched(tmp_path / "killed.db", space, 7)
    assert killed.ask(2) == again[1:]
    finished(killed, again[1:])
    for _ in range(4):
        killed = searched(tmp_path / "killed.db", space, 7)
        finished(killed, killed.ask(2))
    assert [trial.changes for trial in killed.trials] == [trial.changes for trial in whole.trials]
    assert [trial.score for trial in killed.trials] == [trial.score for trial in whole.trials]
    assert [trial.number for trial in whole.trials] == list(range(12))
    other = searched(tmp_path / "other.db", space, 8)
    assert other.ask(1)[0].changes != whole.trials[0].changes


def test_a_trial_is_written_whole_or_not_at_all(searched: Searched, tmp_path: Path) -> None:
    """Optuna's `ask` commits a trial first and its settings after it; a kill between would leave a trial without settings."""
    pytest.importorskip("optuna", reason="the extra `sweep` is not installed")
    sqlalchemy = pytest.importorskip("sqlalchemy", reason="comes with Optuna")
    file, space, seen = tmp_path / "search.db", parse_space(SPACE, "here"), list[list[int]]()
    search = searched(file, space, 0)

    def look(_: object) -> None:
        """The number of settings of every trial that a kill right here would leave."""
        with closing(sqlite3.connect(file)) as base:
            rows = base.execute(
                "select count(param_id) from trials left join trial_params using (trial_id) group by trials.trial_id"
            ).fetchall()
        seen.append([count for (count,) in rows])

    sqlalchemy.event.listen(sqlalchemy.Engine, "commit", look)
    try:
        trials = search.ask(3)
        look(None)
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "commit", look)
    assert seen[0] == []
    assert seen[-1] == [4, 4, 4]
    assert [4] in seen
    assert all(count == 4 for counts in seen for count in counts)
    assert searched(file, space, 0).trials == trials


def test_a_search_gets_better_where_there_is_something_to_find(searched: Searched, tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="the extra `sweep` is not installed")
    space = parse_space("lr = { low = 1e-5, high = 1.0, log = true }", "here")
    search = searched(tmp_path / "search.db", space, 0)
    for _ in range(40):
        (trial,) = search.ask(1)
        lr = float(trial.changes[0].partition("=")[2])
        search.record_end(Trial(trial.number, trial.changes, COMPLETE, 1 - abs(math.log10(lr) + 3)))
    scores = [trial.score or 0.0 for trial in search.trials]
    assert sum(scores[30:]) / 10 > sum(scores[:10]) / 10 + 0.5
    assert max(scores) > 0.95


def test_choices_alone_are_gone_through_without_repeating_one(searched: Searched, tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="the extra `sweep` is not installed")
    space = parse_space("ema = [0.0, 0.9, 0.99]\nmixup = [0.0, 0.3]", "here")
    search = searched(tmp_path / "search.db", space, 0)
    drawn = []
    while trials := search.ask(4):
        drawn += [trial.changes for trial in trials]
        finished(search, trials)
    assert len(drawn) == len({*drawn}) == 6
    assert isinstance(space.axes["ema"], Choice)


def test_a_file_that_is_no_search_is_told(searched: Searched, tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="the extra `sweep` is not installed")
    (tmp_path / "search.db").write_bytes(b"something else" * 100)
    with pytest.raises(DamagedError, match="file is not a database"):
        searched(tmp_path / "search.db", parse_space(SPACE, "here"), 0)


@pytest.mark.parametrize(
    "change",
    [
        "update trial_values set value = value + 0.1 where trial_id = 2",
        "update trial_params set param_value = param_value * 1.01 where trial_id = 1 and param_name = 'lr'",
        "update trial_user_attributes set value_json = '\"age-0009\"' where trial_id = 2 and key = 'run'",
        "update trials set state = 'PRUNED' where trial_id = 2",
        "delete from trial_user_attributes where trial_id = 3 and key = 'drawn'",
    ],
)
def test_a_trial_that_was_changed_is_told_where_a_kill_left_no_seal(
    change: str, searched: Searched, tmp_path: Path
) -> None:
    pytest.importorskip("optuna", reason="the extra `sweep` is not installed")
    file, space = tmp_path / "age-1.db", parse_space(SPACE, "here")
    search = searched(file, space, 0)
    for trial in search.ask(2):
        search.record_end(
            Trial(trial.number, trial.changes, COMPLETE, 0.2 + trial.number / 10, "age-0001", "", ((1.0, 0.2),))
        )
    search.ask(1)
    search.release()
    assert len(searched(file, space, 0).trials) == 3  # as it was left it is read
    with closing(sqlite3.connect(file)) as base, base:
        assert base.execute(change).rowcount == 1
    with pytest.raises(DamagedError, match=r"trial \d is not as it was written.*starts the search over"):
        searched(file, space, 0)


@needs_optuna
def test_whole_ends_with_broken_steps_are_broken_numbers(tmp_path: Path) -> None:
    search = Search(tmp_path / "search.db", parse_space("weight_decay = { low = 0, high = 1, step = 0.5 }", "here"), 0)
    drawn = {float(trial.changes[0].removeprefix("weight_decay=")) for trial in search.ask(20)}
    assert drawn == {0.0, 0.5, 1.0}


@needs_optuna
@pytest.mark.parametrize("name", ["w?1", "a#b %20 {x}", "한 글"])
def test_any_letter_may_be_in_a_workspaces_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / name / "sweeps/age-1.db"
    first = opened(file)
    drawn = first.ask(3)
    first.close()
    assert sorted(path.name for path in file.parent.iterdir()) == ["age-1.db", "age-1.json"]
    assert [path.name for path in tmp_path.iterdir()] == [name]
    again = opened(file)
    assert again.ask(3) == drawn
    again.close()


def opened(file: Path) -> Search:
    return Search(file, parse_space(SPACE, "here"), 0)


def damages(file: Path, other: Path) -> dict[str, Callable[[], object]]:
    """Whatever may have happened to a file, done for real."""
    data = bytearray(file.read_bytes())
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1

    def replaced(act: Callable[[], object]) -> Callable[[], object]:
        return lambda: (file.unlink(), act())

    return {
        "truncated": lambda: file.write_bytes(data[: len(data) // 2]), "empty": lambda: file.write_bytes(b""),
        "flipped": lambda: file.write_bytes(flipped), "another's": lambda: file.write_bytes(other.read_bytes()),
        "no database": lambda: file.write_bytes(b"{}"), "folder": replaced(file.mkdir),
        "link": replaced(lambda: file.symlink_to(file.parent / "nowhere")),
    }  # fmt: skip


HOW = ("deleted", "truncated", "empty", "flipped", "another's", "no database", "folder", "link")


SEALED = [(suffix, how, False) for suffix in ("db", "json") for how in HOW]


UNSEALED = [("db", how, True) for how in HOW if how != "flipped"]  # SQLite's own check, which does not see every bit


@needs_optuna
@pytest.mark.parametrize(("suffix", "how", "killed"), SEALED + UNSEALED)
def test_a_damaged_memory_is_told_with_a_way_out_that_works(
    tmp_path: Path, suffix: str, how: str, killed: bool
) -> None:
    drawn = {}
    for name in ("age-1", "age-2"):
        search = opened(tmp_path / f"{name}.db")
        drawn[name] = search.ask(3)
        search.close()
    db, file = tmp_path / "age-1.db", tmp_path / f"age-1.{suffix}"
    if killed:  # before the seal was written
        (tmp_path / "age-1.json").unlink()
    if how == "deleted":
        file.unlink()
    else:
        damages(file, tmp_path / f"age-2.{suffix}")[how]()
    if how == "deleted" or (killed and how == "empty"):
        search = opened(db)
        assert search.database_missing is (suffix == "db" and not killed)
        assert search.ask(3) == drawn["age-1"]  # begun anew, the same draws; or gone on with
        search.close()
        return
    with pytest.raises(DamagedError) as error:
        opened(db)
    assert str(file) in str(error.value)
    way_out = re.search(r"`(mv [^`]+)`", str(error.value))
    assert way_out, error.value
    subprocess.run(["bash", "-c", way_out[1]], check=True)
    search = opened(db)
    assert search.ask(3) == drawn["age-1"]
    search.close()
    opened(db).close()
