"""Every file of a workspace that carries meaning, damaged in every way: the right answer, or an error that names the file and a
way out that works.

A fast test takes each kind of file through one or two damages with one command, a slow one with every command that reads it,
and another draws files, damages and bits at random. A file that no row of FILES names, and no word of EXEMPT, fails a test.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from orchestrator.core.strategies import Strategy
from orchestrator.specialists import SPECIALISTS
from tests.conftest import Done, tiny

Orch = Callable[..., Done]

DAMAGES = ("deleted", "truncated", "empty", "one bit", "of another", "another shape", "a folder", "a dangling link")
FOLDER_DAMAGES = ("deleted", "empty", "a dangling link")

FILES = {
    "workspace.json": ("runs list", "ensemble"),
    "plans/*.json": ("ensemble", "compare"),
    "photos/*.json": ("check",),
    "age-0001/run.json": ("runs list", "ensemble", "train-all"),
    "age-0001/notes.json": ("runs list", "runs show"),
    "age-0001/fold-1/member.json": ("ensemble", "runs show", "runs list", "train-all"),
    "age-0001/fold-1/weights.safetensors": ("ensemble", "predict", "train-all"),
    "age-0001/fold-1/held_out.parquet": ("ensemble", "compare", "train-all"),
    "age-0001/fold-1": ("ensemble", "runs show", "train-all"),
    "age-0001": ("predict", "ensemble"),
    "current/age.json": ("ensemble", "train age", "runs list", "train-all"),
    "current/ensemble.json": ("predict", "ensembles list"),
    "soft-0001/ensemble.json": ("predict", "ensembles list"),
    "soft-0001/out_of_fold.parquet": ("check", "ensemble"),
    "soft-0001/cascade.json": ("check",),
    "store/*/store.json": ("tta",),
    "store/*/pixels.npy": ("tta",),
    "cache/hashes.json": ("train-all",),
    "soft-0001/external-1.parquet": ("predict", "check"),
    "soft-0001/disagreements.csv": ("check",),
    "age-0001/tracking.json": ("track", "check"),
}
"""Pattern of a file -> the commands that read it."""

if importlib.util.find_spec("tensorboard") is None:  # nothing was sent to a tracker
    del FILES["age-0001/tracking.json"]

EXEMPT = {
    "*.lock": "a lock",
    "*/fold-*/history.json": "a log: what an epoch was like, read by people and trackers",
    "tensorboard/*": "the tracker's own",
}
"""Pattern of a file that carries no meaning -> what it is. Checkpoints, features, exports and sweeps have tests of their own."""

RIGHT: dict[str, Any] = {}
"""Command -> its answer in a whole workspace."""

OTHERS = {"age-0001": "age-0002", "soft-0001": "soft-0002"}
"""Whose like is put in the place of a file."""


@pytest.fixture(scope="module")
def whole(trained: Path, people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with everything in it: two runs of age, two ensembles, of which one has a table beside it, notes."""
    from orchestrator.artifacts.annotations import Annotations
    from orchestrator.artifacts.workspace import Workspace
    from orchestrator.core.sealed import write_sealed
    from orchestrator.ensembling.build import build_ensemble
    from orchestrator.ensembling.choosing import choose_runs
    from orchestrator.ensembling.external import read_external
    from orchestrator.pipeline.retraining import starting_point
    from orchestrator.pipeline.settings import Settings
    from orchestrator.pipeline.training import retrain
    from tests.conftest import TINY, Silent

    folder = tmp_path_factory.mktemp("damage") / "a b"
    shutil.copytree(trained, folder)
    workspace = Workspace(folder)
    settings = Settings(
        people / "train", folder, recipes=(), changes=TINY, folds=None, plan_seed=None, seed=1, jobs=1, device="cpu"
    )
    assert retrain(starting_point(settings, SPECIALISTS["age"]), Silent()).complete
    old = folder.parent / "old answers" / "s 1.csv"
    old.parent.mkdir()
    info = pd.read_csv(people / "eval" / "info.csv")
    info.assign(ans=[row % 18 for row in range(len(info))]).to_csv(old, index=False)
    first, second = (choose_runs(workspace, [f"age={run}"]) for run in ("age-0001", "age-0002"))
    build_ensemble(workspace, Strategy.parse(), first, SPECIALISTS, external=[read_external(old)])
    build_ensemble(workspace, Strategy.parse(), second, SPECIALISTS)
    for name in ("soft-0001", "soft-0002"):
        write_sealed(
            folder / name / "cascade.json", "cascade", name, 2, {"cascade": {"rate": 0.0, "sure": None, "spread": {}}}
        )
    workspace.set_current("age", "age-0001")
    workspace.set_current("ensemble", "soft-0001")
    for name in ("age-0001", "age-0002"):
        Annotations(f"of {name}", ("try",)).write(folder / name)
    if "age-0001/tracking.json" in FILES:
        from orchestrator.experiments.trackers import open_trackers
        from orchestrator.experiments.tracking import send

        (tracker,) = open_trackers(["tensorboard"], folder)
        for name in ("age-0001", "age-0002"):
            send(tracker, workspace.run(name))
        tracker.close()
    return folder


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures carry no meaning, and cost a second each."""
    monkeypatch.setattr("orchestrator.pictures.draw_evaluation", lambda *_: None)


def command(name: str, people: Path, workspace: Path) -> list[object]:
    """The words of a command that reads the workspace."""
    return {
        "runs list": ["runs", "list", "--json"],
        "runs show": ["runs", "show", "age-0001", "--json"],
        "ensembles list": ["ensembles", "list", "--json"],
        "ensemble": ["ensemble", "--json"],
        "compare": ["runs", "compare", "age-0001", "age-0002", "--json"],
        "predict": ["predict", people / "eval" / "images", "--json"],
        "tta": ["tta", "age-0001", "--json"],
        "check": ["workspace", "check", "--json"],
        "track": ["runs", "track", "age-0001", "--to", "tensorboard"],
        "train age": ["train", "age", "--data", people / "train", "--jobs", 1, "--json"],
        "train-all": ["train-all", "--data", people / "train", "--folds", 3, "--jobs", 1, "--json", *tiny()],
    }[name] + ["--workspace", workspace]


def answer_of(name: str, done: Done) -> Any:
    """What must be the same whatever was damaged and mended."""
    assert done.code == 0, done.err + done.out
    if name == "track":  # what was sent lies with the tracker
        return None
    result = json.loads(done.out)
    if name == "runs list":
        return [{key: run[key] for key in ("id", "status", "score", "note", "recipe", "seed")} for run in result]
    if name == "runs show":
        return {key: result[key] for key in ("id", "status", "score", "recipe", "files")}
    if name == "ensembles list":
        return sorted(ensemble["strategy"] for ensemble in result)
    if name == "ensemble":
        return result["evaluation"]
    if name == "predict":
        return [(answer["path"], answer["label"], answer["probabilities"]) for answer in result]
    if name in ("train age", "train-all"):
        return [(run["id"], run["status"], run["score"], run["files"]) for run in result["runs"]]
    if name == "check":
        return result["in_order"]
    return result


def format_of(data: bytes) -> object:
    """The format that a manifest names, so that another shape is never taken for an older version's; 1 for any other file."""
    try:
        return json.loads(data)["format"]
    except (ValueError, KeyError, TypeError):
        return 1


def damage(path: Path, how: str, other: Path, bit: int) -> bool:
    """Damages a file; False where that makes no sense for it."""
    if path.is_dir():
        if how not in FOLDER_DAMAGES:
            return False
        shutil.rmtree(path)
        if how == "empty":
            path.mkdir()
        elif how == "a dangling link":
            path.symlink_to("nowhere")
        return True
    data = path.read_bytes()
    if how == "of another":
        if not other.is_file() or other.read_bytes() == data:
            return False
        data = other.read_bytes()
    path.unlink()  # first: members' files are shared between runs by hard links
    if how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "one bit":
        flipped = bytearray(data)
        flipped[bit // 8 % len(data)] ^= 1 << bit % 8
        path.write_bytes(flipped)
    elif how == "of another":
        path.write_bytes(data)
    elif how == "another shape":
        path.write_text(json.dumps({"format": format_of(data), "members": [1, {"a": None}], "digest": "0"}))
    elif how == "a folder":
        path.mkdir()
    elif how == "a dangling link":
        path.symlink_to("nowhere")
    return True


def take_the_way_out(orch: Orch, output: str) -> list[str]:
    """Runs the commands that an error prints, in their order."""
    commands = [part for part in re.findall(r"`([^`]+)`", output) if part.startswith(("orch ", "mv "))]
    assert commands, f"no way out in: {output}"
    for words in dict.fromkeys(commands):
        if words.startswith("mv "):
            subprocess.run(shlex.split(words), check=True)
        elif not {"PHOTOS", "KIND"} & {
            *shlex.split(words)
        }:  # on which photos to measure, whom to tell: for the user to say
            done = orch(*shlex.split(words)[1:])
            left = "workspace repair" in words and "`orch" in done.err  # 1: something is left to do
            assert done.code in ((0, 1) if left else (0,)), f"{words}: {done.err}"
            if "`orch" in done.err and "workspace repair" in words:  # it says what is left to do
                take_the_way_out(
                    orch, "\n".join(line for line in done.err.splitlines() if "rewritten" in line or "`" in line)
                )
    return commands


def check(orch: Orch, people: Path, whole: Path, folder: Path, pattern: str, reader: str, how: str, bit: int) -> str:
    """One file, one damage, one command: returns how it ended."""
    if reader not in RIGHT:
        RIGHT[reader] = answer_of(reader, orch(*command(reader, people, whole_copy(whole, folder.parent / "right"))))
    right = RIGHT[reader]
    copy = whole_copy(whole, folder)
    (path, *_) = sorted(copy.glob(pattern))
    other = Path(str(path).replace(*next(((a, b) for a, b in OTHERS.items() if a in pattern), ("\0", ""))))
    if pattern.startswith("current/"):
        other = copy / "current" / "mask.json"
    if not damage(path, how, other, bit):
        return "no such damage"
    for _ in range(3):  # a way out may end at the next thing that is wrong
        done = orch(*command(reader, people, copy))
        assert done.code != 70, done.err
        assert "Traceback" not in done.err
        if done.code == 0:
            break
        assert path.name in done.err + done.out, done.err
        assert str(path) in done.err + done.out or str(path.relative_to(copy)) in done.err + done.out, done.err
        take_the_way_out(orch, done.err + done.out)
    answer = answer_of(reader, done)
    chosen_anew = (pattern == "age-0001" or pattern.startswith(("soft-0001/ensemble.json", "current/"))) and reader in (
        "ensemble",
        "ensembles list",
        "predict",
    )
    if not chosen_anew:  # what is current, and of what an ensemble is made anew, is for people to choose
        assert blind(answer, pattern) == blind(right, pattern), f"{pattern} {how} {reader}"
    return "right"


def blind(answer: Any, pattern: str) -> Any:
    """Without what a way out gives up in words: the note that was in a damaged file."""
    if isinstance(answer, list) and answer and isinstance(answer[0], dict) and pattern.endswith("notes.json"):
        return [{key: value for key, value in entry.items() if key != "note"} for entry in answer]
    return answer


def whole_copy(whole: Path, folder: Path) -> Path:
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(whole, folder, symlinks=True)
    return folder


def test_every_file_of_a_workspace_is_walked_or_exempt(whole: Path) -> None:
    kinds = [re.sub(r"[a-z]+-0001/", "*-????/", pattern).replace("fold-1", "fold-*") for pattern in FILES]
    kinds += ["current/*.json"]
    files = [path.relative_to(whole).as_posix() for path in sorted(whole.rglob("*")) if not path.is_dir()]
    assert len(files) > 60
    forgotten = [file for file in files if not any(fnmatch(file, kind) for kind in (*kinds, *EXEMPT))]
    assert not forgotten, f"neither in FILES nor in EXEMPT: {', '.join(forgotten)}"
    idle = [pattern for pattern in FILES if not any(whole.glob(pattern))]
    idle += [kind for kind in EXEMPT if not any(fnmatch(file, kind) for file in files)]
    assert not idle, f"no file is like {', '.join(idle)}"


def quick_damages(pattern: str) -> tuple[str, ...]:
    """One or two for a kind of file, the hardest to see among them."""
    if "." not in pattern:
        return ("deleted",)
    like = pattern.startswith("current/") or any(map(pattern.count, OTHERS))
    return "one bit", "of another" if like and pattern.endswith(".json") else "deleted"


def slow_damages(pattern: str, number: int) -> tuple[str, ...]:
    """All of a folder, two of a file: others for each file."""
    if "." not in pattern:
        return FOLDER_DAMAGES
    return tuple(DAMAGES[(number + step) % len(DAMAGES)] for step in (0, 3))


@pytest.mark.parametrize(("pattern", "how"), [(pattern, how) for pattern in FILES for how in quick_damages(pattern)])
def test_no_kind_of_file_is_believed_when_damaged(
    orch: Orch, people: Path, whole: Path, tmp_path: Path, pattern: str, how: str
) -> None:
    reader, *_ = FILES[pattern]
    assert check(orch, people, whole, tmp_path / "a b", pattern, reader, how, 4001) == "right"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pattern", "how"),
    [(pattern, how) for number, pattern in enumerate(FILES) for how in slow_damages(pattern, number)],
)
def test_a_damaged_file_is_named_and_the_way_out_works(
    orch: Orch, people: Path, whole: Path, tmp_path: Path, pattern: str, how: str
) -> None:
    for reader in FILES[pattern]:
        check(orch, people, whole, tmp_path / "a b", pattern, reader, how, 4001)


@pytest.mark.slow
def test_files_damages_and_bits_drawn_at_random(orch: Orch, people: Path, whole: Path, tmp_path: Path) -> None:
    """ORCH_DAMAGE_SEED and ORCH_DAMAGE_DRAWS draw others, and more: the whole matrix was gone through when this was written."""
    draw = random.Random(int(os.environ.get("ORCH_DAMAGE_SEED", "0")))
    endings = []
    for _ in range(int(os.environ.get("ORCH_DAMAGE_DRAWS", "8"))):
        pattern, how, bit = draw.choice(list(FILES)), draw.choice(DAMAGES), draw.randrange(2**20)
        endings.append(check(orch, people, whole, tmp_path / "a b", pattern, draw.choice(FILES[pattern]), how, bit))
    assert endings.count("right") >= len(endings) // 2
