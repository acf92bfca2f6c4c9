"""Test-time augmentation on a trained run: its members' answers with views, for held-out people, without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import Timeout
from numpy.typing import NDArray

from orchestrator.artifacts.cards import HELD_OUT, MemberCard
from orchestrator.artifacts.held_out import HeldOut, held_out_of
from orchestrator.artifacts.locks import run_lock
from orchestrator.artifacts.members import is_intact, share_member
from orchestrator.artifacts.run import COMPLETE, UNFINISHED, RunRecord, member_folder
from orchestrator.artifacts.sources import source_of
from orchestrator.artifacts.workspace import Workspace, now
from orchestrator.core.commands import orch
from orchestrator.core.errors import ConfigError, DataError, WorkspaceError
from orchestrator.core.events import Listener, counted, ignore_events, progress_callback
from orchestrator.core.files import set_aside, sha256_of
from orchestrator.core.interval import Difference
from orchestrator.core.metrics import Scores, member_scores, score
from orchestrator.data.photos import Photos
from orchestrator.data.readers import read
from orchestrator.ensembling.intervals import difference
from orchestrator.pipeline.preparation import prepare_photos
from orchestrator.recipes.lint import lint
from orchestrator.recipes.schema import Recipe
from orchestrator.specialist import Specialist

__all__ = ["ViewEffect", "check_run", "keep_views", "try_views"]


@dataclass(frozen=True)
class ViewEffect:
    """Answers without views and with them, for every held-out photo of a run.

    Attributes:
        run: the run whose members answered.
        views: views in addition to the original photo.
        before: scores without views.
        after: scores with the views.
        gain: difference in macro F1, with its 95 % interval over people.
        became_right: number of wrong answers that became right, by true class, shape (C,).
        became_wrong: number of right answers that became wrong, by true class, shape (C,).
        held_out: fold -> the held-out answers with the views.
    """

    run: RunRecord
    views: tuple[str, ...]
    before: Scores
    after: Scores
    gain: Difference
    became_right: NDArray[np.int64]
    became_wrong: NDArray[np.int64]
    held_out: Mapping[int | None, HeldOut]

    def as_dict(self, classes: Sequence[str]) -> dict[str, Any]:
        """For JSON."""
        return {
            "run": self.run.id, "views": list(self.views), "photos": int(self.before.counts.sum()),
            "macro_f1": self.before.macro_f1, "macro_f1_with_views": self.after.macro_f1,
            "gain": self.gain.value, "gain_interval_95": self.gain.interval.as_list(),
            "classes": {
                name: {"became_right": int(self.became_right[code]), "became_wrong": int(self.became_wrong[code])}
                for code, name in enumerate(classes)
            },
        }  # fmt: skip


def check_run(run: RunRecord) -> None:
    """Rejects a run without held-out people; loads no member.

    Raises:
        ConfigError: the run was trained on everything, or is unfinished.
    """
    if run.plan is None or not run.complete:
        why = "was trained on everything (--folds 0)" if run.plan is None else "is unfinished"
        raise ConfigError(f"{run.id} {why}: nobody is held out to try views on.")


def try_views(
    workspace: Workspace,
    run: RunRecord,
    specialist: Specialist,
    views: Sequence[str],
    device: str,
    data: Path | None = None,
    columns: Mapping[str, str] | None = None,
    store: bool = True,
    listen: Listener = ignore_events,
) -> ViewEffect:
    """Answers of every member of a run, with views, for its held-out people.

    Args:
        workspace: the workspace of the run.
        run: a complete run with a fold plan.
        specialist: its specialist.
        views: names of the views in addition to the original photo.
        device: as `--device`.
        data: the photos' new location; None: unchanged.
        columns: our column name -> the manifest's; None: unchanged.
        store: decode each photo once, into the workspace's pixel stores; otherwise at every use.
        listen: receives progress events.

    Raises:
        ConfigError: views that this specialist must not have, or a run that cannot be scored.
        DataError: the photos are not there, or not those that the run was trained on.
        DeviceError: the device is not there.
        WorkspaceError: files of a member are missing or changed, or its answers are NaN or infinite.
    """
    check_run(run)
    recipe = _with_views(run, specialist, views)
    all_held_out = held_out_of(workspace, run)
    of_fold = {fold: all_held_out.take((all_held_out.photos["fold"] == fold).to_numpy()) for fold in run.folds}
    photos, content = _photos(workspace, run, data, columns)
    from orchestrator.inference.member import MemberFiles, load_members
    from orchestrator.inference.member_answers import member_answers
    from orchestrator.networks.devices import resolve_device

    device_name = resolve_device(device)
    relative, done = list(photos.table["path"]), counted(progress_callback(listen, "answer"), len(all_held_out.truth))
    rows_of = {path: row for row, path in enumerate(relative)}
    sources, _ = prepare_photos(workspace, relative, photos.paths, content, [recipe.geometry], store, listen)
    with_views: dict[int | None, HeldOut] = {}
    for fold, held_out in of_fold.items():
        (member,) = load_members([MemberFiles(run.task, run.id, fold, run.member(fold))], device_name)
        member = replace(member, views=recipe.views)
        rows = np.array([rows_of[path] for path in held_out.photos["path"]], dtype=np.int64)
        (probabilities,) = member_answers([member], sources[recipe.geometry], rows, device_name, done)
        with_views[fold] = replace(held_out, probabilities=probabilities)
    before, after = (HeldOut.stacked(list(by_fold.values())) for by_fold in (of_fold, with_views))
    truth, classes = before.truth, len(specialist.classes)
    choice_before, choice_after = before.choice, after.choice
    return ViewEffect(
        run, recipe.views, score(truth, choice_before, classes), score(truth, choice_after, classes),
        difference(before.photos["person"], truth, choice_before, choice_after, classes),
        np.bincount(truth[(choice_before != truth) & (choice_after == truth)], minlength=classes),
        np.bincount(truth[(choice_before == truth) & (choice_after != truth)], minlength=classes), with_views,
    )  # fmt: skip


def keep_views(workspace: Workspace, effect: ViewEffect, specialist: Specialist) -> RunRecord:
    """Makes a new run of these answers, or finds it: the same weights, a recipe with the views; nothing is trained.

    It works like any other run: ensembles score its held-out tables and predict with the views.

    Raises:
        WorkspaceError: another command is writing that run.
    """
    source = effect.run
    recipe = _with_views(source, specialist, effect.views)
    with workspace.lock():
        run = replace(
            source, status=UNFINISHED, created=now(), make_current="never", seconds=0.0, score=None, files={},
            changes=[*source.changes, f"views={list(recipe.views)}"], recipe=recipe.model_dump(mode="json"), chosen=recipe.chosen,
            parent=source.id, retrained=[], was_offered=False, shared_seeds=dict(source.shared_seeds),
        )  # fmt: skip
        existing = workspace.newest_run(run.task, run.key)
        if existing is not None and existing.complete and is_intact(existing):
            return existing
        if existing is not None:  # a killed command's run is resumed, a damaged one rewritten
            run = replace(run, id=existing.id, folder=existing.folder)
            run.save()
        else:
            workspace.add_run(run)
    try:
        with run_lock(run.folder):
            for fold in run.folds:
                if run.member(fold).exists() and not run.member(fold).is_dir():
                    set_aside(run.member(fold))
                share_member(source, run, fold)
                _rewrite(run, fold, effect)
            run.update(status=COMPLETE, score=effect.after.macro_f1)
    except Timeout:
        raise WorkspaceError(f"{run.id}: another orch command is writing this run. Wait for it, or stop it.") from None
    return run


def _rewrite(run: RunRecord, fold: int | None, effect: ViewEffect) -> None:
    """Rewrites a shared member's held-out table and card for the views; the card last."""
    folder, held_out = run.member(fold), effect.held_out[fold]
    held_out.write(folder / HELD_OUT)
    scores, confusion = member_scores(held_out.truth, held_out.probabilities)
    card = MemberCard.load(folder)
    card = replace(
        card, id=run.identity(fold), views=tuple(effect.views), recipe=run.recipe, run=run.id, record=run.as_json(),
        scores=scores, confusion=confusion.tolist(), sha256={**card.sha256, HELD_OUT: sha256_of(folder / HELD_OUT)},
    )  # fmt: skip
    card.save(folder)
    run.update(files={**run.files, member_folder(fold): dict(card.sha256)})


def _with_views(run: RunRecord, specialist: Specialist, views: Sequence[str]) -> Recipe:
    """The run's recipe with other views.

    Raises:
        ConfigError: they would cut away what the specialist needs, or the run trained heads alone.
    """
    if run.trains_heads_alone:
        raise ConfigError(
            f"{run.id} has trained heads alone (train = head), on features of the photos as they are: views are for whole "
            "networks. Try them on a run of another recipe, for example quick."
        )
    recipe = Recipe.model_validate({**run.checked_recipe().model_dump(mode="json"), "views": list(views)})
    problems = [problem for problem in lint(specialist, recipe) if problem.fatal]
    if problems:
        raise ConfigError(f"{run.id} cannot have these views.", problems)
    return recipe


def _photos(
    workspace: Workspace, run: RunRecord, data: Path | None, columns: Mapping[str, str] | None
) -> tuple[Photos, list[str]]:
    """The photos that a run was trained on, whatever was corrected in their labels since, and the sha256 of each."""
    again = orch("tta", run.id, "--data", "DIR", workspace=workspace.root)
    source = source_of(run, data, again)
    photos = read(source, columns if columns is not None else run.data.columns, distinct=True)
    content = photos.content(workspace.hashes())
    if photos.fingerprint(content, ()) != run.data.photo_set:
        raise DataError(f"{source}: not the photos that {run.id} was trained on. Name where those are: `{again}`.")
    return photos, content
