"""Photos, their tables and submissions: functions for `orch data` and `orch submissions`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.api.arguments import PathLike, checks_arguments, path_or_none
from orchestrator.core.arguments import MOST_SEED, check_folds, check_range
from orchestrator.core.commands import DEFAULT_WORKSPACE
from orchestrator.core.cores import cores
from orchestrator.core.errors import ConfigError, DataError, Mistakes
from orchestrator.core.events import Listener, ignore_events, progress_callback
from orchestrator.core.extras import require
from orchestrator.core.labels import TASKS
from orchestrator.core.outputs import Output, check_outputs

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from orchestrator.data.alike import AlikePair
    from orchestrator.data.changes import DataChanges
    from orchestrator.data.check import DataFindings
    from orchestrator.data.describe import Description
    from orchestrator.data.folds import FoldPlan
    from orchestrator.data.photos import Photos
    from orchestrator.data.preprocessing import Box
    from orchestrator.experiments.submissions import Differences

__all__ = [
    "AlikePhotos", "Faces", "PlannedFolds", "SyntheticPeople", "check_data", "compare_submissions", "data_changes",
    "describe_data", "find_alike", "find_faces", "plan_folds", "synthesise",
]  # fmt: skip

log = logging.getLogger(__name__)

SMALL = 50  # up to so many people one process is faster than several, which must start first


@dataclass(frozen=True)
class Faces:
    """The result of `find_faces`.

    Attributes:
        detector: name and version of the detector.
        photos: the photos, in the table's order.
        boxes: the face's box in each photo; None where none is found.
    """

    detector: str
    photos: Photos
    boxes: Sequence[Box | None]

    @property
    def found(self) -> int:
        """Number of photos in which a face is found."""
        return sum(box is not None for box in self.boxes)

    @property
    def without(self) -> list[str]:
        """Photos in which none is found, as the table names them."""
        return [path for path, box in zip(self.photos.table["path"], self.boxes, strict=True) if box is None]

    @property
    def by_mask(self) -> dict[str, tuple[int, int]]:
        """Mask state -> photos in which a face is found, and photos; empty where the table has no masks."""
        if "mask" not in self.photos.table:
            return {}
        table = self.photos.table["mask"].to_frame().assign(found=[box is not None for box in self.boxes])
        counts = table.groupby("mask")["found"].agg(["sum", "size"])
        return {str(mask): (int(row["sum"]), int(row["size"])) for mask, row in counts.iterrows()}

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        each = [{"path": path, "box": box} for path, box in zip(self.photos.table["path"], self.boxes, strict=True)]
        return {"detector": self.detector, "photos": len(self.photos), "found": self.found, "boxes": each}


@dataclass(frozen=True)
class AlikePhotos:
    """The result of `find_alike`: photos of different people that look the same.

    Attributes:
        paths: the photos' files, those of `against` last, N in all.
        persons: the person of each, shape (N,).
        pairs: the pairs, the most alike first.
        folds: the fold of each photo by the plan that training would use, shape (N,); None where no plan was asked for.
    """

    paths: Sequence[Path]
    persons: Sequence[str]
    pairs: Sequence[AlikePair]
    folds: NDArray[np.int64] | None

    @property
    def across(self) -> int | None:
        """Number of pairs whose people are in different folds: each leaks between training and scoring; None without folds."""
        if self.folds is None:
            return None
        return sum(int(self.folds[pair.first] != self.folds[pair.second]) for pair in self.pairs)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        folds = self.folds
        pairs = [
            {
                "photos": [str(self.paths[number]) for number in (pair.first, pair.second)],
                "people": [self.persons[number] for number in (pair.first, pair.second)],
                "folds": None if folds is None else [int(folds[number]) for number in (pair.first, pair.second)],
                "bits": pair.bits,
            }
            for pair in self.pairs
        ]
        return {"photos": len(self.paths), "pairs": pairs, "across_folds": self.across}


@dataclass(frozen=True)
class PlannedFolds:
    """The result of `plan_folds`.

    Attributes:
        plan: the fold plan that training would use.
        table: people and photos of each fold by class.
        about: a sentence on who joined and who left since the workspace's plan was made; empty if nobody did.
    """

    plan: FoldPlan
    table: pd.DataFrame
    about: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        plan = self.plan
        return {
            "digest": plan.digest, "k": plan.k, "seed": plan.seed, "extends": list(plan.ancestors),
            "folds": self.table.to_dict("records"),
        }  # fmt: skip


@dataclass(frozen=True)
class SyntheticPeople:
    """The result of `synthesise`.

    Attributes:
        train: folder of the people to train on.
        most_folds: the largest number of folds for so many people.
    """

    train: Path
    most_folds: int


@checks_arguments
def check_data(
    data: PathLike,
    *,
    tasks: Sequence[str] = TASKS,
    folds: int = 5,
    columns: Mapping[str, str] | None = None,
    distinct_people: bool = False,
    listen: Listener = ignore_events,
) -> DataFindings:
    """Finds everything that is wrong with photos and table, all at once: `orch data check`.

    Args:
        data: a folder with train.csv and images/, or a manifest.
        tasks: specialists to train, some of `age`, `gender`, `mask`.
        folds: folds of the plan; 0: no plan.
        columns: our column name -> the manifest's.
        distinct_people: treat names that differ only in spelling as different people.
        listen: receives progress events.

    Raises:
        OrchestratorError: there is nothing at the path, or an unknown task.
    """
    data = Path(data)
    from orchestrator.data.readers import check_source
    from orchestrator.specialists import chosen

    mistakes = Mistakes()
    with mistakes.collect():
        needs = {task: specialist.columns for task, specialist in chosen(tasks).items()}
    with mistakes.collect():
        check_folds(folds, "or 0 for no plan")
    with mistakes.collect():
        check_source(data, columns, needs_table=False)
    mistakes.raise_if_any()
    from orchestrator.data.check import check

    return check(data, columns, needs, folds, progress_callback(listen, "open photos"), distinct=distinct_people)


@checks_arguments
def describe_data(
    data: PathLike,
    *,
    picture: PathLike | None = None,
    columns: Mapping[str, str] | None = None,
    distinct_people: bool = False,
    listen: Listener = ignore_events,
) -> Description:
    """Counts people and photos by class, ages and image sizes: `orch data describe`.

    Args:
        data: a folder with train.csv and images/, or a manifest.
        picture: a .png of what was counted.
        columns: our column name -> the manifest's.
        distinct_people: treat names that differ only in spelling as different people.
        listen: receives progress events.

    Raises:
        OrchestratorError: data that cannot be read, or a picture that cannot be written.
    """
    data, picture = Path(data), path_or_none(picture)
    from orchestrator.data.readers import read

    outputs = [Output("--out", picture, (".png",))] if picture is not None else []
    check_outputs(outputs)
    photos = read(data, columns, distinct_people)
    check_outputs(outputs, [data, *photos.paths])
    from orchestrator.data.describe import describe

    description = describe(photos, progress_callback(listen, "read sizes"))
    if picture is not None:
        from orchestrator.pictures import draw_people

        draw_people(description, picture)
        log.info(f"picture: {picture}")
    return description


@checks_arguments
def data_changes(
    old: PathLike,
    new: PathLike,
    *,
    columns: Mapping[str, str] | None = None,
    distinct_people: bool = False,
    listen: Listener = ignore_events,
) -> DataChanges:
    """Compares two states of the data: who and what came, went, moved or was relabelled: `orch data diff`.

    Args:
        old: a folder with train.csv and images/, or a manifest.
        new: the same, now.
        columns: our column name -> the manifest's, of manifests.
        distinct_people: treat names that differ only in spelling as different people.
        listen: receives progress events.

    Raises:
        OrchestratorError: data that cannot be read.
    """
    old, new = Path(old), Path(new)
    from orchestrator.data.readers import check_source, read

    mistakes = Mistakes()
    for source in (old, new):
        with mistakes.collect():
            check_source(source, columns)
    mistakes.raise_if_any()
    before, after = (read(source, columns, distinct_people) for source in (old, new))
    from orchestrator.data.changes import changes_between

    count, total, contents = progress_callback(listen, "read files"), len(before) + len(after), list[list[str]]()
    for photos in (before, after):
        contents.append(photos.content())
        count(sum(map(len, contents)), total)
    return changes_between(before, after, contents[0], contents[1])


@checks_arguments
def find_alike(
    data: PathLike,
    *,
    bits: int = 2,
    against: PathLike | None = None,
    folds: int = 0,
    plan_seed: int = 0,
    columns: Mapping[str, str] | None = None,
    distinct_people: bool = False,
    picture: PathLike | None = None,
    listen: Listener = ignore_events,
) -> AlikePhotos:
    """Finds photos of different people that look the same, and so leak across folds: `orch data alike`.

    Args:
        data: a folder with train.csv and images/, or a manifest.
        bits: in how many of their 64 bits perceptual hashes may differ; more than 2 finds strangers with similar photos.
        against: another source, such as the training's of held-out data: only pairs between the two count.
        folds: folds of a plan, to say which pairs are divided by it; 0: nothing is said of folds.
        plan_seed: seed of the plan.
        columns: our column name -> the manifest's.
        distinct_people: treat names that differ only in spelling as different people.
        picture: a .png of the most similar pairs.
        listen: receives progress events.

    Raises:
        OrchestratorError: data that cannot be read, or a package that is not installed.
    """
    data, picture = Path(data), path_or_none(picture)
    from orchestrator.data.readers import check_source, read

    mistakes = Mistakes()
    with mistakes.collect():
        check_source(data, columns)
    with mistakes.collect():
        check_range("--bits", bits, 0, 16)
    with mistakes.collect():
        if folds == 1 or (folds and against is not None):
            raise ConfigError(f"--folds {folds}; allowed: 2 or more, or 0, and without --against.")
        check_range("--folds", folds, 0)
    if against is not None:
        with mistakes.collect():
            check_source(Path(against), columns)
    with mistakes.collect():
        require("finding photos that look the same", "alike")
    outputs = [Output("--picture", picture, (".png",))] if picture is not None else []
    with mistakes.collect():
        check_outputs(outputs)
    mistakes.raise_if_any()
    photos = read(data, columns, distinct_people)
    check_outputs(outputs, [data, *photos.paths])
    others = None if against is None else read(Path(against), columns, distinct_people)
    from orchestrator.data.alike import alike_pairs, perceptual_hashes
    from orchestrator.data.folds import plan_folds as plan_of

    persons, paths = photos.table["person"].tolist(), photos.paths
    numbers = plan_of(photos.people, folds, plan_seed).folds(photos.table["person"]) if folds else None
    groups: Sequence[object] = persons
    if others is not None:  # within a source, pairs are that source's own matter
        groups, persons = [0] * len(paths) + [1] * len(others), [*persons, *others.table["person"]]
        paths = [*paths, *others.paths]
    hashes = perceptual_hashes(paths, cores(), progress_callback(listen, "hash photos"))
    alike = AlikePhotos(paths, persons, alike_pairs(hashes, groups, bits), numbers)
    if picture is not None:
        from orchestrator.pictures import draw_pairs

        draw_pairs([(paths[pair.first], paths[pair.second], pair.bits) for pair in alike.pairs], picture)
    return alike


@checks_arguments
def find_faces(
    data: PathLike,
    *,
    workspace: PathLike = DEFAULT_WORKSPACE,
    picture: PathLike | None = None,
    columns: Mapping[str, str] | None = None,
    listen: Listener = ignore_events,
) -> Faces:
    """Finds the face in every photo, as recipes with `face` above 0 do, and keeps the boxes: `orch data faces`.

    Args:
        data: a folder with train.csv and images/, or a manifest.
        workspace: the workspace that keeps them.
        picture: a .png of photos with their boxes.
        columns: our column name -> the manifest's.
        listen: receives progress events.

    Raises:
        OrchestratorError: data that cannot be read, no detector, or a picture that cannot be written.
    """
    data, workspace, picture = Path(data), Path(workspace), path_or_none(picture)
    from orchestrator.artifacts.workspace import Workspace
    from orchestrator.data.readers import read

    require("finding faces", "face")
    outputs = [Output("--out", picture, (".png",))] if picture is not None else []
    check_outputs(outputs, workspace=workspace)
    Workspace.check(workspace)
    photos = read(data, columns, distinct=True)  # makes no difference here
    check_outputs(outputs, [data, *photos.paths])
    from orchestrator.data.preprocessing import DETECTOR
    from orchestrator.faces.boxes import find_boxes
    from orchestrator.pictures import draw_faces

    opened_workspace = Workspace(workspace, create=True)
    content = photos.content(opened_workspace.hashes())
    boxes = find_boxes(opened_workspace.faces, photos.paths, content, cores(), progress_callback(listen, "list faces"))
    if picture is not None:
        draw_faces(photos.paths, boxes, picture)
        log.info(f"picture: {picture}")
    return Faces(DETECTOR, photos, boxes)


@checks_arguments
def plan_folds(
    data: PathLike,
    *,
    folds: int = 5,
    seed: int = 0,
    workspace: PathLike | None = None,
    columns: Mapping[str, str] | None = None,
    distinct_people: bool = False,
) -> PlannedFolds:
    """The fold plan that training would use: `orch data folds`.

    Args:
        data: a folder with train.csv and images/, or a manifest.
        folds: number of folds, 2 or more.
        seed: seed of the plan.
        workspace: where the plan may be that these people follow; None: a plan is drawn.
        columns: our column name -> the manifest's.
        distinct_people: treat names that differ only in spelling as different people.

    Raises:
        OrchestratorError: data that cannot be read, or too few people for so many folds.
    """
    from orchestrator.data.readers import read

    if folds == 0:
        raise ConfigError("--folds 0 means no plan: every photo is trained on. Give 2 or more to see one.")
    check_range("--folds", folds, 2)
    check_range("--seed", seed, 0, MOST_SEED)
    photos = read(Path(data), columns, distinct_people)
    from orchestrator.data.describe import fold_table
    from orchestrator.data.folds import plan_folds as plan_of

    if workspace is None:
        plan = plan_of(photos.people, folds, seed)
        return PlannedFolds(plan, fold_table(photos, plan))
    from orchestrator.pipeline.fold_plans import choose_plan
    from orchestrator.pipeline.settings import Settings

    settings = Settings(Path(data), Path(workspace), folds=folds, plan_seed=seed, distinct_people=distinct_people)
    chosen = choose_plan(settings, photos.people)
    assert chosen is not None  # there are folds
    return PlannedFolds(chosen.plan, fold_table(photos, chosen.plan), chosen.about(photos.people))


@checks_arguments
def synthesise(
    folder: PathLike,
    *,
    people: int = 120,
    eval_people: int = 0,
    seed: int = 0,
    jobs: int = 0,
    listen: Listener = ignore_events,
) -> SyntheticPeople:
    """Draws synthetic people in the contest's own layout: `orch data synth`.

    Args:
        folder: a new or empty folder.
        people: number of people to train on, seven photos each.
        eval_people: number of other people, without labels.
        seed: the same seed draws the same people.
        jobs: processes that draw; 0: one per core.
        listen: receives progress events.

    Raises:
        OrchestratorError: the folder holds something, too few people, or a number out of range.
    """
    from orchestrator.synthetic.folder import check_request

    folder, mistakes = Path(folder), Mistakes()
    for option, value in (("--eval-people", eval_people), ("--seed", seed)):
        with mistakes.collect():
            check_range(option, value, 0)
    with mistakes.collect():
        check_range("--jobs", jobs, 0)
    with mistakes.collect():
        check_outputs([Output("", folder, folder=True)])
        check_request(folder, people)
    mistakes.raise_if_any()
    from orchestrator.synthetic.people import most_folds, write_people

    processes = jobs or (cores() if people > SMALL else 1)
    write_people(folder, people, eval_people, seed, processes, progress_callback(listen, "draw people"))
    return SyntheticPeople(folder / "train", most_folds(people))


@checks_arguments
def compare_submissions(
    first: PathLike, second: PathLike, *, eval_folder: PathLike | None = None, picture: PathLike | None = None
) -> Differences:
    """Compares two submissions for the same photos: `orch submissions diff`.

    Args:
        first: the path of a submission.
        second: the path of another.
        eval_folder: the folder with images/, to draw the photos that they answer differently; None: draw none.
        picture: the .png to draw; None: differences.png.

    Raises:
        OrchestratorError: files that are not submissions for the same photos, or a picture that cannot be drawn.
    """
    first, second, eval_folder, picture = Path(first), Path(second), path_or_none(eval_folder), path_or_none(picture)
    from orchestrator.experiments import submissions

    if picture is not None and eval_folder is None:
        raise ConfigError(
            f"--picture {picture}: the photos concerned are drawn from --eval DIR, the folder with images/."
        )
    picture = picture or Path("differences.png")
    if eval_folder is not None:
        check_outputs([Output("--picture", picture, (".png",))], [first, second, eval_folder])
        eval_folder = eval_folder if (eval_folder / "images").is_dir() else eval_folder / "eval"
        if not (eval_folder / "images").is_dir():
            raise DataError(f"--eval {eval_folder.parent}: holds no folder images/.")
    differences = submissions.compare_submissions(first, second)
    if eval_folder is not None and differences.photos:
        drawn = submissions.draw_differences(differences, eval_folder / "images", (first.stem, second.stem), picture)
        if drawn:
            log.info(f"{picture}: {drawn} of the photos concerned.")
    return differences
