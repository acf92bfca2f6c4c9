"""What differs between two submissions."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from orchestrator import pictures
from orchestrator.core.labels import LABELS, TASKS, decompose
from tests.conftest import ROOT, Done

Orch = Callable[..., Done]


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path, pd.DataFrame]:
    """Two submissions for 60 photos, the second in another order, with 20 other answers."""
    rng = np.random.default_rng(3)
    names = [f"{number:03d}.jpg" for number in range(60)]
    first = rng.integers(0, 18, 60)
    second = first.copy()
    changed = rng.choice(60, 20, replace=False)
    second[changed] = (second[changed] + rng.integers(1, 18, 20)) % 18
    table = pd.DataFrame({"ImageID": names, "one": first, "other": second})
    images = tmp_path / "eval/images"
    images.mkdir(parents=True)
    for name in names:
        Image.new("RGB", (48, 64), (120, 90, 80)).save(images / name)
    monday, tuesday = tmp_path / "monday.csv", tmp_path / "tuesday.csv"
    table.rename(columns={"one": "ans"})[["ImageID", "ans"]].to_csv(monday, index=False)
    table.rename(columns={"other": "ans"})[["ImageID", "ans"]].sample(frac=1, random_state=0).to_csv(
        tuesday, index=False
    )
    return monday, tuesday, table


def test_differences_are_counted_by_pair_and_task_and_drawn(
    orch: Orch, two: tuple[Path, Path, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    real = pictures.save
    monkeypatch.setattr(pictures, "save", lambda figure, path: (drawn.append(figure), real(figure, path)))
    monday, tuesday, table = two
    picture = tmp_path / "differences.png"
    done = orch("submissions", "diff", monday, tuesday, "--json", "--eval", tmp_path / "eval", "--picture", picture)
    assert done.code == 0, done.err
    difference = json.loads(done.out)
    differ = table[table["one"] != table["other"]]
    assert (difference["rows"], difference["different"]) == (60, 20)
    assert [row["ImageID"] for row in difference["photos"]] == differ["ImageID"].tolist()
    left, right = decompose(differ["one"].to_numpy()), decompose(differ["other"].to_numpy())
    assert difference["by_task"] == {task: int((left[task] != right[task]).sum()) for task in TASKS}
    counts = differ.groupby(["one", "other"]).size()
    assert {(row["first"], row["second"]): row["photos"] for row in difference["pairs"]} == counts.to_dict()
    assert [row["photos"] for row in difference["pairs"]] == sorted(counts, reverse=True)
    assert picture.read_bytes().startswith(b"\x89PNG")
    titles = [axis.get_title() for axis in drawn[0].axes if axis.get_title()]
    assert sorted(titles) == sorted(
        f"monday: {LABELS[row.one]}\ntuesday: {LABELS[row.other]}" for row in differ.itertuples()
    )
    shown = orch("submissions", "diff", monday, tuesday)
    assert "20 of 60 answers differ (33.33 %)" in shown.out
    first = difference["pairs"][0]
    assert f"{first['first']} {LABELS[first['first']]}" in shown.out
    same = orch("submissions", "diff", monday, monday)
    assert same.out == "0 of 60 answers differ (0.00 %).\n"


def test_what_is_no_submission_is_told_at_once(
    orch: Orch, two: tuple[Path, Path, pd.DataFrame], tmp_path: Path
) -> None:
    monday, tuesday, _ = two
    bad = tmp_path / "bad.csv"
    bad.write_text("ImageID,ans\n000.jpg,18\n001.jpg,3.5\n002.jpg,3\n002.jpg,4\n")
    refused = orch("submissions", "diff", monday, bad)
    assert refused.code == 2
    for message in (
        "line 2: ans is '18'; allowed: 0 to 17",
        "line 3: ans is '3.5'",
        "lines 4, 5: ImageID '002.jpg' appears in 2 rows",
    ):
        assert message in refused.err
    bad.write_text("id,label\n1,2\n")
    assert "has the columns id, label; a submission has ImageID and ans" in orch("submissions", "diff", bad, monday).err
    assert "no such file" in orch("submissions", "diff", tmp_path / "no.csv", monday).err
    pd.read_csv(tuesday).head(50).to_csv(bad, index=False)
    assert "10 are in one of them only" in orch("submissions", "diff", monday, bad).err
    assert "holds no folder images/" in orch("submissions", "diff", monday, tuesday, "--eval", tmp_path / "nothing").err


def test_the_difference_needs_no_library_of_numbers(two: tuple[Path, Path, pd.DataFrame]) -> None:
    monday, tuesday, _ = two
    code = (
        "import sys\n"
        "from orchestrator.cli.app import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'pandas', 'sklearn', 'cv2', 'PIL', 'pyarrow', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(','.join(sorted(heavy)) or 0)"
    )
    words = [sys.executable, "-c", code, "submissions", "diff", str(monday), str(tuesday)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert "20 of 60 answers differ" in done.stdout
