"""Pictures show the numbers that they are given, and are drawn without a trace in the caller's own matplotlib."""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix

from orchestrator import pictures
from orchestrator.core.interval import Interval
from orchestrator.core.labels import CLASSES, LABELS, TASKS, compose
from orchestrator.data.describe import describe
from orchestrator.data.preprocessing import Geometry, decode
from orchestrator.data.readers import read
from orchestrator.ensembling.evaluation import evaluations
from orchestrator.inference.cascade import EXACT, Cascade, Point
from orchestrator.inference.cascade_measurement import Measured
from orchestrator.inference.results import Prediction
from orchestrator.pictures import contact_sheet, draw_cascade, draw_faces, draw_pairs, draw_people, draw_scores

LABEL = np.zeros(500, np.int64)
CURVE = [Point(EXACT, 0.8, 0.0, LABEL), Point(Cascade(0.01, 2.0, {}), 0.6, 0.008, LABEL)]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """What is drawn in this test, instead of files."""
    drawn: list[Figure] = []
    monkeypatch.setattr(pictures, "save", lambda figure, *_, **__: drawn.append(figure))
    return drawn


def test_a_picture_changes_nothing_in_the_callers_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(matplotlib.rcParams, "backend", "svg")
    for name, scores, interval in (("scored", (0.7, [0.7, 0.69]), Interval(0.6, 0.8)), ("bare", None, None)):
        draw_cascade(Measured(CURVE[1], CURVE, 500, scores, interval, {"name": "soft"}), tmp_path / f"{name}.png")
    assert matplotlib.rcParams["backend"] == "svg"
    assert (tmp_path / "scored.png").stat().st_size > (tmp_path / "bare.png").stat().st_size > 5_000


def test_scores_are_drawn_by_task_by_label_and_as_answers_for_each_true_label(figures: list[Figure]) -> None:
    rng = np.random.default_rng(0)
    truth = {task: rng.integers(0, len(CLASSES[task]), 400) for task in TASKS}
    true_label = compose(*(truth[task] for task in TASKS))
    answered = np.where(rng.random(400) < 0.5, true_label, rng.integers(0, 6, 400))  # rows and columns differ
    people = pd.Series([f"p{number // 4}" for number in range(400)])
    names = {**CLASSES, "label": LABELS}
    scores = {name: scored.recorded(names[name]) for name, scored in evaluations(people, truth, answered).items()}
    draw_scores("soft-0001", scores, Path("scores.png"))
    (figure,) = figures
    by_task, by_label, confusion = figure.axes[:3]
    ticks = [text.get_text() for text in by_task.get_yticklabels()]
    assert dict(zip(ticks, [bar.get_width() for bar in by_task.patches], strict=True)) == {
        "18-way": scores["label"].macro_f1, **{task: scores[task].macro_f1 for task in TASKS},
    }  # fmt: skip
    ticks = [text.get_text() for text in by_label.get_yticklabels()]
    assert dict(zip(ticks, [bar.get_width() for bar in by_label.patches], strict=True)) == {
        f"{name} {code}": scores["label"].classes[name].f1 for code, name in enumerate(LABELS)
    }
    (shares,) = confusion.images
    expected = confusion_matrix(true_label, answered, labels=range(18), normalize="true")
    assert np.allclose(shares.get_array(), expected)
    assert (confusion.get_ylabel(), confusion.get_xlabel()) == ("true", "answered")
    written = {text.get_position(): text.get_text() for text in confusion.texts}  # column, row
    assert written == {
        (column, row): f"{100 * expected[row, column]:.0f}" for row, column in np.argwhere(expected >= 0.005).tolist()
    }


def test_a_cascades_curve_is_drawn_by_what_it_asks_and_changes(figures: list[Figure]) -> None:
    draw_cascade(Measured(CURVE[1], CURVE, 500, (0.7, [0.7, 0.69]), None, {"name": "soft"}), Path("cascade.png"))
    changes, scores = figures[0].axes
    curve, chosen = changes.lines[:2]
    assert curve.get_xydata().tolist() == [[80.0, 0.0], [60.0, 0.8]]
    assert chosen.get_xydata().tolist() == [[60.0, 0.8]]
    assert scores.lines[0].get_xydata().tolist() == [[80.0, 0.7], [60.0, 0.69]]


def test_people_are_drawn_as_they_are_counted(people: Path, figures: list[Figure]) -> None:
    about = describe(read(people / "train"))
    draw_people(about, Path("people.png"))
    axes = {axis.get_title(): axis for axis in figures[0].axes}
    ages = next(axis for title, axis in axes.items() if title.startswith("age of each person"))
    assert sum(bar.get_height() for bar in ages.patches) == about.people == 24
    for title in ("by mask", "by gender", "by age band"):
        names = [text.get_text() for text in axes[title].get_yticklabels()]
        frame = about.tables[title]
        counts = dict(zip(frame.iloc[:, 0], frame["photos"], strict=True))
        assert dict(zip(names, [bar.get_width() for bar in axes[title].patches], strict=True)) == counts
    (sizes,) = axes["image sizes, width x height"].get_yticklabels()
    assert sizes.get_text() == "192 x 256"


def test_photos_are_drawn_with_their_answers_and_wrong_ones_with_the_truth(people: Path, figures: list[Figure]) -> None:
    photos = [str(path) for path in read(people / "train").paths[:2]]
    answers = [
        Prediction(photo, label, LABELS[label], "soft", {}, 1.0) for photo, label in zip(photos, (3, 7), strict=True)
    ]
    unread = Prediction("gone.jpg", None, "", "soft", {}, None, error="no such file")
    contact_sheet([*answers, unread], Path("sheet.png"), truth=[3, 8, 0])
    right, wrong, empty = figures[0].axes
    assert right.get_title() == LABELS[3].replace(" / ", "\n", 1)
    assert wrong.get_title() == f"{LABELS[7].replace(' / ', chr(10), 1)}\ntruth: {LABELS[8]}"
    for axis, photo in zip((right, wrong), photos, strict=True):
        assert np.array_equal(axis.images[0].get_array(), Geometry(256, 192).apply(decode(Path(photo))))
    assert (empty.texts[0].get_text(), len(empty.images)) == ("could not\nbe read", 0)


def test_pairs_and_faces_are_drawn_with_what_is_known_of_them(people: Path, figures: list[Figure]) -> None:
    first, other, *_ = read(people / "train").paths
    draw_pairs([(first, other, 2)], Path("pairs.png"))
    draw_faces([first, other], [(10, 20, 30, 40), None], Path("faces.png"))
    pairs, faces = figures
    for axis, photo in zip(pairs.axes, (first, other), strict=True):
        assert np.array_equal(axis.images[0].get_array(), Geometry(256, 192).apply(decode(photo)))
    assert "2 of 64 bits differ" in pairs.axes[1].get_title()
    with_face, without = sorted(faces.axes, key=lambda axis: axis.get_title())
    (box,) = with_face.patches
    assert (box.get_y(), box.get_x(), box.get_height(), box.get_width()) == (10, 20, 30, 40)
    assert np.array_equal(with_face.images[0].get_array(), decode(first))
    assert (without.get_title(), len(without.patches)) == ("no face found", 0)
