"""Decision: whether a change of structure may land: two checkouts, on one machine, must give the same bits.

Draws synthetic people once, lets each checkout train, fuse, predict, export and label them by the same commands, and holds the
results against each other: weights by their bytes, tables and JSON value by value, texts too, each at its own path (as
`[3].probabilities.age.<30`). Fields that were renamed are listed in `RENAMED`. A later checkout may have more fields; times are
left out.

    git worktree add ../before COMMIT
    python benchmarks/compare_results.py ../before . --out /tmp/results
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

TINY = """
backbone = "test_efficientnet"
weights = "none"
height = 32
width = 32
epochs = 2
batch_size = 16
frozen_stages = 0
evaluate_every = 1
"""
ENGINES = ("torch", "onnx", "openvino")

LEFT_OUT = {"created", "seconds", "minutes"}
"""Fields that differ from run to run."""

RENAMED = {
    "swayed": "changed_by_external",
    "outside": "external",
    "outside-1.parquet": "external-1.parquet",
    "plan_digest": "plan",
    "log_loss_growth": "log_loss_change",
    "log_loss_growth_interval_95": "log_loss_change_interval_95",
    **{f"p({name})": f"p(mask {name})" for name in ("wear", "incorrect", "not_wear")},
    **{f"p({name})": f"p(gender {name})" for name in ("male", "female")},
    **{f"p({name})": f"p(age {name})" for name in ("<30", "30-59", ">=60")},
}
"""What fields, columns and files were called at commit 053aca2 -> what they are called now."""

SHOWN = 5  # paths that are printed of a result that differs

LeafPath = tuple[str, ...]
MISSING = object()


class Checkout:
    """A checkout whose commands are run in a folder of its own.

    Args:
        root: of the checkout.
        folder: where its commands work.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder = root.absolute(), folder.absolute()
        module = (self.root / "orchestrator" / "__main__.py").is_file()
        start = "from orchestrator.cli.app import program; program()"
        self._program = [sys.executable, *(["-m", "orchestrator"] if module else ["-c", start])]
        self.folder.mkdir(parents=True)

    def orch(self, *words: object) -> str:
        """Runs a command; returns what it printed to stdout."""
        environment = {**os.environ, "PYTHONPATH": str(self.root), "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "passive"}
        environment.pop("ORCH_WORKSPACE", None)
        done = subprocess.run(
            [*self._program, *map(str, words)],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        print(f"  {self.root.name}: orch {' '.join(map(str, words))}", flush=True)
        if done.returncode:
            sys.exit(f"{done.stderr}\nexit code {done.returncode}")
        return done.stdout

    def results(self, people: Path) -> Iterator[tuple[str, Any]]:
        """What the commands give, by name: bytes as hashes, tables as frames, JSON as it is."""
        (self.folder / "tiny.toml").write_text(TINY, encoding="utf-8")
        data = ("--data", people / "train", "--jobs", 1)
        self.orch("train-all", *data, "--folds", 3, "--recipe", "tiny.toml")
        self.orch("train", "age", *data, "--set", "lr=0.003", "--set", "loss=focal", "--seed", 2)
        self.orch("train", "gender", *data, "--fold", 1, "--seed", 5)
        self.orch("train", "joint", *data, "--recipe", "tiny.toml")
        self.orch("tta", "mask-0001", "--views", "flip", "--keep")
        runs = self.folder / "runs"
        for path in sorted(runs.glob("*/*/weights.safetensors")):
            yield f"{path.parent.parent.name} {path.parent.name} weights", hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(runs.glob("*/*/held_out.parquet")):
            yield f"{path.parent.parent.name} {path.parent.name} held out", pd.read_parquet(path)
        ensembles = {
            "soft-0001": ("--strategy", "soft"),
            "hard-0001": ("--strategy", "hard", "--members", "age=age-0001,age-0002"),
            "soft-0002": ("--strategy", "soft", "--members", "age=age-0001,age-0002", "--members", "joint=joint-0001"),
            "soft-0003": ("--strategy", "soft", "--with", people / "old.csv"),
        }
        for name, words in ensembles.items():
            yield f"{name} scores", json.loads(self.orch("ensemble", *words, "--json"))
            for path in sorted((runs / name).glob("*.parquet")):
                yield f"{name} {RENAMED.get(path.name, path.name)}", pd.read_parquet(path)
            yield f"{name} disagreements", (runs / name / "disagreements.csv").read_text(encoding="utf-8")
        images = people / "eval" / "images"
        for name in ensembles:
            for engine in ENGINES if name == "soft-0001" else ENGINES[:1]:
                printed = self.orch(
                    "predict", images, "--ensemble", name, "--engine", engine, "--json", "--precision", "fp32"
                )
                yield f"{name} predictions by {engine}", json.loads(printed)
            out = f"{name}.csv"
            self.orch("predict", "--eval", people / "eval", "--ensemble", name, "--engine", "torch", "--out", out)
            yield f"{name} submission", (self.folder / out).read_text(encoding="utf-8")
            self.orch("predict", images, "--ensemble", name, "--engine", "torch", "--out", f"{name}.parquet")
            yield f"{name} table", pd.read_parquet(self.folder / f"{name}.parquet")
        printed = self.orch("predict", images, "--ensemble", "hard-0001", "--engine", "torch", "--cascade", "--json")
        yield "cascade", json.loads(printed)
        self.orch(
            "pseudo", "--eval", people / "eval", "--ensemble", "soft-0001", "--out", "pseudo.csv", "--threshold", 0.5
        )
        yield "pseudo-labels", (self.folder / "pseudo.csv").read_text(encoding="utf-8").replace(str(self.folder), "")
        self.orch("export", "--ensemble", "soft-0001", "--out", "exported")
        photos = sorted(map(str, images.iterdir()))
        program = [sys.executable, str(self.folder / "exported" / "predict.py"), *photos]
        done = subprocess.run(program, capture_output=True, text=True, check=True)
        yield "exported program", [json.loads(line) for line in done.stdout.splitlines()]
        yield "comparison", json.loads(self.orch("runs", "compare", "age-0001", "age-0002", "--json"))


def leaves(value: Any, path: LeafPath = ()) -> dict[LeafPath, Any]:
    """What a result holds, by path: numbers and texts of JSON, columns of a table with their type, lines of a text.

    Each list, table and text also has its length, so that nothing can be added to it unseen.
    """
    if isinstance(value, dict):
        parts = [leaves(item, (*path, key)) for key, item in value.items() if key not in LEFT_OUT]
    elif isinstance(value, list):
        parts = [leaves(item, (*path, f"[{number}]")) for number, item in enumerate(value)]
        parts.append({(*path, "length"): len(value)})
    elif isinstance(value, pd.DataFrame):
        parts = [{(*path, name): (str(column.dtype), column.tolist())} for name, column in value.items()]
        parts.append({(*path, "length"): len(value)})
    elif isinstance(value, str) and "\n" in value:
        parts = [leaves(value.split("\n"), (*path, "lines"))]
    else:
        parts = [{path: value}]
    return {key: leaf for part in parts for key, leaf in part.items()}


def differences(first: Any, other: Any) -> list[str]:
    """The paths at which a later result lacks what an earlier one has, or has another value; numbers to the bit."""
    later = leaves(other)
    wrong = []
    for path, value in leaves(first).items():
        renamed = tuple(RENAMED.get(part, part) for part in path)
        now = later.get(path, later.get(renamed, MISSING))
        expected = RENAMED.get(value, value) if isinstance(value, str) else value
        if repr(now) not in (repr(value), repr(expected)):
            wrong.append(".".join(path).replace(".[", "["))
    return wrong


def main() -> None:
    """Runs both checkouts and prints what differs; exit code 1 where something does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="a folder for people and workspaces; must be new")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True)
    people = arguments.out.absolute() / "people"
    before = Checkout(arguments.before, arguments.out / "before")
    before.orch("data", "synth", people, "--people", 24, "--eval-people", 6, "--seed", 3)
    shutil.copy(people / "eval" / "truth.csv", people / "old.csv")
    earlier = dict(before.results(people))
    after = dict(Checkout(arguments.after, arguments.out / "after").results(people))
    differ = 0
    for name in {**earlier, **after}:
        if name not in earlier or name not in after:
            paths = [f"only {'after' if name in after else 'before'}"]
        else:
            paths = differences(earlier[name], after[name])
        if paths:
            differ += 1
            more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
            print(f"differs: {name}: {', '.join(paths[:SHOWN])}{more}")
    print(f"{len(earlier)} results compared, {differ} differ")
    sys.exit(1 if differ else 0)


if __name__ == "__main__":
    main()
