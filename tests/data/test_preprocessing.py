import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from orchestrator.core.errors import PhotoError
from orchestrator.data.preprocessing import Geometry, Preprocess, decode

RED = (200, 30, 40)


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def half_red(width: int = 40, height: int = 20) -> Image.Image:
    """Red left half, blue right half."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2] = RED
    pixels[:, width // 2 :] = (20, 30, 220)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(tmp_path: Path, orientation: int) -> None:
    upright = half_red()
    # What a camera stores for each orientation: the inverse of what viewers do.
    stored = {
        1: lambda image: image, 2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda image: image.rotate(180), 4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda image: image.transpose(Image.Transpose.TRANSPOSE), 6: lambda image: image.rotate(90, expand=True),
        7: lambda image: image.transpose(Image.Transpose.TRANSVERSE), 8: lambda image: image.rotate(270, expand=True),
    }[orientation](upright)  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(stored, tmp_path / "photo.png", exif=exif)
    assert np.array_equal(decode(path), np.asarray(upright))


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "LA", "RGBA", "1", "I;16"])
def test_every_colour_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    grey = Image.new("L", (8, 6), 128)
    if mode == "I;16":
        image = Image.fromarray(np.full((6, 8), 128 * 257, np.uint16))
    else:
        image = grey.convert("RGB").quantize(4) if mode == "P" else grey.convert("RGB" if mode == "CMYK" else mode)
        image = image.convert(mode)
    suffix = ".jpg" if mode == "CMYK" else ".png"
    pixels = decode(saved(image, tmp_path / f"photo{suffix}"))
    assert pixels.shape == (6, 8, 3)
    assert pixels.dtype == np.uint8
    if mode == "1":  # dithered to black and white
        assert set(np.unique(pixels)) <= {0, 255}
    else:
        assert (abs(pixels.astype(int) - 128) <= 3).all()


def test_transparency_lies_over_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (4, 4), (*RED, 0))
    assert (decode(saved(image, tmp_path / "clear.png")) == 255).all()
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([*RED] + [0] * 765)
    palette.info["transparency"] = 0
    assert (decode(saved(palette, tmp_path / "palette.png", transparency=0)) == 255).all()


def test_bytes_and_files_decode_alike(tmp_path: Path) -> None:
    path = saved(half_red(), tmp_path / "photo.jpg")
    assert np.array_equal(decode(path), decode(path.read_bytes()))


def test_broken_photos_are_told_by_name(tmp_path: Path) -> None:
    whole = io.BytesIO()
    half_red(200, 200).save(whole, "JPEG")
    for name, data, message in (
        ("empty.jpg", b"", "is empty"),
        ("cut.jpg", whole.getvalue()[: len(whole.getvalue()) // 2], "damaged or truncated"),
        ("text.jpg", b"no image at all", "not an image of a known format"),
        ("anim.gif.jpg", b"GIF89a" + b"\0" * 30, "not an image of a known format"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(PhotoError, match=message) as caught:
            decode(tmp_path / name)
        assert name in str(caught.value)
    with pytest.raises(PhotoError, match="no such file"):
        decode(tmp_path / "missing.jpg")


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    Image.new("1", (30_000, 30_000)).save(tmp_path / "bomb.png")
    with pytest.raises(PhotoError, match="64,000,000"):
        decode(tmp_path / "bomb.png")


@given(
    st.integers(1, 300), st.integers(1, 300), st.integers(16, 64), st.integers(16, 64),
    st.floats(0.1, 1), st.floats(0, 1),
)  # fmt: skip
def test_the_crop_box_lies_inside_the_photo_and_has_the_right_shape(
    height: int, width: int, rows: int, columns: int, crop: float, anchor: float
) -> None:
    geometry = Geometry(rows, columns, crop, anchor)
    top, left, box_height, box_width = geometry.box(height, width)
    assert 0 <= top <= height - box_height
    assert 0 <= left <= width - box_width
    assert box_height >= 1 <= box_width
    exact = min(height / rows, width / columns) * crop
    assert abs(box_height - max(1, rows * exact)) <= 1
    assert abs(box_width - max(1, columns * exact)) <= 1
    assert geometry.apply(np.zeros((height, width, 3), np.uint8)).shape == (rows, columns, 3)


def test_crops_are_where_their_anchor_says() -> None:
    photo = np.arange(100, dtype=np.uint8)[:, None, None] * np.ones((1, 100, 3), np.uint8)
    assert Geometry(20, 20, 0.2, 0.0).apply(photo)[0, 0, 0] == 0
    assert Geometry(20, 20, 0.2, 0.5).apply(photo)[0, 0, 0] == 40
    assert Geometry(20, 20, 0.2, 1.0).apply(photo)[-1, 0, 0] == 99
    assert Geometry(20, 20, 0.2, 0.0).box(100, 100) == (
        0,
        40,
        20,
        20,
    )  # in the middle of the width, whatever the anchor
    assert Geometry(20, 20, 0.2, 0.5).box(100, 300) == (40, 140, 20, 20)


def test_shrinking_averages_areas() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    means = photo.reshape(8, 8, 6, 8, 3).mean(axis=(1, 3))
    assert np.abs(Geometry(8, 6).apply(photo) - means).max() <= 1


def test_normalise_is_the_formula_in_channels_last_memory() -> None:
    preprocess = Preprocess(Geometry(4, 3), (0.5, 0.4, 0.3), (0.2, 0.25, 0.5))
    pixels = torch.randint(0, 256, (2, 4, 3, 3), dtype=torch.uint8)
    normalised = preprocess.normalise(pixels)
    assert normalised.shape == (2, 3, 4, 3)
    assert normalised.dtype == torch.float32
    assert normalised.is_contiguous(memory_format=torch.channels_last)
    expected = (pixels.double() / 255 - torch.tensor(preprocess.mean)) / torch.tensor(preprocess.std)
    assert torch.allclose(normalised.double(), expected.permute(0, 3, 1, 2), atol=1e-5)
    assert Preprocess.from_dict(preprocess.as_dict()) == preprocess


@given(
    st.sampled_from(["JPEG", "PNG", "WEBP"]), st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=12)
)
def test_mutated_bytes_are_a_photo_or_a_photo_error(kind: str, changes: list[tuple[float, int]]) -> None:
    whole = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    half_red(24, 16).save(whole, kind, exif=exif)
    data = bytearray(whole.getvalue())
    for position, value in changes:
        data[int(position * len(data))] = value
    try:
        assert decode(bytes(data)).shape[2] == 3
    except PhotoError as error:
        assert str(error).startswith("the photo: ")


def test_a_photo_of_too_many_pixels_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (300, 200)).save(tmp_path / "a.png")
    monkeypatch.setattr("orchestrator.data.decoding.MAX_PIXELS", 50_000)
    with pytest.raises(PhotoError, match="300 x 200 pixels; at most 50,000 are decoded"):
        decode(tmp_path / "a.png")
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(PhotoError, match="more than 50,000 pixels"):
        decode(tmp_path / "a.png")
