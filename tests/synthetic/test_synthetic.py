import hashlib
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from orchestrator.core.errors import ConfigError, DataError
from orchestrator.core.labels import CLASSES, decompose
from orchestrator.data.check import check
from orchestrator.data.contest import MASK_OF_STEM, read_eval
from orchestrator.data.describe import describe, fold_table
from orchestrator.data.folds import plan_folds
from orchestrator.data.preprocessing import decode
from orchestrator.data.readers import read
from orchestrator.pictures import draw_people
from orchestrator.synthetic.people import write_people
from orchestrator.synthetic.portraits import CROSSED_HAIR, Face, draw_photo, invent_person
from tests.conftest import hashes


def digest(root: Path) -> str:
    whole = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        whole.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return whole.hexdigest()


def test_the_same_seed_draws_the_same_files_whatever_the_processes(tmp_path: Path) -> None:
    write_people(tmp_path / "a", 9, 2, seed=5)
    write_people(tmp_path / "b", 9, 2, seed=5, processes=2)
    write_people(tmp_path / "c", 9, 2, seed=6)
    assert digest(tmp_path / "a") == digest(tmp_path / "b") != digest(tmp_path / "c")


def test_people_are_drawn_by_one_process_where_several_cannot_work_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full /dev/shm was called a full disk."""
    calls = []
    monkeypatch.setattr("orchestrator.synthetic.people.why_no_parallelism", lambda: calls.append(1) or "they cannot.")
    monkeypatch.setattr("joblib.externals.loky.get_reusable_executor", None)
    write_people(tmp_path / "a", 6, 0, seed=0, processes=2)
    assert calls
    assert len(read(tmp_path / "a" / "train").paths) == 42


def test_people_are_in_the_contests_layout_and_in_order(people: Path) -> None:
    findings = check(people / "train")
    assert findings.problems == []
    assert len(findings.photos) == 24 * 7
    assert findings.sizes == {(192, 256): 168}
    kinds = findings.photos.people.assign(band=np.digitize(findings.photos.people["age"], [30, 60]))
    assert kinds.groupby(["gender", "band"]).size().min() >= 1
    assert len(kinds.groupby(["gender", "band"])) == 6
    suffixes = {Path(path).suffix for path in findings.photos.table["path"]}
    assert suffixes == {".jpg", ".jpeg", ".png"}


def test_eval_people_are_others_and_their_truth_lies_beside(people: Path) -> None:
    contest = read_eval(people / "eval")
    truth = pd.read_csv(people / "eval" / "truth.csv")
    assert list(truth["ImageID"]) == contest.names
    assert set(contest.table.column("ans")) == {"0"}
    assert len(truth) == 28
    # Whoever is drawn anew as the truth says, by number and seed, looks as the photo does.
    labels = decompose(truth["ans"].to_numpy())
    masks, kinds = labels["mask"], list(zip(labels["gender"].tolist(), labels["age"].tolist(), strict=True))
    drawn = {
        (number, kind, stem): draw_photo(invent_person(3, number, CLASSES["gender"][kind[0]], kind[1]), stem)
        for number in range(24, 28) for kind in {*kinds} for stem in MASK_OF_STEM
    }  # fmt: skip
    seen = []
    for name, kind, mask in zip(truth["ImageID"], kinds, masks, strict=True):
        photo = decode(people / "eval/images" / name).astype(int)
        apart = {key: np.abs(photo - other).mean() for key, other in drawn.items()}
        nearest = min(apart, key=apart.__getitem__)
        assert apart[nearest] < 5  # as far as JPEG moves pixels
        assert nearest[1] == kind
        assert MASK_OF_STEM[nearest[2]] == CLASSES["mask"][mask]
        seen.append(nearest)
    assert len({*seen}) == 28


def test_masks_are_unmistakable_and_ages_show_with_noise() -> None:
    person = invent_person(0, 0, "female", 1)
    shots = [draw_photo(person, stem) for stem in MASK_OF_STEM]
    assert all(shot.shape == (256, 192, 3) and shot.dtype == np.uint8 for shot in shots)
    crowd = [invent_person(1, number, "male", number % 3) for number in range(600)]
    errors = np.array([person.apparent - person.age for person in crowd])
    assert 3.5 < errors.std() < 4.5
    for border in (30, 60):  # nobody can be told for sure near a border
        near = [person for person in crowd if border - 3 <= person.age < border + 3]
        assert any((person.age < border) != (person.apparent < border) for person in near)
    sure = [person for person in crowd if abs(person.age - 30) > 13 and abs(person.age - 60) > 13]
    assert sure
    assert all((person.age < 30) == (person.apparent < 30) for person in sure)
    crossed = np.mean([Face(person).long_hair for person in crowd])
    assert abs(crossed - CROSSED_HAIR) < 0.05


def test_mask_states_are_told_from_pixels_alone() -> None:
    def shots(numbers: range) -> tuple[np.ndarray, list[str]]:
        pixels, states = [], []
        for number in numbers:
            person = invent_person(4, number, ("male", "female")[number % 2], number % 3)
            for stem, state in MASK_OF_STEM.items():
                small = cv2.resize(draw_photo(person, stem), (24, 32), interpolation=cv2.INTER_AREA)
                pixels.append(small.reshape(-1) / 255)
                states.append(state)
        return np.array(pixels), states

    simple = make_pipeline(PCA(60, random_state=0), LogisticRegression(C=10, max_iter=500))
    simple.fit(*shots(range(120)))
    # A linear model on 32 x 24 pixels; five of seven photos wear a mask, so 0.71 would be no knowledge at all.
    assert simple.score(*shots(range(1000, 1060))) > 0.92


def test_too_few_people_and_full_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 6"):
        write_people(tmp_path / "new", 5)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "holiday.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="not empty"):
        write_people(tmp_path / "full", 6)


def test_what_a_stopped_command_has_drawn_is_drawn_anew(tmp_path: Path) -> None:
    def stop(done: int, _all: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_people(tmp_path / "a", 9, 2, seed=4, progress=stop)
    assert list((tmp_path / "a/train/images").iterdir())
    write_people(tmp_path / "a", 6, 2, seed=5)  # of other people even
    write_people(tmp_path / "b", 6, 2, seed=5)
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")
    with pytest.raises(DataError, match="not empty"):
        write_people(tmp_path / "a", 6, 2, seed=5)


def test_a_description_counts_and_draws(tmp_path: Path, people: Path) -> None:
    photos = read(people / "train")
    about = describe(photos)
    assert about.tables["by mask"]["photos"].tolist() == [120, 24, 24]
    joint = about.tables["by mask x gender x age band"]
    assert len(joint) == 18
    assert joint["photos"].sum() == 168
    draw_people(about, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    table = fold_table(photos, plan_folds(photos.people, 2))
    assert table[table["class"] == "all people"][["fold 0", "fold 1"]].to_numpy().sum() == 24
