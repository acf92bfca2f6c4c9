"""Writes the tree into README.md (packages of orchestrator/) and docs/architecture.md (their modules, models/ and tests/ too).

Each has its purpose: the first sentence of its docstring, or of a folder of tests its line in `TESTS`."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
ORDER = (
    "core", "combining", "data", "faces", "synthetic", "recipes", "models", "networks", "artifacts", "training", "ensembling",
    "execution", "inference", "pipeline", "experiments", "bench", "api", "cli",
)  # fmt: skip
"""Packages from the lowest layer up."""

TESTS = {
    "core": "Labels against their formula, scores against scikit-learn's, writes that survive a kill, errors with a way out",
    "combining": "Votes against rules written out in exact numbers, and every combiner as a value",
    "data": "Tables and folders with every kind of mistake, fold plans, pixels, batches: the same bits by every path",
    "faces": "Faces found where they are, by the weights that ship",
    "synthetic": "Drawn people: the same from the same seed, in the contest's layout",
    "recipes": "Settings in their layers, search spaces, and what lint reports",
    "specialists": "The facts of the three tasks and of the joint network",
    "networks": "Losses against references, heads, backbones, weight files, devices",
    "artifacts": "Records that are damaged, deleted, repaired, of other versions, or found by conditions",
    "training": "One member: what it learns, how it resumes to the same bits, what each technique does",
    "ensembling": "Out-of-fold scores, intervals over people, what an ensemble is built of, slices, and who is unseen",
    "execution": "Jobs side by side, and their events across processes",
    "inference": "Readers, runtimes, engines against torch, cascades, exports, pseudo-labels",
    "pipeline": "From settings to runs: checks before any work, runs found again, resumed and retrained",
    "experiments": "Grids, searches, tuning, trackers, views and comparisons",
    "bench": "What the benchmark measures, and the values that it returns",
    "api": "The examples of docs/api.md, and the library's promises beside the commands",
    "cli": "Commands as a user sees them, in terminals, pipes and odd locales",
    "e2e": "Real processes: kills, full disks, damage, an installation without extras, the README's tour",
    "benchmarks": "How benchmarks/ compares two checkouts",
}
"""What each folder of tests is about; those that are called as a package of orchestrator/ test that package."""


def purpose_of(path: Path) -> str:
    """The first sentence of a module's docstring, in one line."""
    text = " ".join((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0].split())
    for end in (". ", ".\n"):
        text = text.split(end)[0]
    return text.rstrip(".:")


def tree(modules: bool) -> str:
    """The packages of orchestrator/ from the lowest layer up; with modules also what stands beside them, models/ and tests/.

    Raises:
        ValueError: a package is not in `ORDER`, a folder of tests is not in `TESTS`, or the other way round.
    """
    package, tests = ROOT / "orchestrator", ROOT / "tests"
    for name, listed, folders in (
        ("ORDER", ORDER, package.glob("*/__init__.py")),
        ("TESTS", TESTS, tests.glob("*/test_*.py")),
    ):
        if differing := {path.parent.name for path in folders} ^ set(listed):
            raise ValueError(f"docs/make_tree.py: {name} and the folders differ: {', '.join(sorted(differing))}")
    lines = ["orchestrator/", *_packages([package / name for name in ORDER], modules)]
    if modules:
        lines += _modules(package, "  ")
        lines += [
            "models/",
            *_packages([path.parent for path in sorted((ROOT / "models").glob("*/__init__.py"))], modules),
        ]
        lines += [
            "tests/",
            *(f"  {name + '/':<24} {purpose}" for name, purpose in TESTS.items()),
            *_modules(tests, "  "),
        ]
    return "\n".join(lines) + "\n"


def _packages(folders: Sequence[Path], modules: bool) -> list[str]:
    """A line for each package, and with `modules` one for each module in it."""
    lines = []
    for folder in folders:
        lines.append(f"  {folder.name + '/':<24} {purpose_of(folder / '__init__.py')}")
        lines += _modules(folder, "    ") if modules else []
    return lines


def _modules(folder: Path, indent: str) -> list[str]:
    """A line for each module of a folder."""
    width = 26 - len(indent)
    return [f"{indent}{path.name:<{width}} {purpose_of(path)}" for path in sorted(folder.glob("[a-z]*.py"))]


def with_tree(text: str, modules: bool) -> str:
    """A document with its tree written anew: the whole block with modules, else its lines before `models/`, which are its own."""
    start = text.index("```text\norchestrator/\n") + len("```text\n")
    return text[:start] + tree(modules) + text[text.index("```" if modules else "models/\n", start) :]


if __name__ == "__main__":
    for name, modules in (("README.md", False), ("docs/architecture.md", True)):
        path = ROOT / name
        path.write_text(with_tree(path.read_text(encoding="utf-8"), modules), encoding="utf-8")
