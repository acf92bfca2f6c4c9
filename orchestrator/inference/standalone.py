"""Predicts photos with an exported ensemble: every export has a copy of this file, which does not need orchestrator.

    pip install numpy pillow opencv-python-headless onnxruntime
    python predict.py photo.jpg more/photos/*.jpg

Prints one JSON object per photo: label, name, and each task's probabilities (for a hard vote: shares of votes), or the
error if it cannot be read. `decoding.py` and `geometry.py` do what training did, and `combining/` is the code that scored the
ensemble: do not change them, or the networks see other pixels than in training and give other answers.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

__all__ = ["answer", "decode"]

GEOMETRY = ("height", "width", "crop", "anchor", "face", "detector")
"""What a card says of the part of a photo that a member sees."""


def decode(path: Path) -> Any:
    """One photo, upright RGB: shape (H, W, 3), uint8."""
    return _beside("decoding").read_photo(path).pixels


def answer(photo: Any, card: dict[str, Any], sessions: dict[str, Any]) -> dict[str, Any]:
    """The ensemble's answer for one decoded photo."""
    face = None
    if "detector" in card:
        face = _beside("finding").find_face(
            photo, [partial(_run, sessions[name]) for name in card["detector"]["files"]]
        )
    classes = {task["name"]: len(task["classes"]) for task in card["tasks"]}
    voters, arrays = [], []
    for member in card["members"]:
        geometry = {name: member[name] for name in GEOMETRY}
        seen = _beside("geometry").Geometry(**geometry).apply(photo, face)
        probabilities = sessions[member["file"]].run(None, {"photos": seen[None]})[0]
        if not np.isfinite(probabilities).all():
            raise ValueError(f"the answers of {member['file']} are NaN or infinite")
        by_task = _by_task(member["task"], probabilities, classes)
        for task in member["votes_in"]:
            voters.append(_beside("combining.answers").Voter(task, member["run"], member["fold"]))
            arrays.append(by_task[task])
    answers = _beside("combining.answers").Answers(classes, 1, tuple(voters), tuple(arrays))
    combiner = _beside("combining.combiners").Combiner.from_dict(card["combiner"])
    combined = combiner.combine(answers)
    label = int(combined.label[0])
    shares = {
        task["name"]: dict(
            zip(task["classes"], combined.decisions[task["name"]].shares[0].round(6).tolist(), strict=True)
        )
        for task in card["tasks"]
    }
    kinds: dict[str, Any] = {}
    for task, prefix in combiner.prefixes.items():
        kinds.setdefault("probabilities" if prefix == "p" else "shares", {})[task] = shares[task]
    return {"label": label, "name": card["labels"][label], **kinds}


def _beside(module: str) -> Any:
    """A module in the folder of this file."""
    return importlib.import_module(module)


def _by_task(task: str, answers: Any, classes: dict[str, int]) -> dict[str, Any]:
    """A member's answers (1, C) for each task: a joint network answers with labels, whose sums are the tasks' answers."""
    if task != "joint":
        return {task: answers}
    cube = answers.reshape(len(answers), *classes.values())
    axes = range(1, cube.ndim)
    return {
        name: cube.sum(axis=tuple(axis for axis in axes if axis != own_axis))
        for own_axis, name in zip(axes, classes, strict=True)
    }


def _run(session: Any, windows: Any) -> Any:
    return session.run(None, {"windows": windows})


def _card(folder: Path) -> dict[str, Any]:
    """The card beside this file, where every file that it names is the one that was exported."""
    try:
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        digest = card.pop("digest")
        text = json.dumps(card, sort_keys=True, separators=(",", ":"), allow_nan=False)
        if digest != hashlib.sha256(text.encode()).hexdigest():
            raise ValueError("its contents do not match the digest in it")
        hashes = _networks(card) | card["programs"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        sys.exit(
            f"{folder / 'card.json'}: not the card of an export ({type(error).__name__}: {error}). Copy the whole export again."
        )
    wrong = [name for name, sha256 in hashes.items() if _sha256(folder / name) != sha256]
    if wrong:
        sys.exit(f"{folder}: missing, or not as exported: {', '.join(wrong)}. Copy the whole export again.")
    return dict(card)


def _networks(card: dict[str, Any]) -> dict[str, str]:
    """File -> sha256 of the networks that a card names."""
    hashes: dict[str, str] = {member["file"]: member["sha256"] for member in card["members"]}
    hashes |= card.get("detector", {}).get("sha256", {})
    return hashes


def _sessions(folder: Path, card: dict[str, Any]) -> dict[str, Any]:
    """The networks that a card names, ready to run."""
    return {
        name: onnxruntime.InferenceSession((folder / name).read_bytes(), providers=["CPUExecutionProvider"])
        for name in _networks(card)
    }


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def main() -> None:
    """Answers for the photos named on the command line."""
    parser = argparse.ArgumentParser(
        description="Answers for photos with an exported ensemble.",
        epilog="Prints one JSON object per photo: label, name, and each task's probabilities; for a photo that cannot be "
        "read its path and error. Exit code: 0, or 1 when a photo could not be read, or 2 when there is nothing to answer for "
        "or answers cannot be written.",
    )
    parser.add_argument("photos", metavar="PHOTO", nargs="+", help="a photo: JPEG, PNG, WebP or BMP")
    photos = parser.parse_args().photos
    if sys.getfilesystemencoding().lower() not in ("utf-8", "utf8"):  # engines open files by names in UTF-8 alone
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    if sys.stdout is None:  # closed: answers for nobody
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  (as long as the process)
    folder = Path(__file__).parent
    card = _card(folder)
    sessions: dict[str, Any] = {}  # loaded for the first photo that can be read
    failed = 0
    for path in map(Path, photos):
        try:
            photo = decode(path)
        except Exception as error:  # Pillow raises anything on damaged bytes: the other photos still get their answers
            failed += 1
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            record: dict[str, Any] = {"path": str(path), "error": f"cannot be read as a photo: {reason}"}
        else:
            sessions = sessions or _sessions(folder, card)
            record = {"path": str(path), **answer(photo, card, sessions)}
        try:
            sys.stdout.write(json.dumps(record, allow_nan=False) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:  # the reader has seen enough, as in `| head -1`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            break
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.stderr.write(f"answers cannot be written: {error.strerror}\n")
            sys.exit(2)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
