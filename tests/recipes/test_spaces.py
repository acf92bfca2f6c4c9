"""What a search may try, and which of it it draws."""

import math
import sqlite3
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from orchestrator.core.errors import ConfigError, DamagedError
from orchestrator.experiments.search import COMPLETE, FAILED, PRUNED, RUNNING, Search, Trial, thresholds_of
from orchestrator.recipes.load import load_recipes
from orchestrator.recipes.spaces import DEFAULT, STAGES, Choice, Range, Space, parse_space, read_stages
from orchestrator.specialists import SPECIALISTS

SPACE = """
lr = { low = 1e-4, high = 1e-2, log = true }
epochs = { low = 4, high = 12, step = 4 }
loss = ["cross_entropy", "focal"]
net = [{ backbone = "resnet18", frozen_stages = 0 }, { backbone = "resnet34" }]
"""


def test_a_space_is_ranges_choices_and_linked_choices() -> None:
    space = parse_space(SPACE, "here")
    assert space.axes["lr"] == Range(1e-4, 1e-2, True)
    assert space.axes["epochs"] == Range(4, 12, False, 4)
    assert space.words({"lr": 0.00123456, "epochs": 8, "loss": 'loss="focal"', "net": 'backbone="resnet18" frozen_stages=0'}) == [
        "lr=0.00123", "epochs=8", 'loss="focal"', 'backbone="resnet18"', "frozen_stages=0",
    ]  # fmt: skip
    assert space.points is None
    choices = parse_space("views = [[], ['flip'], ['flip', 'zoom']]\nema = [0.0, 0.99]", "here")
    assert len(choices.points or []) == 6
    assert space.text == parse_space(SPACE.replace("  ", " ") + "\n# a remark\n", "there").text


def test_all_that_is_wrong_with_a_space_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_space(
            """
            lrr = { low = 1e-4, high = 1e-2 }
            lr = { low = 1e-2, high = 1e-4 }
            ema = { low = 0.9 }
            sam = { low = 0.0, high = 0.1, log = true }
            epochs = { low = 4, high = 8, stp = 2 }
            loss = "focal"
            mixup = []
            net = [{ bakbone = "resnet18" }]
            other = [{ drop_rate = 0.1 }]
            drop_rate = [0.1, 0.2]
            """,
            "space.toml",
        )
    for told in (
        "space.toml: lrr: there is no such setting. Did you mean 'lr'?", "low = 0.01 is not below high = 0.0001",
        "ema: a range needs numbers", "log = true goes with low above 0", "a range has no 'stp'", "'focal' is one value",
        "mixup: no choices", "there is no setting 'bakbone'. Did you mean 'backbone'?", "drop_rate is changed by other too",
    ):  # fmt: skip
        assert told in str(caught.value)
    with pytest.raises(ConfigError, match="no valid TOML"):
        parse_space("lr = {", "space.toml")
    with pytest.raises(ConfigError, match="nothing to try"):
        parse_space("# nothing", "space.toml")


def test_points_that_the_recipe_cannot_have_are_refused_before_training() -> None:
    space = parse_space('loss = ["focal", "fcal"]\nlr = { low = 1e-3, high = 100.0 }', "here")
    with pytest.raises(ConfigError) as caught:
        space.check(SPECIALISTS["age"], ["quick"], [], None)
    assert "'fcal' is no loss" in str(caught.value)
    assert "lr = 100.0" in str(caught.value)


def test_the_default_spaces_fit_every_specialist() -> None:
    for task, specialist in SPECIALISTS.items():
        parse_space(DEFAULT, "default").check(specialist, ["quick"], [], None)
        stages = read_stages(None, list(tomllib.loads(STAGES)))
        assert list(stages) == ["model", "loss", "augment", "lr", "tta"]
        for space in stages.values():
            space.check(specialist, ["quick"], [], load_recipes({task: specialist}, ["quick"])[task])


def test_wrong_stages_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no stage is called 'los'; allowed: model, loss.* Did you mean 'loss'"):
        read_stages(None, ["los"])
    with pytest.raises(ConfigError, match="lr appears twice"):
        read_stages(None, ["lr", "lr"])
    (tmp_path / "stages.toml").write_text("[mine]\nlr = [1e-3, 2e-3]\n")
    assert list(read_stages(tmp_path / "stages.toml", ["mine", "tta"])) == ["mine", "tta"]


@given(st.floats(1e-6, 10), st.floats(1e-6, 10), st.floats(0, 1))
def test_a_drawn_number_stays_in_its_range_and_is_short(one: float, other: float, share: float) -> None:
    low, high = sorted((one, other))
    assume(low < high)
    drawn = low + share * (high - low)
    nice = Range(low, high).nice(min(drawn, high))
    assert low <= nice <= high
    assert abs(nice - min(drawn, high)) <= 0.005 * abs(drawn) + 1e-12


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
    for one in trials:
        search.record_end(
            Trial(one.number, one.changes, COMPLETE, 1.0 / (1 + len(" ".join(one.changes)) % 7), f"run-{one.number}")
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
    for one in kept:
        one.release()


def test_a_search_that_was_killed_draws_what_it_would_have_drawn(
    searched: Searched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna", reason="the extra `sweep` is not installed")
    space = parse_space(SPACE, "here")
    whole, killed = (searched(tmp_path / f"{name}.db", space, 7) for name in ("whole", "killed"))
    for _ in range(6):
        finished(whole, whole.ask(2))
    finished(killed, killed.ask(2))
    draw, drawn = killed._drawn, list[object]()

    def die(known: object) -> object:
        drawn.append(known)
        return draw(known) if len(drawn) == 1 else sys.exit("killed: one of a round is drawn, and not the other")

    monkeypatch.setattr(killed, "_drawn", die)
    with pytest.raises(SystemExit):
        killed.ask(2)
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
        asked = search.ask(3)
        look(None)
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "commit", look)
    assert seen[0] == []
    assert seen[-1] == [4, 4, 4]
    assert [4] in seen
    assert all(count == 4 for counts in seen for count in counts)
    assert searched(file, space, 0).trials == asked


def test_a_search_gets_better_where_there_is_something_to_find(searched: Searched, tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="the extra `sweep` is not installed")
    space = parse_space("lr = { low = 1e-5, high = 1.0, log = true }", "here")
    search = searched(tmp_path / "search.db", space, 0)
    for _ in range(40):
        (one,) = search.ask(1)
        lr = float(one.changes[0].partition("=")[2])
        search.record_end(Trial(one.number, one.changes, COMPLETE, 1 - abs(math.log10(lr) + 3)))
    scores = [one.score or 0.0 for one in search.trials]
    assert sum(scores[30:]) / 10 > sum(scores[:10]) / 10 + 0.5
    assert max(scores) > 0.95


def test_choices_alone_are_gone_through_without_repeating_one(searched: Searched, tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="the extra `sweep` is not installed")
    space = parse_space("ema = [0.0, 0.9, 0.99]\nmixup = [0.0, 0.3]", "here")
    search = searched(tmp_path / "search.db", space, 0)
    drawn = []
    while asked := search.ask(4):
        drawn += [one.changes for one in asked]
        finished(search, asked)
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
    with pytest.raises(DamagedError, match=r"trial \d is not as it was written.*begins the search anew"):
        searched(file, space, 0)
