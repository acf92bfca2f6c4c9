"""Runs that were trained before and after the data grew, in one score.

Everybody in the newest run's table is scored. Whoever a run has learned from is judged by the one member that held the person
out; for whoever came later, all its members answer, as they would for any new person. Together they are one voter, by the mean
of their probabilities, so that a run counts alike for everybody, whatever the strategy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.artifacts.origins import extra_photos_of, plan_of, table_of
from orchestrator.combining.answers import Answers, Voter
from orchestrator.core.errors import LeakError, PlanError, quantity
from orchestrator.core.labels import CLASS_COUNTS, TASKS, of_tasks
from orchestrator.ensembling.out_of_fold import OutOfFold

if TYPE_CHECKING:
    from orchestrator.artifacts.held_out import HeldOut
    from orchestrator.artifacts.run import RunRecord
    from orchestrator.artifacts.workspace import Workspace
    from orchestrator.data.folds import FoldPlan

__all__ = [
    "LaterAnswers",
    "LaterPhotos",
    "check_one_family",
    "join_grown",
    "later_photos",
    "newest_run",
    "who_may_answer",
]


@dataclass(frozen=True, eq=False)
class LaterPhotos:
    """Photos of the newest table for which a run has no held-out answer, n of N, and who may answer for them.

    Attributes:
        run: the run.
        rows: their rows in the table, shape (n,).
        may_answer: fold -> whether its member may answer, shape (n,): it has not learned from the person.
        people: number of people on them whom none of the run's members has seen.
    """

    run: RunRecord
    rows: NDArray[np.int64]
    may_answer: Mapping[int | None, NDArray[np.bool_]]
    people: int


@dataclass(frozen=True, eq=False)
class LaterAnswers:
    """What a run answers for photos that came later.

    Attributes:
        photos: the photos.
        probabilities: the mean over the members that may answer, shape (n, C), float32.
    """

    photos: LaterPhotos
    probabilities: NDArray[np.float32]

    @staticmethod
    def mean_of(photos: LaterPhotos, by_fold: Mapping[int | None, NDArray[np.float32]]) -> LaterAnswers:
        """The answers of a run, from all its members' for all the photos: only of those that may answer."""
        allowed = np.stack([photos.may_answer[fold] for fold in by_fold]).astype(np.float32)[:, :, None]
        sums = (np.stack(list(by_fold.values())) * allowed).sum(axis=0, dtype=np.float64)
        return LaterAnswers(photos, (sums / allowed.sum(axis=0)).astype(np.float32))


def newest_run(runs: Sequence[RunRecord]) -> RunRecord:
    """The run whose data was read last: its table of photos and labels is the newest."""
    return max(runs, key=lambda run: run.data_read)


def check_one_family(workspace: Workspace, runs: Sequence[RunRecord]) -> None:
    """Refuses runs that hold people out in different folds.

    Args:
        workspace: workspace of the runs.
        runs: runs with plans.

    Raises:
        PlanError: two of them follow plans that are not one, nor one the other's extension; or they cover other photos, and
            some were not trained over all folds.
        DamagedError: a plan is missing or damaged.
    """
    way_out = "Choose runs of one plan with --members, or build it for prediction only with --no-score."
    plans = {str(run.plan_digest): plan_of(workspace, run) for run in runs}
    first, *others = plans.values()
    together = dict(first.fold_of)
    for plan in others:
        common = together.keys() & plan.fold_of.keys()
        agree = plan.k == first.k and common and all(together[person] == plan.fold_of[person] for person in common)
        together |= plan.fold_of
        if not agree:
            names = {
                plan.digest: next(run.id for run in runs if run.plan_digest == plan.digest) for plan in plans.values()
            }
            differing = "; ".join(f"{names[plan.digest]}: plan {plan.name}, {plan.k} folds" for plan in plans.values())
            raise PlanError(
                f"the runs follow different fold plans ({differing}), which never mix in one out-of-fold score. {way_out}"
            )
    partial = [run.id for run in runs if run.partial]
    if partial and len({run.data.photo_set for run in runs}) > 1:
        raise PlanError(
            f"{', '.join(partial)}: trained over some folds only, and the runs' photos differ: nobody else could be judged by "
            f"all of them. Train all folds. {way_out}"
        )


def later_photos(workspace: Workspace, run: RunRecord, newest: pd.DataFrame) -> LaterPhotos | None:
    """The photos of the newest table for which a run has no held-out answer; None if there are none.

    Args:
        workspace: workspace of the run.
        run: a run with a plan, trained over all its folds.
        newest: the newest table, as `table_of` gives it.

    Raises:
        LeakError: all members of the run have learned from some people of the table, as extra photos or under other names.
        DamagedError: the plan or the table of the run is missing or damaged.
    """
    own = table_of(workspace, run)
    rows, may_answer, is_new = who_may_answer(own, plan_of(workspace, run).fold_of, run.folds, newest)
    if not len(rows):
        return None
    later = newest.iloc[rows]
    # An extra photo of somebody in the run's table is not learned by the member that holds the person out (`Extra.for_fold`).
    extra_contents, extra_people = extra_photos_of(workspace, run)
    of_others = later["content"].map(extra_contents)
    learned = (of_others.notna() & ((of_others != later["person"]) | is_new)).to_numpy()
    learned = learned | (later["person"].isin(extra_people).to_numpy() & is_new)
    learned = learned | ~np.logical_or.reduce(list(may_answer.values()))
    if learned.any():
        persons, first = sorted(set(later["person"][learned])), later["path"][learned].iloc[0]
        photos = quantity(int(learned.sum()), "photo")
        raise LeakError(
            f"{run.id} cannot be scored on {photos} of the newest data, {first} first: every member of it has learned from their "
            f"people ({', '.join(persons[:3])}{' ...' * (len(persons) > 3)}), as extra photos or under other names. Train "
            f"{run.task} on the newest data, or build the ensemble for prediction only with --no-score."
        )
    return LaterPhotos(run, rows, may_answer, int(later["person"][is_new].nunique()))


def who_may_answer(
    own: pd.DataFrame, fold_of: Mapping[str, int], folds: Sequence[int | None], newest: pd.DataFrame
) -> tuple[NDArray[np.int64], dict[int | None, NDArray[np.bool_]], NDArray[np.bool_]]:
    """Which members of a run may answer for photos of a newer table, so that nobody is judged by a member that knows them.

    A person is known by name, and by the content of any photo: under a corrected name it is still the same person. A member
    has learned from everybody in the run's table whom it does not hold out.

    Args:
        own: the run's table: `path`, `person`, `content`.
        fold_of: person -> the fold that holds the person out, for everybody in it.
        folds: the folds of the run's members.
        newest: the newer table, with the same columns; N photos.

    Returns:
        The rows without a held-out answer, shape (n,); fold -> whether its member may answer for these, shape (n,); and whether
        no member knows their person, shape (n,).
    """
    owner = own.drop_duplicates("content").set_index("content")["person"]
    links = pd.concat(
        [
            pd.DataFrame({"person": newest["person"], "own": newest["content"].map(owner)}),
            pd.DataFrame(
                {"person": newest["person"], "own": newest["person"].where(newest["person"].isin(own["person"]))}
            ),
        ]
    ).dropna()
    links["fold"] = links["own"].map(fold_of)
    held_out_in = links.groupby("person")["fold"].agg(["min", "max"]).reindex(newest["person"])
    first, last = held_out_in["min"].to_numpy(dtype=float), held_out_in["max"].to_numpy(dtype=float)
    is_new = np.isnan(first)
    keys = ["path", "person", "content"]
    answered = newest[keys].merge(own[keys], how="left", indicator=True)["_merge"].eq("both").to_numpy() & (
        first == last
    )
    rows = np.flatnonzero(~answered)
    may_answer = {fold: (is_new | ((first == fold) & (last == fold)))[rows] for fold in folds}
    return rows, may_answer, is_new[rows]


def join_grown(
    newest: pd.DataFrame,
    plan: FoldPlan,
    truth: Mapping[str, NDArray[np.int64]],
    held_out: Mapping[str, HeldOut],
    later: Mapping[str, LaterAnswers],
    votes_in: Mapping[str, tuple[str, ...]] | None = None,
) -> OutOfFold:
    """Everybody's answers for the newest table's N photos; each run is one voter.

    Args:
        newest: the newest table, as `table_of` gives it.
        plan: the fold plan of its run.
        truth: task -> codes, shape (N,).
        held_out: run -> its held-out answers.
        later: run -> its answers for photos that came later, for the runs that have any.
        votes_in: joint run -> the tasks in which it votes; all three, if it is not there.

    Raises:
        PlanError: answers for photos that came later are missing.
    """
    row_of = pd.Series(np.arange(len(newest)), index=newest["path"])
    voters: list[Voter] = []
    arrays: list[NDArray[np.float32]] = []
    for run, of_run in held_out.items():
        rows = row_of.reindex(of_run.photos["path"]).to_numpy(dtype=float)
        own = ~np.isnan(rows)  # whoever left the data is not scored
        if run in later:  # nor is an old photo, where another has its name now
            own &= ~np.isin(rows, later[run].photos.rows)
        answered = rows[own].astype(np.int64)
        late = of_tasks(of_run.task, later[run].probabilities) if run in later else {}
        for part in of_run.by_task():
            if part.task not in (votes_in or {}).get(run, TASKS):
                continue
            array = np.zeros((len(newest), CLASS_COUNTS[part.task]), np.float32)
            array[answered] = part.probabilities[own]
            if run in later:
                array[later[run].photos.rows] = late[part.task]
            missing = np.flatnonzero(~array.any(axis=1))
            if len(missing):
                path = newest["path"].iloc[missing[0]]
                raise PlanError(
                    f"{run}: nobody has answered for {len(missing):,} photos that joined later, {path} among them."
                )
            voters.append(Voter(part.task, run))
            arrays.append(array)
    photos = newest[["path", "person"]].assign(fold=plan.folds(newest["person"]))
    answers = Answers(CLASS_COUNTS, len(newest), tuple(voters), tuple(arrays))
    return OutOfFold(photos, truth, answers, {run: answered.photos.rows for run, answered in later.items()})
