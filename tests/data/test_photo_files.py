"""The photos of what is given: nothing is left out in silence, and no name is too odd."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator.core.errors import DataError, Problem, printable
from orchestrator.core.files import write_json
from orchestrator.core.labels import CLASSES, TASKS
from orchestrator.data.photo_files import find_photos
from orchestrator.inference.reader import Unreadable
from orchestrator.inference.results import Predictions
from orchestrator.inference.tables import write_probabilities
from tests.conftest import SOFT, Done


def photo(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (len(path.name), 0, 0)).save(
        path, {"bmp": "BMP", "png": "PNG"}.get(path.suffix[1:], "JPEG")
    )
    return path


def odd_name(folder: Path) -> Path:
    """A file whose name is not UTF-8; skips where the disk does not take one."""
    try:
        return photo(Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.jpg")))
    except OSError:
        pytest.skip("this disk takes UTF-8 names only")


def test_every_ending_of_a_photo_is_found_and_the_rest_is_told(tmp_path: Path, messages: list[str]) -> None:
    wanted = [photo(tmp_path / name) for name in ("a.jpg", "b.JFIF", "c.bmp", "d/e.png", "d/f.jpe")]
    hidden = [photo(tmp_path / name) for name in (".x.jpg", ".git/y.jpg")]
    for name in ("note.txt", "d/more.txt", "IMG_1.HEIC", "README"):
        (tmp_path / name).write_text("x")
    (tmp_path / "linked").symlink_to(tmp_path / "d")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert find_photos([tmp_path]) == sorted(wanted)
    assert all(path.exists() for path in hidden)
    line = " ".join(messages)
    assert line.startswith(f"{tmp_path}: 5 files skipped, not photos: 2 .txt")
    for part in ("1 .heic", "1 without an ending", "1 linked folder left out", "1 not a regular file"):
        assert part in line
    assert find_photos([tmp_path / "IMG_1.HEIC"]) == [tmp_path / "IMG_1.HEIC"]  # named: its content decides
    assert len(messages) == 2


def test_the_files_left_out_add_up(tmp_path: Path, messages: list[str]) -> None:
    photo(tmp_path / "a.jpg")
    for number, ending in enumerate(("txt", "csv", "gif", "avif", "bak", "md", "doc", "xls")):
        for copy in range(1 + (number < 2)):
            (tmp_path / f"{copy}.{ending}").write_text("x")
    find_photos([tmp_path])
    assert messages[0].startswith(f"{tmp_path}: 10 files skipped, not photos: 2 .")
    assert sum(map(int, re.findall(r"(\d+) (?:\.|of other kinds)", messages[0]))) == 10
    with pytest.raises(DataError, match="no such file or folder"):
        find_photos([tmp_path / "gone"])


def test_names_that_are_not_utf8_do_no_harm(tmp_path: Path) -> None:
    path = odd_name(tmp_path)
    (photo,) = find_photos([tmp_path])
    assert photo == path
    message = str(DataError(f"{path}: x.", [Problem(str(path), "is odd.")]))
    message.encode()
    assert "caf\\xe9.jpg: is odd." in message
    assert printable(str(path)).endswith("caf\\xe9.jpg")
    nothing = {task: np.full((1, len(CLASSES[task])), np.nan) for task in TASKS}
    empty = np.full(1, np.nan)
    answers = Predictions(
        (str(path),), SOFT, np.array([-1]), nothing, empty, np.zeros(1, int), (None,), None,
        {0: Unreadable("no answer", "damaged")},
    )  # fmt: skip
    json.dumps(answers[0].as_dict()).encode()
    write_probabilities(tmp_path / "p.parquet", [str(path)], answers)
    write_json(tmp_path / "x.json", {"source": str(path)})
    assert json.loads((tmp_path / "x.json").read_bytes()) == {"source": str(path)}


def test_a_closed_folder_is_told(orch: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo(tmp_path / "open" / "a.jpg")
    (tmp_path / "closed").mkdir()
    real = os.scandir

    def scan(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scan)  # root may read everything
    with pytest.raises(DataError, match=r"closed: cannot be searched \(Permission denied\)"):
        find_photos([tmp_path])
