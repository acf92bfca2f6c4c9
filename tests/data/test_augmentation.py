import numpy as np
import pytest

from orchestrator.data.augmentation import Augment, Augmenter
from orchestrator.data.loading import Batches, load
from orchestrator.data.store import PixelSource

FULL = {
    "flip": 0.5, "shift": 0.1, "scale": 0.1, "rotate": 10, "resized_crop": 0.2, "brightness": 0.2, "contrast": 0.2,
    "colour": 0.05, "sharpen": 0.5, "grey": 0.5, "blur": 0.5, "noise": 0.5, "cutout": 0.5,
}  # fmt: skip


class Noise(PixelSource):
    def take(self, rows: np.ndarray) -> np.ndarray:
        return np.stack([np.random.default_rng(row).integers(0, 256, (24, 18, 3), dtype=np.uint8) for row in rows])


def test_every_setting_changes_pixels_and_keeps_shape_and_type() -> None:
    assert set(FULL) == set(Augment.model_fields)
    pixels = Noise().take(np.arange(8))
    for key, value in FULL.items():
        strength = 1.0 if 0 < value <= 0.5 and key in ("flip", "sharpen", "grey", "blur", "noise", "cutout") else value
        found = Augmenter(Augment(**{key: strength}), 24, 18)(pixels, 1)
        assert found.shape == pixels.shape
        assert found.dtype == np.uint8
        assert not np.array_equal(found, pixels), key
    assert np.array_equal(Augmenter(Augment(), 24, 18)(pixels, 1), pixels)


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
    found = Augmenter(Augment(flip=0.5, grey=0.5), 8, 8)(pixels, 3)
    flipped = found[:, 0, 0].sum(axis=1) == 0
    grey = found.max(axis=(1, 2)).std(axis=1) < 1
    both = np.array(
        [[np.sum(flipped & grey), np.sum(flipped & ~grey)], [np.sum(~flipped & grey), np.sum(~flipped & ~grey)]]
    )
    assert (abs(both - 100) < 45).all()  # 5 standard deviations of a binomial with p = 1/4
