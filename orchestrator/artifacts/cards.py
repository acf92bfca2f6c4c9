"""What lies in a member's folder, and the card that says what the member is. Reads files alone: no network, no table.

    weights.safetensors     the best epoch's weights
    held_out.parquet        probabilities of every photo of the held-out people (none without a plan)
    member.json             the card, written last: a folder with a card is complete
    history.json            for people: one entry per epoch, as it happens; the card holds it too
    checkpoint.safetensors  while training: network, optimiser and counters after the last whole epoch
    best-N.safetensors      while training: the best epoch's weights and held-out probabilities
    progress.json           while training: for displays only

A card's id is its member's identity: a digest of all that the weights depend on. So the card, or the checkpoint, of another run
is told from the member's own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.core.commands import orch
from orchestrator.core.files import digest_of
from orchestrator.core.sealed import check_file, damaged, read_sealed, write_sealed

__all__ = [
    "CARD", "CARD_FORMAT", "CHECKPOINT", "HELD_OUT", "HISTORY", "LOCK", "PROGRESS", "WEIGHTS",
    "best_file", "check_files", "check_identity", "function_of", "history_of", "identity_of", "read_card", "trained_again",
    "write_card",
]  # fmt: skip

CARD_FORMAT = 3
KIND = "member"
WEIGHTS = "weights.safetensors"
HELD_OUT = "held_out.parquet"
HISTORY = "history.json"
CARD = "member.json"
CHECKPOINT = "checkpoint.safetensors"
PROGRESS = "progress.json"
LOCK = "member.lock"


def best_file(epoch: int | str) -> str:
    """The file of the best epoch so far; the checkpoint says which epoch that is. `*` gives a pattern of all of them."""
    return f"best-{epoch}.safetensors"


def identity_of(
    task: str,
    fold: int | None,
    recipe: str,
    weights: str,
    data: str | None,
    plan: str | None,
    seed: int,
    extra: str | None,
) -> str:
    """The digest of all that a member's weights depend on, machine and number of threads aside.

    Args:
        task: its specialist.
        fold: the fold held out; None: none.
        recipe: digest of its recipe.
        weights: sha256 of what it starts from.
        data: fingerprint of photos and labels.
        plan: digest of the fold plan.
        seed: of the training.
        extra: fingerprint of photos from elsewhere that join training.
    """
    return digest_of([task, fold, recipe, weights, data, plan, seed, extra])


def write_card(folder: Path, identity: str, card: Mapping[str, Any]) -> None:
    """Writes a member's card: from now on the member is complete."""
    write_sealed(folder / CARD, KIND, identity, CARD_FORMAT, card)


def read_card(folder: Path) -> dict[str, Any]:
    """A member's card; its `id` is the member's identity.

    Raises:
        DamagedError: missing, damaged, or of another format.
    """
    return read_sealed(folder / CARD, KIND, None, CARD_FORMAT, trained_again(folder))


def trained_again(folder: Path) -> str:
    """The way out for whatever is wrong with a member's files: the rest of a sentence."""
    run = folder.parent
    return f"run `{orch('resume', run.name, workspace=run.parent)}`, which trains this fold again."


def check_files(folder: Path, card: Mapping[str, Any]) -> None:
    """Holds the files beside a card to the hashes in it.

    Raises:
        DamagedError: one is missing or another than the one that was written.
    """
    for name, digest in card["sha256"].items():
        check_file(folder / name, digest, trained_again(folder))


def function_of(card: Mapping[str, Any]) -> str:
    """A digest of what a member computes: two cards with the same one answer alike."""
    keys = ("task", "fold", "classes", "backbone", "pooling", "views", "head", "preprocess")
    return digest_of([*(card[key] for key in keys), card["recipe"]["precision"], card["sha256"][WEIGHTS]])


def history_of(folder: Path) -> list[dict[str, Any]]:
    """A member's entries, one for each epoch: the card's when it is complete, else what has been written so far.

    Raises:
        DamagedError: the card is damaged.
    """
    if (folder / CARD).is_file():
        history: list[dict[str, Any]] = read_card(folder)["history"]
        return history
    try:
        found = json.loads((folder / HISTORY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []  # while training it is for people: the checkpoint holds it too
    return found if isinstance(found, list) else []


def check_identity(folder: Path, found: str, expected: str) -> None:
    """Refuses what was trained from other things than its run says.

    Raises:
        DamagedError: naming the card.
    """
    if found != expected:
        what = f"the card of a member of another run or fold (identity {found[:12]}; here {expected[:12]})"
        raise damaged(folder / CARD, what, trained_again(folder))
