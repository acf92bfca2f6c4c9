"""Synthetic people in the contest's own layout, so that everything works, and is shown, without anybody's photos.

Faces are drawn: gender shows in hair, brows, lips and jaw; age in grey hair, hairline and wrinkles; the mask state is
unmistakable. The task is made hard where the real one is: what is drawn is an apparent age, the true one plus 4 years of
noise, so the borders at 30 and 60 confuse; and some men wear long hair, some women short.

The same seed gives the same files, whatever the number of processes.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from orchestrator.data.contest import MASK_OF_STEM
from orchestrator.data.files import atomic
from orchestrator.errors import ConfigError, DataError
from orchestrator.labels import AGE_BORDERS, CLASSES, compose

__all__ = ["HEIGHT", "WIDTH", "Person", "draw_photo", "invent_person", "write_people"]

HEIGHT, WIDTH = 256, 192
APPARENT_AGE_NOISE = 4.0  # years, standard deviation
CROSSED_HAIR = 0.10  # share of people whose hair is the other gender's usual
BANDS = ((18, 29), (30, 59), (60, 75))
BAND_SHARES = (0.42, 0.40, 0.18)

Colour = tuple[int, int, int]
Canvas = NDArray[np.uint8]

SKINS: tuple[Colour, ...] = ((241, 205, 178), (226, 180, 148), (198, 146, 108), (158, 106, 74), (112, 74, 52))
HAIRS: tuple[Colour, ...] = ((38, 28, 24), (66, 44, 30), (104, 70, 42), (152, 110, 62), (28, 24, 28))
MASKS: tuple[Colour, ...] = ((232, 236, 240), (120, 176, 214), (44, 46, 52), (198, 206, 188), (214, 158, 170))


@dataclass(frozen=True)
class Person:
    """Somebody who does not exist.

    Attributes:
        gender: `male` or `female`.
        age: true age, years.
        apparent: the age that the face shows, years.
        seed: of everything else about them.
    """

    gender: str
    age: int
    apparent: float
    seed: int

    def rng(self, purpose: int) -> np.random.Generator:
        """A random stream for one purpose."""
        return np.random.default_rng([self.seed, purpose])


def invent_person(seed: int, number: int, gender: str, band: int) -> Person:
    """A person of a gender and age band, determined by seed and number."""
    rng = np.random.default_rng([seed, number])
    low, high = BANDS[band]
    age = int(rng.integers(low, high + 1))
    apparent = float(np.clip(age + rng.normal(0, APPARENT_AGE_NOISE), 16, 80))
    return Person(gender, age, apparent, int(rng.integers(2**31)))


def draw_photo(person: Person, stem: str) -> Canvas:
    """One photo of a person.

    Args:
        person: who.
        stem: `mask1` .. `mask5`, `incorrect_mask` or `normal`.

    Returns:
        Shape (256, 192, 3), uint8, RGB.
    """
    rng = person.rng(100 + list(MASK_OF_STEM).index(stem))
    canvas = _backdrop(rng)
    face = _Face(person)
    face.draw(canvas)
    state = MASK_OF_STEM[stem]
    if state != "not_wear":
        _mask(canvas, face, rng, worn=state == "wear")
    return _camera(canvas, rng)


class _Face:
    """A person's looks, the same in all photos."""

    def __init__(self, person: Person) -> None:
        rng = person.rng(1)
        female = person.gender == "female"
        years = person.apparent
        self.female = female
        self.long_hair = female != (rng.random() < CROSSED_HAIR)
        self.skin = _shade(SKINS[rng.integers(len(SKINS))], 1 + rng.normal(0, 0.03))
        grey = float(np.clip((years - 38 + rng.normal(0, 5)) / 32, 0, 1))
        self.hair = _mix(HAIRS[rng.integers(len(HAIRS))], (206, 206, 208), grey)
        self.brow = _mix(_shade(self.hair, 0.8), (190, 190, 190), grey * 0.5)
        self.wrinkles = float(np.clip((years - 26) / 40, 0, 1.2))
        self.recession = 0.0 if self.long_hair else float(np.clip((years - 34) / 70 + rng.normal(0, 0.08), 0, 0.5))
        self.x, self.y = 96, 124
        self.half_width = int((42 if female else 46) + rng.normal(0, 1.5))
        self.half_height = int(58 + rng.normal(0, 2))
        self.eye_gap = int(18 + rng.normal(0, 1))
        self.clothes = tuple(int(value) for value in rng.integers(30, 200, 3))
        self.lip = (176, 70, 78) if female and rng.random() < 0.8 else _shade(self.skin, 0.72)
        self.rng = person.rng(2)

    def draw(self, canvas: Canvas) -> None:
        self._hair_behind(canvas)
        self._shoulders(canvas)
        x, y, w, h = self.x, self.y, self.half_width, self.half_height
        for side in (-1, 1):
            _ellipse(canvas, (x + side * w, y + 4), (7, 12), _shade(self.skin, 0.9))
        _ellipse(canvas, (x, y), (w, h), self.skin)
        jaw = int(w * (0.72 if self.female else 0.88))
        _ellipse(canvas, (x, y + h // 2), (jaw, h // 2 + 3), self.skin)
        self._hair_before(canvas)
        self._features(canvas)
        self._age_lines(canvas)

    def _hair_behind(self, canvas: Canvas) -> None:
        if self.long_hair:
            x, y, w, h = self.x, self.y, self.half_width, self.half_height
            _ellipse(canvas, (x, y - 10), (w + 15, h + 4), self.hair)
            cv2.rectangle(canvas, (x - w - 14, y - 10), (x + w + 14, y + h + 24), self.hair, -1, cv2.LINE_AA)

    def _shoulders(self, canvas: Canvas) -> None:
        x, bottom = self.x, HEIGHT
        neck = _shade(self.skin, 0.86)
        cv2.rectangle(canvas, (x - 18, self.y + 40), (x + 18, bottom - 20), neck, -1)
        wide = 76 if self.female else 88
        _ellipse(canvas, (x, bottom + 14), (wide, 50), self.clothes)

    def _hair_before(self, canvas: Canvas) -> None:
        x, y, w, h = self.x, self.y, self.half_width, self.half_height
        line = int(y - h * (0.60 + 0.5 * self.recession))
        cap = np.zeros(canvas.shape[:2], np.uint8)
        cv2.ellipse(cap, (x, y - 8), (w + 5, h - 2), 0, 180, 360, 255, -1, cv2.LINE_AA)
        skin = np.zeros_like(cap)
        cv2.ellipse(skin, (x, y), (int(w * 0.93), y - line), 0, 180, 360, 255, -1, cv2.LINE_AA)
        _paint(canvas, np.where(skin > 0, 0, cap).astype(np.uint8), self.hair)
        for _ in range(26):  # strands, so that hair is no flat patch
            a = float(self.rng.uniform(np.pi, 2 * np.pi))
            start = (int(x + np.cos(a) * (w + 2)), int(y - 10 + np.sin(a) * (h - 5)))
            end = (int(x + np.cos(a) * w * 0.95), int(y - 8 + np.sin(a) * (y - line + 3)))
            cv2.line(canvas, start, end, _shade(self.hair, float(self.rng.uniform(0.7, 1.3))), 1, cv2.LINE_AA)

    def _features(self, canvas: Canvas) -> None:
        x, y = self.x, self.y
        dark = _shade(self.skin, 0.62)
        thick = 2 if self.female else 4
        for side in (-1, 1):
            eye = (x + side * self.eye_gap, y - 8)
            _ellipse(canvas, eye, (9, 5), (246, 244, 240))
            _ellipse(canvas, eye, (4, 4), (62, 44, 34))
            cv2.ellipse(canvas, eye, (9, 5), 0, 180, 360, (40, 30, 28), 2 if self.female else 1, cv2.LINE_AA)
            brow = (eye[0], eye[1] - 10)
            cv2.ellipse(canvas, brow, (11, 4), 0, 195, 345, self.brow, thick, cv2.LINE_AA)
        cv2.line(canvas, (x - 2, y - 4), (x - 5, y + 13), _shade(self.skin, 0.85), 1, cv2.LINE_AA)
        cv2.ellipse(canvas, (x, y + 13), (8, 5), 0, 20, 160, dark, 2, cv2.LINE_AA)
        _ellipse(canvas, (x, y + 33), (15, 4 if self.female else 3), self.lip)
        cv2.line(canvas, (x - 14, y + 33), (x + 14, y + 33), _shade(self.lip, 0.65), 1, cv2.LINE_AA)

    def _age_lines(self, canvas: Canvas) -> None:
        x, y = self.x, self.y
        line = _mix(self.skin, _shade(self.skin, 0.5), min(1.0, 0.25 + 0.6 * self.wrinkles))
        for number in range(round(4 * self.wrinkles)):
            wide, at = 24 - 2 * number, y - 30 - 6 * number
            cv2.ellipse(canvas, (x, at + 4), (wide, 4), 0, 200, 340, line, 1, cv2.LINE_AA)
        for side in (-1, 1):
            corner = (x + side * (self.eye_gap + 10), y - 8)
            for number in range(round(3 * self.wrinkles)):
                end = (corner[0] + side * 8, corner[1] - 5 + 5 * number)
                cv2.line(canvas, corner, end, line, 1, cv2.LINE_AA)
            if self.wrinkles > 0.3:
                bag = (x + side * self.eye_gap, y - 4)
                cv2.ellipse(canvas, bag, (9, 5), 0, 20, 160, line, 1, cv2.LINE_AA)
            if self.wrinkles > 0.45:
                cv2.line(canvas, (x + side * 11, y + 13), (x + side * 19, y + 32), line, 1, cv2.LINE_AA)


def _backdrop(rng: np.random.Generator) -> Canvas:
    """Two colours, one running into the other."""
    top, bottom = rng.integers(90, 215, (2, 1)) + rng.integers(-28, 29, (2, 3))
    share = np.linspace(0, 1, HEIGHT)[:, None, None]
    rows = top * (1 - share) + bottom * share
    return np.array(np.broadcast_to(rows, (HEIGHT, WIDTH, 3)), dtype=np.uint8, order="C")


def _mask(canvas: Canvas, face: _Face, rng: np.random.Generator, worn: bool) -> None:
    """A mask over nose and mouth; worn incorrectly it leaves the nose out or hangs at the chin."""
    colour = MASKS[rng.integers(len(MASKS))]
    x, y, w = face.x, face.y, face.half_width
    if worn:
        top, bottom = y + int(rng.integers(0, 4)), y + 50
    elif rng.random() < 0.6:
        top, bottom = y + 21, y + 54  # under the nose
    else:
        top, bottom = y + 40, y + 64  # at the chin
    wide = int(w * 0.92)
    points = np.array(
        [
            (x - wide, top + 6),
            (x, top),
            (x + wide, top + 6),
            (x + int(wide * 0.8), bottom - 8),
            (x, bottom),
            (x - int(wide * 0.8), bottom - 8),
        ]
    )
    for side in (-1, 1):
        ear = (x + side * (w + 2), y + 2)
        cv2.line(canvas, (x + side * wide, top + 8), ear, _shade(colour, 0.8), 1, cv2.LINE_AA)
        cv2.line(canvas, (x + side * int(wide * 0.8), bottom - 10), ear, _shade(colour, 0.8), 1, cv2.LINE_AA)
    cv2.fillPoly(canvas, [points], colour, cv2.LINE_AA)
    for fold in range(1, 4):
        at = top + 6 + (bottom - top - 10) * fold // 4
        cv2.line(canvas, (x - wide + 6, at), (x + wide - 6, at), _shade(colour, 0.86), 1, cv2.LINE_AA)


def _camera(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    """Pose, light and noise of one shot."""
    turn = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), rng.normal(0, 3), rng.uniform(1.05, 1.3))
    turn = turn + np.array([[0, 0, rng.normal(0, 4)], [0, 0, rng.normal(0, 4)]])
    shot = cv2.warpAffine(canvas, turn, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    light = rng.uniform(0.8, 1.15) * (1 + rng.normal(0, 0.03, 3))
    noise = rng.integers(-9, 10, shot.shape[:2], dtype=np.int16)[:, :, None]
    lit = shot.astype(np.float32) * light.astype(np.float32) + noise
    return np.asarray(np.clip(lit, 0, 255), dtype=np.uint8)


def _ellipse(canvas: Canvas, centre: tuple[int, int], axes: tuple[int, int], colour: Any) -> None:
    cv2.ellipse(canvas, centre, axes, 0, 0, 360, colour, -1, cv2.LINE_AA)


def _paint(canvas: Canvas, mask: Canvas, colour: Colour) -> None:
    share = mask[:, :, None].astype(np.float32) / 255
    canvas[:] = (canvas * (1 - share) + np.array(colour, np.float32) * share).astype(np.uint8)


def _shade(colour: Any, factor: float) -> Colour:
    red, green, blue = (int(np.clip(value * factor, 0, 255)) for value in colour)
    return red, green, blue


def _mix(one: Any, other: Any, share: float) -> Colour:
    red, green, blue = (int(a * (1 - share) + b * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def write_people(
    root: Path,
    people: int,
    eval_people: int = 0,
    seed: int = 0,
    processes: int = 1,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> None:
    """Writes `train/` (train.csv, images/) and, when asked for, `eval/` (info.csv, images/, and truth.csv beside them).

    Args:
        root: a new or empty folder.
        people: people to train on, at least 6 so that each gender and age band has one.
        eval_people: other people, without labels; the contest has none of `truth.csv`, which is there to check yourself.
        seed: the same seed gives the same files.
        processes: that draw.
        progress: called with (people drawn, people in all).

    Raises:
        ConfigError: too few people.
        DataError: the folder is not empty.
    """
    if people < 6:
        raise ConfigError(f"--people {people}: at least 6, one for each gender and age band.")
    if root.exists() and any(root.iterdir()):
        raise DataError(
            f"{root}: is not empty; synthetic people are never mixed into other files. Choose a new folder."
        )
    everybody = _census(people, seed) + [_shift(one, people) for one in _census(eval_people, seed + 1)]
    jobs = [(root, seed, number, gender, band, number >= people) for number, gender, band in everybody]
    (root / "train" / "images").mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    if processes > 1:
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            for done, row in enumerate(pool.map(_write_person, jobs, chunksize=8), start=1):
                rows.append(row)
                progress(done, len(jobs))
    else:
        for done, job in enumerate(jobs, start=1):
            rows.append(_write_person(job))
            progress(done, len(jobs))
    _write_tables(root, rows[:people], rows[people:], seed)


def _census(people: int, seed: int) -> list[tuple[int, str, int]]:
    """Number, gender and band of each person: the shares kept exactly, the order shuffled."""
    rng = np.random.default_rng([seed, 7])
    kinds = [(gender, band) for gender in CLASSES["gender"] for band in range(len(BANDS))]
    shares = np.array([BAND_SHARES[band] / 2 for _, band in kinds])
    wanted = shares * max(0, people - len(kinds))
    counts = np.floor(wanted).astype(int) + (1 if people >= len(kinds) else 0)
    for place in np.argsort(-(wanted - np.floor(wanted)))[: people - counts.sum()]:
        counts[place] += 1
    drawn = [kind for kind, count in zip(kinds, counts, strict=True) for _ in range(count)]
    return [(number, *drawn[place]) for number, place in enumerate(rng.permutation(len(drawn)))]


def _shift(one: tuple[int, str, int], by: int) -> tuple[int, str, int]:
    number, gender, band = one
    return number + by, gender, band


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
        band = int(np.digitize(row["age"], AGE_BORDERS))
        for name, stem in row["photos"]:
            mask = CLASSES["mask"].index(MASK_OF_STEM[stem])
            rows.append((name, int(compose(mask, CLASSES["gender"].index(row["gender"]), band))))
    order = np.random.default_rng([seed, 11]).permutation(len(rows))
    _write_csv(root / "eval" / "truth.csv", ["ImageID", "ans"], [list(rows[place]) for place in order])
    _write_csv(root / "eval" / "info.csv", ["ImageID", "ans"], [[rows[place][0], 0] for place in order])


def _write_csv(path: Path, columns: list[str], rows: list[list[Any]]) -> None:
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])
