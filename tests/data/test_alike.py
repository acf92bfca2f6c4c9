"""Copies that were saved again under another person's name are found; strangers are not."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from orchestrator import api
from orchestrator.data.alike import BLOCK, alike_pairs
from orchestrator.data.readers import read
from tests.conftest import Done

Orch = Callable[..., Done]


@given(st.integers(0, 2**32 - 1), st.integers(0, 12))
def test_pairs_are_those_of_the_definition(seed: int, bits: int) -> None:
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**8, 40, dtype=np.uint64)  # eight bits: many are near
    persons = pd.Series([f"p{number}" for number in rng.integers(0, 12, 40)])
    expected = {
        (first, second, int(hashes[first] ^ hashes[second]).bit_count())
        for first in range(40)
        for second in range(first + 1, 40)
        if persons[first] != persons[second] and int(hashes[first] ^ hashes[second]).bit_count() <= bits
    }
    pairs = alike_pairs(hashes, persons, bits)
    assert {(pair.first, pair.second, pair.bits) for pair in pairs} == expected
    assert [pair.bits for pair in pairs] == sorted(pair.bits for pair in pairs)


def test_pairs_are_found_over_the_blocks_that_photos_are_held_against_each_other_in() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**63, 2 * BLOCK + 10, dtype=np.uint64)
    hashes[2 * BLOCK + 3] = hashes[5]
    persons = pd.Series([f"p{number}" for number in range(len(hashes))])
    (pair,) = alike_pairs(hashes, persons)
    assert (pair.first, pair.second, pair.bits) == (5, 2 * BLOCK + 3, 0)


@pytest.fixture
def copied(people: Path, tmp_path: Path) -> Path:
    """A table of one photo a person, with three of them saved again for other people: smaller, compressed, and as PNG."""
    photos = read(people / "train")
    table = photos.table.assign(path=[str(path) for path in photos.paths]).groupby("person").first().reset_index()
    noise = np.random.default_rng(1)
    for number, row in table.iterrows():  # drawn faces look much alike: every person gets a background
        with Image.open(row["path"]) as image:
            small = np.asarray(image.convert("RGB").resize((96, 128)), np.float64)
        pattern = np.kron(noise.uniform(0, 255, (8, 6, 3)), np.ones((16, 16, 1)))
        path = tmp_path / f"{row['person']}.png"
        Image.fromarray((0.3 * small + 0.7 * pattern).astype(np.uint8)).save(path)
        table.loc[number, "path"] = str(path)
    rows = [table]
    savings = (("a.jpg", (72, 96), {"quality": 60}), ("b.jpg", (96, 128), {"quality": 30}), ("c.png", (48, 64), {}))
    for number, (name, size, options) in enumerate(savings):
        with Image.open(table["path"].iloc[number]) as image:
            image.resize(size).save(tmp_path / name, **options)
        rows.append(table.iloc[[number]].assign(person=f"copy of {number}", path=str(tmp_path / name)))
    manifest = tmp_path / "table.csv"
    pd.concat(rows).to_csv(manifest, index=False)
    return manifest


def test_copies_that_were_saved_again_are_found_and_counted_across_folds(
    orch: Orch, copied: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "pairs.png"
    words = ("data", "alike", "--data", copied, "--folds", 3, "--plan-seed", 5)
    done = orch(*words, "--json", "--picture", picture)
    alike = json.loads(done.out)
    people = {tuple(sorted(pair["people"])) for pair in alike["pairs"]}
    table = pd.read_csv(copied, dtype=str)
    originals = table["person"].iloc[:3].tolist()
    assert people == {tuple(sorted((original, f"copy of {number}"))) for number, original in enumerate(originals)}
    plan = api.plan_folds(copied, folds=3, seed=5).plan
    assert [pair["folds"] for pair in alike["pairs"]] == [
        [plan.fold_of[person] for person in pair["people"]] for pair in alike["pairs"]
    ]
    assert alike["across_folds"] == sum(pair["folds"][0] != pair["folds"][1] for pair in alike["pairs"])
    assert done.code == 1
    assert picture.stat().st_size > 10_000
    shown = orch(*words)
    assert (
        f"3 pairs of photos of different people look the same, {alike['across_folds']} of them across folds."
        in shown.out
    )
    assert "copy of 0" in shown.out


def test_a_persons_own_photos_are_no_pair_and_wrong_numbers_are_refused(orch: Orch, copied: Path) -> None:
    table = pd.read_csv(copied, dtype=str)
    table[["path"]].assign(person="one and the same").to_csv(copied, index=False)
    done = orch("data", "alike", "--data", copied, "--json")
    assert (done.code, json.loads(done.out)["pairs"]) == (0, [])
    done = orch("data", "alike", "--data", copied, "--folds", 1)
    assert (done.code, "--folds 1; allowed: 2 or more, or 0" in done.err) == (2, True)
    done = orch("data", "alike", "--data", copied, "--bits", 17)
    assert (done.code, "--bits 17; allowed: 0 to 16" in done.err) == (2, True)


def test_held_out_data_is_held_against_the_training(orch: Orch, copied: Path, tmp_path: Path) -> None:
    """A copy that was saved again has another content, and under another name nobody else would know it."""
    table = pd.read_csv(copied, dtype=str)
    is_copy = table["person"].str.startswith("copy")
    training, held_out = tmp_path / "training.csv", tmp_path / "held_out.csv"
    table[~is_copy].to_csv(training, index=False)
    table[is_copy].to_csv(held_out, index=False)
    assert orch("data", "alike", "--data", held_out).code == 0
    done = orch("data", "alike", "--data", held_out, "--against", training, "--json")
    assert done.code == 1, done.err
    pairs = json.loads(done.out)["pairs"]
    assert {pair["people"][0] for pair in pairs} == {"copy of 0", "copy of 1", "copy of 2"}
    assert len(pairs) == 3
    assert (
        "3 pairs of photos, one of each source, look the same."
        in orch("data", "alike", "--data", held_out, "--against", training).out
    )
