"""Synthetic people in the contest's own layout, so that everything can run and be shown without real photos.

The same seed gives the same files, whatever the number of processes. `portraits.py` invents and draws the people.
"""

from __future__ import annotations

import csv
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import joblib
import numpy as np

from orchestrator.core.errors import DataError
from orchestrator.core.files import atomic
from orchestrator.core.labels import CLASSES, age_bands, compose
from orchestrator.data.contest import MASK_OF_STEM
from orchestrator.data.sharing import signals_blocked, start_trackers, why_no_parallelism
from orchestrator.synthetic.folder import UNFINISHED, check_request
from orchestrator.synthetic.portraits import BANDS, draw_photo, invent_person

__all__ = ["most_folds", "write_people"]

BAND_SHARES = (0.42, 0.40, 0.18)  # shares of the three age bands: few old people, but some


def write_people(
    root: Path,
    people: int,
    eval_people: int = 0,
    seed: int = 0,
    processes: int = 1,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> None:
    """Writes `train/` (train.csv, images/) and, if `eval_people` is not 0, `eval/` (info.csv, images/ and truth.csv).

    Args:
        root: a new or empty folder, or the unfinished folder of a call that was stopped, which is started again.
        people: number of people to train on, at least 6 so that each gender and age band has one.
        eval_people: number of other people, without labels; their truth.csv, which the contest lacks, is for checking.
        seed: random seed; the same seed gives the same files.
        processes: number of processes that draw; 1 where processes cannot work together.
        progress: callback that takes (people drawn, people in all).

    Raises:
        ConfigError: too few people.
        DataError: the folder is not empty.
    """
    check_request(root, people)
    for name in ("train", "eval"):  # of a command that was stopped
        shutil.rmtree(root / name, ignore_errors=True)
    root.mkdir(parents=True, exist_ok=True)
    (root / UNFINISHED).touch()
    everybody = _census(people, seed) + _census(eval_people, seed + 1, people)
    jobs = [(root, seed, number, gender, band, number >= people) for number, gender, band in everybody]
    (root / "train" / "images").mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    if processes > 1 and why_no_parallelism():
        processes = 1
    if processes > 1:
        start_trackers()
    parallel = joblib.Parallel(n_jobs=processes, return_as="generator", batch_size=8)
    with signals_blocked(signal.SIGINT):  # Ctrl-C reaches the command, which ends its workers
        drawn = parallel(joblib.delayed(_write_person)(job) for job in jobs)
    for done, row in enumerate(drawn, start=1):
        rows.append(row)
        progress(done, len(jobs))
    _write_tables(root, rows[:people], rows[people:], seed)
    (root / UNFINISHED).unlink()


def most_folds(people: int) -> int:
    """The largest number of folds for this many people: each fold needs one of each gender and age band."""
    return min(Counter((gender, band) for _, gender, band in _census(people, 0)).values())


def _census(people: int, seed: int, first: int = 0) -> list[tuple[int, str, int]]:
    """Number (from `first`), gender and band of each person: the shares kept exactly, the order shuffled."""
    rng = np.random.default_rng([seed, 7])
    kinds = [(gender, band) for gender in CLASSES["gender"] for band in range(len(BANDS))]
    shares = np.array([BAND_SHARES[band] / 2 for _, band in kinds])
    exact_counts = shares * max(0, people - len(kinds))
    counts = np.floor(exact_counts).astype(int) + (1 if people >= len(kinds) else 0)
    for index in np.argsort(-(exact_counts - np.floor(exact_counts)))[: people - counts.sum()]:
        counts[index] += 1
    drawn = [kind for kind, count in zip(kinds, counts, strict=True) for _ in range(count)]
    return [(number, *drawn[index]) for number, index in enumerate(rng.permutation(len(drawn)), first)]


def _write_person(job: tuple[Path, int, int, str, int, bool]) -> dict[str, Any]:
    """Draws and writes the seven photos of one person; returns their row."""
    root, seed, number, gender, band, for_eval = job
    person = invent_person(seed, number, gender, band)
    key = f"{number + 1:06d}"
    folder = f"{key}_{gender}_Drawn_{person.age}"
    row: dict[str, Any] = {
        "id": key,
        "gender": gender,
        "race": "Drawn",
        "age": person.age,
        "path": folder,
        "photos": [],
    }
    names = np.random.default_rng([seed, number, 3])
    for stem in MASK_OF_STEM:
        suffix = ".png" if number % 40 == 7 else ".jpeg" if number % 40 == 3 else ".jpg"
        name = names.bytes(20).hex() + ".jpg" if for_eval else stem + suffix
        path = root / "eval" / "images" / name if for_eval else root / "train" / "images" / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        bgr = cv2.cvtColor(draw_photo(person, stem), cv2.COLOR_RGB2BGR)
        done, data = cv2.imencode(path.suffix, bgr, [cv2.IMWRITE_JPEG_QUALITY, 88] if path.suffix != ".png" else [])
        if not done:
            raise DataError(f"{path}: could not be encoded.")
        path.write_bytes(data.tobytes())
        row["photos"].append((name, stem))
    return row


def _write_tables(root: Path, train: list[dict[str, Any]], evaluation: list[dict[str, Any]], seed: int) -> None:
    """train.csv, and info.csv with truth.csv in a shuffled order; written last, so a killed command is seen."""
    columns = ["id", "gender", "race", "age", "path"]
    _write_csv(root / "train" / "train.csv", columns, [[row[column] for column in columns] for row in train])
    if not evaluation:
        return
    rows = []
    for row in evaluation:
        band = int(age_bands(row["age"]))
        for name, stem in row["photos"]:
            mask = CLASSES["mask"].index(MASK_OF_STEM[stem])
            rows.append((name, int(compose(mask, CLASSES["gender"].index(row["gender"]), band))))
    order = np.random.default_rng([seed, 11]).permutation(len(rows))
    _write_csv(root / "eval" / "truth.csv", ["ImageID", "ans"], [list(rows[index]) for index in order])
    _write_csv(root / "eval" / "info.csv", ["ImageID", "ans"], [[rows[index][0], 0] for index in order])


def _write_csv(path: Path, columns: list[str], rows: list[list[Any]]) -> None:
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])
