"""An ensemble on disk: which members and tables answer, how they are combined, and what that scored; immutable.

runs/soft-0001/
    ensemble.json              the record, written last
    out_of_fold.parquet        the answers behind the scores, for every held-out photo
    disagreements.csv          photos on which soft and hard votes differ
    external-1.parquet ...     external tables, as they were read
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.core.commands import display_path, orch
from orchestrator.core.errors import ConfigError, DamagedError
from orchestrator.core.interval import Difference, Interval
from orchestrator.core.labels import CLASS_COUNTS, CLASSES, JOINT, LABELS, TASKS, tasks_of
from orchestrator.core.sealed import check_file, damaged_error, read_sealed, write_sealed
from orchestrator.core.strategies import Strategy
from orchestrator.core.typed import check_types

if TYPE_CHECKING:
    from orchestrator.combining.combiners import Combiner

__all__ = [
    "CASCADE", "DISAGREEMENTS", "ENSEMBLE", "OUT_OF_FOLD", "ClassScores", "EnsembleMember", "EnsembleRecord", "ExternalSource",
    "RecordedScores", "ScoreKind", "TriedStrategy", "VoterScores",
]  # fmt: skip

ENSEMBLE_FORMAT = 7
KIND = "ensemble"
ENSEMBLE = "ensemble.json"
OUT_OF_FOLD = "out_of_fold.parquet"
DISAGREEMENTS = "disagreements.csv"
CASCADE = "cascade.json"


@dataclass(frozen=True)
class EnsembleMember:
    """A member that an ensemble uses.

    Attributes:
        task: task of its specialist, or `joint`.
        run: id of its run.
        fold: held-out fold; None: no fold.
        folder: folder of its files, relative to the workspace's root.
        sha256: sha256 of its weights.
        function: digest of the function that it computes.
        votes_in: the tasks in which it votes: its own; of a joint network all three, or those that were asked for.
    """

    task: str
    run: str
    fold: int | None
    folder: str
    sha256: str
    function: str
    votes_in: tuple[str, ...]


@dataclass(frozen=True)
class ExternalSource:
    """An external table that an ensemble uses.

    Attributes:
        name: name of the file, made unique among the tables.
        source: path that it was read from.
        file: name of its copy in the ensemble's folder.
        photos: number of photos in the table.
        tasks: tasks that it answers for.
        matched: number of held-out photos that it answers for; None without a score.
        held_out: number of held-out photos.
    """

    name: str
    source: str
    file: str
    photos: int
    tasks: tuple[str, ...]
    matched: int | None = None
    held_out: int | None = None


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class of a task, or of one label.

    Attributes:
        f1: 0..1.
        precision: 0..1; 0 for a class that is never predicted.
        recall: 0..1; 0 for a class without photos.
        photos: number of photos of the class.
    """

    f1: float
    precision: float
    recall: float
    photos: int


ScoreKind = Literal["out-of-fold", "held-out"]


@dataclass(frozen=True)
class RecordedScores:
    """Scores of a task or of the label.

    Attributes:
        kind: `out-of-fold`, each photo judged by the members that have not seen its person; or `held-out`, people whom no member
            has seen.
        people: number of people.
        photos: number of photos.
        accuracy: 0..1.
        macro_f1: 0..1.
        absent: classes without any photo.
        classes: class -> its scores, in code order.
        confusion: counts by (truth, answer), (C, C).
        intervals: `accuracy`, `macro_f1` -> 95 % interval over people.
    """

    kind: ScoreKind
    people: int
    photos: int
    accuracy: float
    macro_f1: float
    absent: tuple[str, ...]
    classes: Mapping[str, ClassScores]
    confusion: tuple[tuple[int, ...], ...]
    intervals: Mapping[str, Interval]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        value = asdict(self)
        del value["intervals"]
        return {**value, "interval_95": {name: interval.as_list() for name, interval in self.intervals.items()}}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> RecordedScores:
        """The inverse of `as_dict`, from an ensemble's record."""
        rest = {name: part for name, part in value.items() if name != "interval_95"}
        typed = {
            "absent": tuple(value["absent"]),
            "classes": {name: ClassScores(**scores) for name, scores in value["classes"].items()},
            "confusion": tuple(map(tuple, value["confusion"])),
            "intervals": {name: Interval.from_list(span) for name, span in value["interval_95"].items()},
        }
        return cls(**{**rest, **typed})


@dataclass(frozen=True)
class VoterScores:
    """Scores of one voter alone.

    Attributes:
        run: its run, or the name of an external table.
        fold: its fold; None: the whole run, or a table.
        photos: number of photos that it held out, or that the table answers.
        accuracy: 0..1.
        macro_f1: 0..1.
    """

    run: str
    fold: int | None
    photos: int
    accuracy: float
    macro_f1: float


@dataclass(frozen=True)
class TriedStrategy:
    """A strategy that `auto` tried.

    Attributes:
        name: its words.
        macro_f1: its nested 18-way macro F1.
        over_soft: what it gains over a soft vote, nested; None for the soft vote itself.
        chosen: whether it is used.
    """

    name: str
    macro_f1: float
    over_soft: Difference | None
    chosen: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        gain = None if self.over_soft is None else _gain_dict(self.over_soft)
        return {"name": self.name, "macro_f1": self.macro_f1, "over_soft": gain, "chosen": self.chosen}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> TriedStrategy:
        """The inverse of `as_dict`."""
        gain = value["over_soft"]
        return cls(value["name"], value["macro_f1"], None if gain is None else _gain_of(gain), value["chosen"])


def _gain_dict(gain: Difference) -> dict[str, Any]:
    return {
        "macro_f1": gain.value,
        "interval_95": gain.interval.as_list(),
        "probability_above": gain.probability,
    }


def _gain_of(value: Mapping[str, Any]) -> Difference:
    return Difference(value["macro_f1"], Interval.from_list(value["interval_95"]), value["probability_above"])


@dataclass(frozen=True)
class EnsembleRecord:
    """What `ensemble.json` holds.

    Attributes:
        folder: the ensemble's folder; not in the file.
        id: its name, `soft-0001`.
        strategy: how answers become one, as it was asked for.
        combiner: how answers become one, in numbers, as `Combiner.from_dict` reads it.
        combiners_by_fold: fold -> the same, learned from the other folds' people; only of a strategy that learns.
        created: local time, ISO 8601.
        members: members of all tasks, grouped by task.
        external: external tables.
        plan: digest of the fold plan that the scores follow; None without a score.
        evaluation: scores of each task and of the label; None without out-of-fold answers. Of a strategy that learns they are
            nested: learned from some people, scored on others.
        plain: task, or `label` -> macro F1 of its combiner on the very people that it was learned from; only of a strategy that
            learns.
        alone: task, or `label` -> nested macro F1 of each photo's own answer; only where a person's photos answer together.
        why_no_score: why there are no scores; empty if there are.
        single: task -> scores of each run, member and table alone.
        added_by: run or table -> what it adds to the label's macro F1.
        tried: the strategies that `auto` tried; empty for others.
        left_out: runs and tables without any weight, which were scored and are not in the ensemble.
        outdated_labels: run -> number of scored photos whose label it has learned otherwise than the newest labels, against
            which the ensemble is scored; only runs that have any.
        later_people: run -> number of scored people who joined the data after it was trained, for whom all its members answer;
            only runs that have any.
        disagreements: how many photos soft and hard votes answer differently.
        files: file beside the record -> sha256.
    """

    folder: Path
    id: str
    strategy: Strategy
    combiner: Mapping[str, Any]
    created: str
    members: tuple[EnsembleMember, ...]
    external: tuple[ExternalSource, ...] = ()
    plan: str | None = None
    evaluation: Mapping[str, RecordedScores] | None = None
    plain: Mapping[str, float] = field(default_factory=dict)
    alone: Mapping[str, float] = field(default_factory=dict)
    why_no_score: str = ""
    single: Mapping[str, tuple[VoterScores, ...]] = field(default_factory=dict)
    added_by: Mapping[str, Difference] = field(default_factory=dict)
    tried: tuple[TriedStrategy, ...] = ()
    left_out: tuple[str, ...] = ()
    outdated_labels: Mapping[str, int] = field(default_factory=dict)
    later_people: Mapping[str, int] = field(default_factory=dict)
    disagreements: int | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    combiners_by_fold: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        """The folder of its workspace."""
        return self.folder.parent

    @property
    def scores_picture(self) -> Path:
        """The picture of its scores, where it has any."""
        return self.folder / "scores.png"

    def read_combiner(self) -> Combiner:
        """The ensemble's combiner, as it was fitted when the ensemble was built.

        Raises:
            DamagedError: the values in the record are not those of a combiner.
        """
        return self._read_combiner(self.combiner)

    def read_combiners_by_fold(self) -> dict[int, Combiner]:
        """Fold -> its combiner, as far as it has learned nothing from the fold's people; empty if it has learned nothing.

        Raises:
            DamagedError: the values in the record are not those of a combiner.
        """
        return {int(fold): self._read_combiner(value) for fold, value in self.combiners_by_fold.items()}

    def _read_combiner(self, value: Mapping[str, Any]) -> Combiner:
        from orchestrator.combining.combiners import Combiner

        try:
            combiner = Combiner.from_dict(value)
            combiner.check(CLASS_COUNTS, self._sources)
            if (combiner.people is not None) != self.strategy.pool_people:
                raise ValueError("people's photos together, or not, other than was asked")
            return combiner
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            fault = f"not the record of an ensemble (combiner: {error})"
            raise damaged_error(self.folder / ENSEMBLE, fault, self.rebuild_advice()) from None

    @property
    def runs(self) -> dict[str, list[str]]:
        """Task (or `joint`) -> the ids of the runs that answer for it."""
        tasks = dict.fromkeys(member.task for member in self.members)
        return {
            task: list(dict.fromkeys(member.run for member in self.members if member.task == task)) for task in tasks
        }

    @property
    def run_ids(self) -> list[str]:
        """The runs that answer, each once."""
        return list(dict.fromkeys(member.run for member in self.members))

    def members_per_run(self, task: str) -> float:
        """Mean number of a task's members per run: the weight of an external table in a vote of single members.

        Out of fold, one member answers for its run, and a table weighs as much as that member.
        """
        runs = [member.run for member in self.members if task in member.votes_in]
        return len(runs) / len(set(runs))

    @property
    def _sources(self) -> dict[str, set[str]]:
        """Task -> the runs and tables that answer for it."""
        return {
            task: {member.run for member in self.members if task in member.votes_in}
            | {table.name for table in self.external if task in table.tasks and table.matched}
            for task in TASKS
        }

    @property
    def member_options(self) -> list[str]:
        """The options of a command that names its runs."""
        votes_in = {member.run: member.votes_in for member in self.members}
        words = {
            run: f"{run}:{','.join(tasks)}" if run in self.runs.get(JOINT, ()) and tasks != TASKS else run
            for run, tasks in votes_in.items()
        }
        return [
            word
            for task, runs in self.runs.items()
            for word in ("--members", f"{task}={','.join(words[run] for run in runs)}")
        ]

    def rebuild_advice(self) -> str:
        """How to make an ensemble of the same runs, tables and combiner again, to complete a sentence."""
        options, lost = self.member_options, list[str]()
        for table in self.external:  # from where it was read, else the copy
            path = next((path for path in (Path(table.source), self.folder / table.file) if path.is_file()), None)
            options += [] if path is None else ["--with", display_path(path)]
            lost += [table.name] if path is None else []
        options += [] if self.evaluation else ["--no-score"]
        again = orch("ensemble", *self.strategy.options, *options, workspace=self.root)
        without = f", without {', '.join(lost)}, of which no copy is left: its answers will differ" if lost else ""
        return f"build it again: `{again}`{without}."

    @property
    def disagreements_table(self) -> Path:
        """The table of photos on which soft and hard votes differ."""
        return self.folder / DISAGREEMENTS

    def file(self, name: str, way_out: str = "") -> Path:
        """The path of a file beside the record, checked to be the file that was written.

        Args:
            name: name of the file.
            way_out: what to do if it is damaged, to complete a sentence.

        Raises:
            DamagedError: the file is missing, or is not the one that was written.
        """
        check_file(self.folder / name, self.files[name], way_out)
        return self.folder / name

    def as_json(self) -> dict[str, Any]:
        """The record without its folder, as JSON values; members are grouped by task."""
        value = {
            name: part for name, part in asdict(self).items() if name not in ("folder", "id", "members", "strategy")
        }
        asked = {
            "strategy": self.strategy.words, "calibrate": self.strategy.calibrate, "decide": self.strategy.decide,
            "pool_people": self.strategy.pool_people,
        }  # fmt: skip
        for name in ("combiners_by_fold", "plain", "alone", "outdated_labels", "later_people", "left_out"):
            if not value[name]:
                del value[name]
        members = {
            task: [asdict(member) for member in self.members if member.task == task]
            for task in CLASSES
            if task in self.runs
        }
        scores = {
            "evaluation": None
            if self.evaluation is None
            else {name: scored.as_dict() for name, scored in self.evaluation.items()},
            "added_by": {name: _gain_dict(gain) for name, gain in self.added_by.items()},
            **({"tried": [tried.as_dict() for tried in self.tried]} if self.tried else {}),
        }
        if not self.tried:
            del value["tried"]
        return {**asked, **value, **scores, "members": members, "classes": _class_names(), "labels": list(LABELS)}

    def save(self) -> None:
        """Writes the record, the last of the ensemble's files."""
        write_sealed(self.folder / ENSEMBLE, KIND, self.id, ENSEMBLE_FORMAT, self.as_json())

    @classmethod
    def load(cls, folder: Path, way_out: str) -> EnsembleRecord:
        """Reads an ensemble's record from its folder, and checks its values' types.

        Args:
            folder: the ensemble's folder.
            way_out: what to do if it is damaged, to complete a sentence.

        Raises:
            DamagedError: the record is missing, damaged, another ensemble's, or of another format.
        """
        value = dict(read_sealed(folder / ENSEMBLE, KIND, folder.name, ENSEMBLE_FORMAT, way_out))
        try:
            strategy = _strategy_of(
                folder, *(value.pop(name) for name in ("strategy", "calibrate", "decide", "pool_people"))
            )
            if (value.pop("classes"), value.pop("labels")) != (_class_names(), list(LABELS)):
                raise ValueError("of other classes than this version's")
            members = tuple(
                EnsembleMember(**{**member, "votes_in": tuple(member["votes_in"])})
                for cards in value.pop("members").values()
                for member in cards
            )
            external = tuple(
                ExternalSource(**{**table, "tasks": tuple(table["tasks"])}) for table in value.pop("external")
            )
            typed = {
                "evaluation": None
                if value["evaluation"] is None
                else {name: RecordedScores.from_dict(scores) for name, scores in value["evaluation"].items()},
                "single": {
                    task: tuple(VoterScores(**scores) for scores in voters) for task, voters in value["single"].items()
                },
                "added_by": {name: _gain_of(gain) for name, gain in value["added_by"].items()},
                "tried": tuple(map(TriedStrategy.from_dict, value.get("tried", ()))),
                "left_out": tuple(value.get("left_out", ())),
            }
            record = cls(
                folder=folder, id=folder.name, strategy=strategy, members=members, external=external, **{**value, **typed}
            )  # fmt: skip
            check_types(record)
            unanswered = [task for task in TASKS if not any(task in member.votes_in for member in record.members)]
            if record.evaluation is not None and set(record.evaluation) != {*TASKS, "label"}:
                raise TypeError(f"evaluation has {', '.join(record.evaluation)}")
            if wrong := [member.task for member in record.members if member.task not in CLASSES]:
                raise TypeError(f"a member of the task {wrong[0]!r}")
            if any(set(member.votes_in) - set(tasks_of(member.task)) for member in record.members):
                raise TypeError("a member that votes in tasks that it does not answer")
            if unanswered:
                raise TypeError(f"no member answers for {', '.join(unanswered)}")
            return record
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise damaged_error(folder / ENSEMBLE, f"not the record of an ensemble ({error})", way_out) from None


def _strategy_of(folder: Path, strategy: str, calibrate: str, decide: str, pool_people: bool) -> Strategy:
    """The strategy in a record.

    Raises:
        DamagedError: it is of a newer version.
    """
    try:
        return Strategy.parse(strategy, calibrate, decide, pool_people)
    except ConfigError as error:
        fault = f"combined in a way that this version of orch does not know: {error.message.rstrip('.')}"
        raise DamagedError(folder / ENSEMBLE, fault, "Use the version that built it.", replaceable=False) from None


def _class_names() -> dict[str, list[str]]:
    return {task: list(CLASSES[task]) for task in TASKS}
