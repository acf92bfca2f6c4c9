"""Writes the tree of the package into README.md (packages) and docs/architecture.md (modules), each with its purpose: the first
sentence of its docstring."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
ORDER = (
    "core", "combining", "data", "faces", "synthetic", "recipes", "models", "networks", "artifacts", "training", "ensembling",
    "execution", "inference", "pipeline", "experiments", "bench", "api", "cli",
)  # fmt: skip
"""Packages from the lowest layer up."""

TREE = re.compile(r"(```text\n)orchestrator/\n(?:  [^\n]*\n)+(.*?```)", re.DOTALL)
"""What stands in the documents: the tree from its first line to the end of its lines that are indented."""


def purpose_of(path: Path) -> str:
    """The first sentence of a module's docstring, in one line."""
    text = " ".join((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0].split())
    for end in (". ", ".\n"):
        text = text.split(end)[0]
    return text.rstrip(".:")


def tree(modules: bool) -> str:
    """The packages from the lowest layer up, with or without their modules, and what stands beside them.

    Raises:
        ValueError: a package is not in `ORDER`, or the other way round.
    """
    package = ROOT / "orchestrator"
    if differing := {path.parent.name for path in package.glob("*/__init__.py")} ^ set(ORDER):
        raise ValueError(f"docs/make_tree.py: ORDER and the packages differ: {', '.join(sorted(differing))}")
    lines = ["orchestrator/"]
    for folder in (package / name for name in ORDER):
        lines.append(f"  {folder.name + '/':<24} {purpose_of(folder / '__init__.py')}")
        if modules:
            lines += [f"    {path.name:<22} {purpose_of(path)}" for path in sorted(folder.glob("[a-z]*.py"))]
    lines += [f"  {path.name:<24} {purpose_of(path)}" for path in sorted(package.glob("[a-z]*.py"))]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for name, modules in (("README.md", False), ("docs/architecture.md", True)):
        text = (ROOT / name).read_text(encoding="utf-8")
        new = TREE.sub(lambda match, modules=modules: match[1] + tree(modules) + match[2], text, count=1)
        (ROOT / name).write_text(new, encoding="utf-8")
