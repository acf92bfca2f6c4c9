"""A member's card: what is written is what is read, and what is not a card is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.artifacts.cards import CARD, WEIGHTS, MemberCard, ScoredOn, TrainedOn
from orchestrator.core.epochs import MemberScores, TrainedEpoch
from orchestrator.core.errors import DamagedError
from tests.conftest import edit_sealed

A_CARD = MemberCard(
    run="age-0001", plan_digest=None, data_fingerprint="d", extra_fingerprint=None, versions={"timm": "1"}, record={},
    id="i", task="age", fold=0, classes=("<30", "30-59", ">=60"), backbone="resnet18", pooling="", views=("flip",), parameters=9,
    head={"kind": "classes", "classes": 3}, preprocess={}, recipe={"precision": "fp32"}, seed=1, initial_weights_sha256="",
    train=TrainedOn(2, 2, extra=0), held_out=ScoredOn(1, 1), photos_per_epoch=2, epochs=1, best_epoch=1,
    scores=MemberScores(0.5, 0.6, 0.7), confusion=[[1, 0, 0], [0, 0, 0], [0, 0, 0]], seconds=0.1,
    history=(
        TrainedEpoch(1, 0.5, 1e-3, 20.0, 0.1), TrainedEpoch(2, 0.4, 1e-4, 21.0, 0.2, MemberScores(0.5, 0.6, 0.7), {"step": 0.1}),
    ),
    device="cpu", threads=1, sha256={WEIGHTS: "w"},
)  # fmt: skip


def test_what_is_written_is_read(tmp_path: Path) -> None:
    A_CARD.save(tmp_path)
    assert MemberCard.load(tmp_path) == A_CARD


@pytest.mark.parametrize(
    "change",
    [
        {"colour": "red"},
        {"classes": 3},
        {"views": None},
        {"scores": {"macro_f1": 0.5}},
        {"history": [{"epoch": 1}]},
        {"confusion": ["a"]},
    ],
)
def test_a_sealed_file_of_another_shape_is_no_card(change: dict[str, object], tmp_path: Path) -> None:
    A_CARD.save(tmp_path)
    edit_sealed(tmp_path / CARD, **change)
    with pytest.raises(DamagedError, match="not the card of a member") as caught:
        MemberCard.load(tmp_path)
    assert caught.value.path == str(tmp_path / CARD)
    assert "orch resume" in caught.value.message


def test_a_card_that_lacks_a_value_is_no_card(tmp_path: Path) -> None:
    from orchestrator.core.files import digest_of

    A_CARD.save(tmp_path)
    value = json.loads((tmp_path / CARD).read_text())
    del value["digest"], value["views"]
    (tmp_path / CARD).write_text(json.dumps({**value, "digest": digest_of(value)}))
    with pytest.raises(DamagedError, match="views"):
        MemberCard.load(tmp_path)


def test_members_that_answer_alike_have_one_function() -> None:
    beside = {"run": "age-0002", "id": "j", "seed": 2, "scores": None, "history": (), "threads": 4, "epochs": 7}
    assert replace(A_CARD, **beside).function == A_CARD.function
    for change in (
        {"views": ()}, {"sha256": {WEIGHTS: "v"}}, {"preprocess": {"mean": 0}}, {"recipe": {"precision": "bf16"}},
        {"head": {}}, {"pooling": "avg"}, {"fold": 1},
    ):  # fmt: skip
        assert replace(A_CARD, **change).function != A_CARD.function
