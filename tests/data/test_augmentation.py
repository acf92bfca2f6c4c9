import cv2
import numpy as np
import pytest

from orchestrator.data.augmentation import Augment, Augmenter
from orchestrator.data.loading import Batches, load
from orchestrator.data.store import PixelSource

FULL = {
    "flip": 0.5, "shift": 0.1, "scale": 0.1, "rotate": 10, "resized_crop": 0.2, "brightness": 0.2, "contrast": 0.2,
    "colour": 0.05, "sharpen": 0.5, "grey": 0.5, "blur": 0.5, "noise": 0.5, "cutout": 0.5, "jpeg": 0.5, "elastic": 0.5,
    "closing": 0.5, "canny": 0.2, "sobel": 0.2, "randaugment": 2,
}  # fmt: skip


class Noise(PixelSource):
    def take(self, rows: np.ndarray) -> np.ndarray:
        return np.stack([np.random.default_rng(row).integers(0, 256, (24, 18, 3), dtype=np.uint8) for row in rows])


PARAMETERS = {  # of changes, which do nothing alone: another value must change what the change does
    "blur_size": ("blur", 3, 9), "noise_std": ("noise", 0.02, 0.3), "jpeg_quality": ("jpeg", 10, 90),
    "cutout_size": ("cutout", 0.2, 0.8), "elastic_shift": ("elastic", 0.01, 0.2), "closing_size": ("closing", 2, 7),
    "randaugment_strength": ("randaugment", 0.1, 1.0),
}  # fmt: skip


def test_every_setting_changes_pixels_and_keeps_shape_and_type() -> None:
    assert {*FULL, *PARAMETERS} == set(Augment.model_fields)
    pixels = Noise().take(np.arange(8))
    for key, value in FULL.items():
        chance = key in Augment.model_fields and "probability" in str(Augment.model_fields[key].description)
        changed = Augmenter(Augment(**{key: 1.0 if chance else value}), 24, 18)(pixels, 1)
        assert changed.shape == pixels.shape
        assert changed.dtype == np.uint8
        assert not np.array_equal(changed, pixels), key
    assert np.array_equal(Augmenter(Augment(), 24, 18)(pixels, 1), pixels)


def test_brightness_moves_all_pixels_by_up_to_its_share_and_contrast_spreads_them() -> None:
    grey = np.full((60, 24, 18, 3), 127, np.uint8)
    moved = Augmenter(Augment(brightness=0.2), 24, 18)(grey, 1).astype(float).mean(axis=(1, 2, 3)) - 127
    assert 0.15 * 255 < np.abs(moved).max() <= 0.2 * 255 + 1
    assert moved.min() < 0 < moved.max()
    grey[:, :12], grey[:, 12:] = 77, 177
    spread = Augmenter(Augment(contrast=0.2), 24, 18)(grey, 1).astype(float)
    ratios = (spread[:, 12:].mean(axis=(1, 2, 3)) - spread[:, :12].mean(axis=(1, 2, 3))) / 100
    assert ratios.min() < 0.85
    assert 1.15 < ratios.max() < 1.22
    assert np.abs(spread[:, 12:] - grey[:, 12:]).max() < 0.4 * 177


@pytest.mark.parametrize("degrees", [10, 30])
def test_a_rotation_turns_by_up_to_its_degrees(degrees: int) -> None:
    """By the direction of a bright half's border: its centre of mass stands off the middle, across the border."""
    half = np.zeros((60, 96, 96, 3), np.uint8)
    half[:, :, 48:] = 255
    turned = Augmenter(Augment(rotate=degrees), 96, 96)(half, 1)[..., 0].astype(float)
    rows, columns = np.mgrid[:96, :96] - 47.5
    disc = np.hypot(rows, columns) < 40  # beyond it the border is reflected
    across = np.degrees(np.arctan2((turned * disc * rows).sum(axis=(1, 2)), (turned * disc * columns).sum(axis=(1, 2))))
    assert 0.8 * degrees < np.abs(across).max() < degrees + 1


@pytest.mark.parametrize("parameter", PARAMETERS)
def test_a_larger_parameter_changes_more(parameter: str) -> None:
    change, low, high = PARAMETERS[parameter]
    chance = 3 if change == "randaugment" else 1.0
    pixels = np.stack([cv2.GaussianBlur(photo, (5, 5), 2) for photo in Noise().take(np.arange(32))])

    def moved(value: float) -> float:
        changed = Augmenter(Augment(**{change: chance, parameter: value}), 24, 18)(pixels, 1)
        return float(np.abs(changed.astype(int) - pixels).mean())

    weak, strong = moved(low), moved(high)
    assert (weak > 1.3 * strong) if parameter == "jpeg_quality" else (strong > 1.3 * weak)


def test_an_elastic_distortion_moves_pixels_about_as_far_as_it_says() -> None:
    ramp = np.repeat(np.tile(np.arange(0, 192, 2, dtype=np.uint8), (96, 1))[:, :, None], 3, axis=2)
    changed = Augmenter(Augment(elastic=1.0, elastic_shift=0.03), 96, 96)(np.stack([ramp] * 20), 0)
    moved = (changed[:, 10:-10, 10:-10, 0].astype(float) - ramp[10:-10, 10:-10, 0]) / 2
    assert 0.5 * 0.03 * 96 < moved.std() < 2 * 0.03 * 96


def test_edges_and_closing_are_opencvs() -> None:
    pixels = Noise().take(np.arange(2))
    grey = cv2.cvtColor(pixels[0], cv2.COLOR_RGB2GRAY)
    canny = Augmenter(Augment(canny=1.0), 24, 18)(pixels, 0)
    assert set(np.unique(canny)) <= {0, 255}
    assert np.array_equal(canny[0, :, :, 1], cv2.Canny(grey, 100, 200))
    sobel = Augmenter(Augment(sobel=1.0), 24, 18)(pixels, 0)[0, 5, 5, 0]
    rows = grey.astype(float)
    across = (rows[4:7, 6] - rows[4:7, 4]) @ [1, 2, 1]
    down = (rows[6, 4:7] - rows[4, 4:7]) @ [1, 2, 1]
    assert abs(float(sobel) - min(255.0, np.hypot(across, down))) <= 1
    holed = np.full((1, 24, 18, 3), 200, np.uint8)
    holed[0, 10, 10] = 0
    assert (Augmenter(Augment(closing=1.0), 24, 18)(holed, 0) == 200).all()


def test_a_flip_mirrors_left_and_right_and_nothing_else() -> None:
    pixels = Noise().take(np.arange(4))
    assert np.array_equal(Augmenter(Augment(flip=1.0), 24, 18)(pixels, 0), pixels[:, :, ::-1])


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_depend_on_the_seed_alone_not_on_the_workers(workers: int) -> None:
    rows = np.random.default_rng(0).permutation(50)

    def run(seed: int, count: int) -> list[np.ndarray]:
        batches = Batches(Noise(), rows, 16, Augmenter(Augment(**FULL), 24, 18), seed)
        return [pixels.numpy() for pixels, _ in load(batches, count)]

    here, there, other = run(1, 0), run(1, workers), run(2, 0)
    assert [len(part) for part in here] == [16, 16, 16, 2]
    assert all(np.array_equal(a, b) for a, b in zip(here, there, strict=True))
    assert not np.array_equal(here[0], other[0])
    assert [row for _, part in load(Batches(Noise(), rows, 16), 0) for row in part.tolist()] == rows.tolist()


def test_changes_are_drawn_independently() -> None:
    pixels = np.zeros((400, 8, 8, 3), np.uint8)
    pixels[:, :, :4] = (200, 100, 50)
    changed = Augmenter(Augment(flip=0.5, grey=0.5), 8, 8)(pixels, 3)
    flipped = changed[:, 0, 0].sum(axis=1) == 0
    grey = changed.max(axis=(1, 2)).std(axis=1) < 1
    both = np.array(
        [[np.sum(flipped & grey), np.sum(flipped & ~grey)], [np.sum(~flipped & grey), np.sum(~flipped & ~grey)]]
    )
    assert (abs(both - 100) < 45).all()  # 5 standard deviations of a binomial with p = 1/4


def test_changes_drawn_by_randaugment_are_as_many_as_asked_and_drawn_anew() -> None:
    photo = Noise().take(np.arange(1))
    changed = Augmenter(Augment(randaugment=1), 24, 18)(np.repeat(photo, 60, axis=0), 7)
    assert len({photo.tobytes() for photo in changed}) > 25
    again = Augmenter(Augment(randaugment=1), 24, 18)(np.repeat(photo, 60, axis=0), 7)
    assert np.array_equal(changed, again)
