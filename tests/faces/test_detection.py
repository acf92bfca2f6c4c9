"""Faces are found where they are, by the package's own weights, and looked for once."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import cv2
import joblib
import lz4.frame
import matplotlib.cbook
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from orchestrator.core.errors import ConfigError, DataError
from orchestrator.data.preprocessing import Geometry, decode
from orchestrator.faces import boxes as boxes_module
from orchestrator.faces import detection
from orchestrator.faces.boxes import find_boxes
from orchestrator.faces.detection import Detector, detector

FACE = (114, 176, 226, 178)  # top, left, height, width in matplotlib's portrait: hairline to chin, seen by eye


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    """Grace Hopper, 600 x 512, which matplotlib ships."""
    return decode(Path(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)))


def overlap(box: tuple[int, ...], other: tuple[int, ...]) -> float:
    """Intersection over union."""
    (top, left, height, width), (t, le, h, w) = box, other
    rows = max(0, min(top + height, t + h) - max(top, t))
    columns = max(0, min(left + width, le + w) - max(left, le))
    return rows * columns / (height * width + h * w - rows * columns)


@pytest.mark.parametrize("scale", [0.2, 0.37, 1.0, 2.5])
def test_a_face_is_found_at_every_size(portrait: np.ndarray, scale: float) -> None:
    photo = cv2.resize(portrait, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    box = detector().find(photo)
    assert box is not None
    assert overlap(tuple(round(value / scale) for value in box), FACE) > 0.9


def test_a_face_moves_with_the_photo_and_is_found_mirrored(portrait: np.ndarray) -> None:
    wide = cv2.copyMakeBorder(portrait, 90, 10, 150, 40, cv2.BORDER_CONSTANT, value=(90, 120, 60))
    box = detector().find(wide)
    assert box is not None
    assert overlap((box[0] - 90, box[1] - 150, *box[2:]), FACE) > 0.85
    mirrored = detector().find(np.ascontiguousarray(portrait[:, ::-1]))
    assert mirrored is not None
    assert overlap((mirrored[0], 512 - mirrored[1] - mirrored[3], *mirrored[2:]), FACE) > 0.85


def test_a_face_at_the_edge_reaches_beyond_it_and_its_crop_does_not(portrait: np.ndarray) -> None:
    cut = np.ascontiguousarray(portrait[150:])
    box = detector().find(cut)
    assert box is not None
    assert overlap((box[0] + 150, *box[1:]), FACE) > 0.6
    assert Geometry(64, 48, face=0.3).apply(cut, box).shape == (64, 48, 3)


def test_the_larger_of_two_faces_is_taken(portrait: np.ndarray) -> None:
    small = cv2.resize(portrait, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    both = np.zeros((600, 512 + small.shape[1], 3), np.uint8)
    both[: small.shape[0], : small.shape[1]], both[:, small.shape[1] :] = small, portrait
    box = detector().find(both)
    assert box is not None
    assert overlap((box[0], box[1] - small.shape[1], *box[2:]), FACE) > 0.85


@pytest.mark.parametrize("shape", [(256, 192), (16, 16), (1, 1), (2000, 20), (40, 900)])
def test_where_there_is_no_face_none_is_found(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert detector().find(noise) is None
    assert detector().find(np.full((*shape, 3), 127, np.uint8)) is None


def test_the_same_photo_gives_the_same_box_in_many_threads(portrait: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "portrait.png"
    cv2.imwrite(str(path), portrait[:, :, ::-1])
    boxes = find_boxes(tmp_path / "faces", [path] * 6, [f"photo {number}" for number in range(6)], threads=3)
    assert len(set(boxes)) == 1
    assert boxes[0] is not None


def test_the_first_network_computes_what_its_weights_say() -> None:
    """Against plain sums over windows, in numpy: layers, their order, their layout, and pooling that keeps the last column."""
    weights = Path(find_spec("mtcnn").submodule_search_locations[0]) / "assets/weights/pnet.lz4"
    arrays = joblib.load(BytesIO(lz4.frame.decompress(weights.read_bytes())))
    photo = np.random.default_rng(1).normal(size=(19, 22, 3)).astype(np.float32)

    def convolve(maps: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
        windows = sliding_window_view(maps, kernel.shape[:2], axis=(0, 1))  # rows, columns, channels, y, x
        return np.einsum("rcdyx,yxdo->rco", windows, kernel) + bias

    def prelu(maps: np.ndarray, slope: np.ndarray) -> np.ndarray:
        return np.where(maps > 0, maps, maps * slope.reshape(-1))

    maps = prelu(convolve(photo, *arrays[:2]), arrays[2])  # 17 x 20
    padded = np.pad(maps, ((0, 1), (0, 0), (0, 0)), constant_values=-np.inf)
    maps = padded.reshape(9, 2, 10, 2, -1).max(axis=(1, 3))
    maps = prelu(convolve(maps, *arrays[3:5]), arrays[5])
    maps = prelu(convolve(maps, *arrays[6:8]), arrays[8])
    offsets, scores = convolve(maps, *arrays[9:11]), convolve(maps, *arrays[11:13])
    sure = 1 / (1 + np.exp(scores[:, :, 0] - scores[:, :, 1]))
    with torch.inference_mode():
        ours = detector().nets[0](torch.from_numpy(photo).permute(2, 0, 1)[None])
    np.testing.assert_allclose(ours[0][0].permute(1, 2, 0).numpy(), offsets, atol=1e-5)
    np.testing.assert_allclose(ours[1][0].numpy(), sure, atol=1e-5)


def test_other_weights_are_refused_before_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are pickles: a changed file must not run."""
    own = Path(find_spec("mtcnn").submodule_search_locations[0]) / "assets/weights"
    shutil.copytree(own, tmp_path / "weights")
    with (tmp_path / "weights/pnet.lz4").open("ab") as file:
        file.write(b"x")
    monkeypatch.setattr(detection.joblib, "load", lambda path: pytest.fail("a pickle was read"))
    with pytest.raises(
        ConfigError, match=r"pnet\.lz4: not the weights of mtcnn-1\.0\.0.* --no-deps mtcnn==1\.0\.0`\.$"
    ):
        Detector(tmp_path / "weights")


def test_a_photo_is_looked_at_once(people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = sorted((people / "train/images").rglob("*.jpg"))[:8]
    content = [path.name + path.parent.name for path in paths]
    looked: list[Path] = []
    monkeypatch.setattr(boxes_module, "decode", lambda path: (looked.append(path), decode(path))[1])
    progress: list[tuple[int, int]] = []
    first = find_boxes(
        tmp_path / "faces", paths[:5], content[:5], 2, lambda done, photos: progress.append((done, photos))
    )
    assert sorted(looked) == sorted(paths[:5])
    assert progress[-1] == (5, 5)
    looked.clear()
    later = find_boxes(tmp_path / "faces", paths[::-1], content[::-1], 2)
    assert sorted(looked) == sorted(paths[5:])
    assert later[::-1][:5] == first
    assert any(box is not None for box in later)
    assert later == [detector().find(decode(path)) for path in paths[::-1]]
    (tmp_path / "faces/mtcnn-1.0.0-r1.json").write_bytes(b"damaged")
    assert find_boxes(tmp_path / "faces", paths, content, 2) == later[::-1]


def test_photos_that_cannot_be_decoded_are_all_named_and_none_is_kept(people: Path, tmp_path: Path) -> None:
    good = sorted((people / "train/images").rglob("*.jpg"))[0]
    bad = [tmp_path / "empty.jpg", tmp_path / "words.jpg"]
    bad[0].touch()
    bad[1].write_text("no photo")
    with pytest.raises(DataError) as caught:
        find_boxes(tmp_path / "faces", [bad[0], good, bad[1]], ["a", "b", "c"], 2)
    assert {str(path) for path in bad} == {problem.where for problem in caught.value.problems}
    assert not list((tmp_path / "faces").glob("*.parquet"))


@given(
    st.tuples(st.integers(20, 400), st.integers(20, 400)),
    st.tuples(st.integers(-80, 400), st.integers(-80, 400), st.integers(1, 500), st.integers(1, 500)),
    st.tuples(st.integers(16, 200), st.integers(16, 200)),
    st.floats(0.01, 2),
)
@settings(max_examples=300, deadline=None)
def test_a_crop_around_a_face_stays_in_the_photo_and_holds_the_face(
    photo: tuple[int, int], face: tuple[int, int, int, int], size: tuple[int, int], margin: float
) -> None:
    geometry = Geometry(*size, face=margin)
    top, left, height, width = geometry.box(*photo, face)
    assert top >= 0 and left >= 0 and height >= 1 and width >= 1
    assert top + height <= photo[0] and left + width <= photo[1]
    # One of the sides is rounded to a whole pixel or clipped; otherwise the crop has the input's shape.
    assert abs(height / size[0] - width / size[1]) <= 1 / min(size) + 1e-9
    whole = min(photo[0] / size[0], photo[1] / size[1]) * min(size)  # the largest crop of that shape
    wanted = margin * face[2]
    inside = face[0] - wanted >= 0 and face[1] - wanted >= 0 and face[0] + face[2] + wanted <= photo[0]
    if inside and face[1] + face[3] + wanted <= photo[1] and whole > 0 and height < photo[0] and width < photo[1]:
        assert top <= face[0] - wanted + 2 and top + height >= face[0] + face[2] + wanted - 2
        assert left <= face[1] - wanted + 2 and left + width >= face[1] + face[3] + wanted - 2


def test_without_a_face_the_crop_is_the_recipes_own() -> None:
    around = Geometry(40, 30, 0.8, 1.0, face=0.3)
    assert around.box(200, 160) == Geometry(40, 30, 0.8, 1.0).box(200, 160)
    top, _, height, _ = around.box(200, 160)
    assert top + height == 200  # lower centre
    assert Geometry(40, 30, 0.8).box(200, 160, (10, 10, 20, 20)) == Geometry(40, 30, 0.8).box(200, 160)
