"""Drawn faces: people who do not exist.

Gender shows in hair, brows, lips and jaw; age in grey hair, hairline and wrinkles; the mask state is unmistakable. The task
is hard where the real one is: the age drawn is the true age plus noise (standard deviation 4 years), which blurs the
borders at 30 and 60; and some men have long hair, some women short hair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from orchestrator.data.contest import MASK_OF_STEM

__all__ = ["BANDS", "CROSSED_HAIR", "HEIGHT", "WIDTH", "Face", "Person", "draw_photo", "invent_person"]

HEIGHT, WIDTH = 256, 192
APPARENT_AGE_NOISE = 4.0  # years, standard deviation
CROSSED_HAIR = 0.10  # share of people whose hair is the other gender's usual
BANDS = ((18, 29), (30, 59), (60, 75))

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
        seed: seed of all other properties.
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
        person: person to draw.
        stem: `mask1` .. `mask5`, `incorrect_mask` or `normal`.

    Returns:
        Shape (256, 192, 3), uint8, RGB.
    """
    rng = person.rng(100 + list(MASK_OF_STEM).index(stem))
    canvas = _backdrop(rng)
    face = Face(person)
    face.draw(canvas)
    state = MASK_OF_STEM[stem]
    if state != "not_wear":
        _mask(canvas, face, rng, worn=state == "wear")
    return _camera(canvas, rng)


class Face:
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
        """Draws the person on a canvas, from the hair behind to the wrinkles."""
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
        for _ in range(26):  # strands, so that hair is not a flat patch
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
    """A gradient between two colours."""
    top, bottom = rng.integers(90, 215, (2, 1)) + rng.integers(-28, 29, (2, 3))
    share = np.linspace(0, 1, HEIGHT)[:, None, None]
    rows = top * (1 - share) + bottom * share
    return np.array(np.broadcast_to(rows, (HEIGHT, WIDTH, 3)), dtype=np.uint8, order="C")


def _mask(canvas: Canvas, face: Face, rng: np.random.Generator, worn: bool) -> None:
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


def _mix(first: Any, second: Any, share: float) -> Colour:
    """Two colours mixed; `share` is that of the second."""
    red, green, blue = (int(a * (1 - share) + b * share) for a, b in zip(first, second, strict=True))
    return red, green, blue
