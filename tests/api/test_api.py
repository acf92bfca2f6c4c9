"""The examples of docs/api.md, run as they stand, and what the library promises beside the commands."""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import os
import re
import shutil
import subprocess
import sys
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from orchestrator import api
from orchestrator.core.errors import ConfigError
from orchestrator.core.events import Listener
from orchestrator.data.preprocessing import decode
from orchestrator.execution.executor import JobResult
from orchestrator.execution.local import LocalExecutor
from orchestrator.synthetic.people import write_people
from orchestrator.training.job import MemberJob
from tests.conftest import ROOT, TINY

FUNCTIONS = [getattr(api, name) for name in api.__all__ if inspect.isfunction(getattr(api, name))]


def examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs/api.md").read_text(), re.DOTALL)


@pytest.mark.slow
def test_the_examples_run_as_they_stand(tmp_path: Path) -> None:
    write_people(tmp_path / "people", 30, 8, 0)
    assert len(examples()) >= 8
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(examples())], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "--engine onnxx; allowed: auto, torch, onnx, openvino. Did you mean 'onnx'?" in done.stdout
    assert len((tmp_path / "submission.csv").read_text().splitlines()) == 1 + 8 * 7
    assert re.search(r"^age-0003 1 1 \d\.\d", done.stdout, re.MULTILINE)  # an event's line
    assert "[('age-0004', 0), ('age-0004', 1)]\nTrue\n" in done.stdout


def test_every_function_is_in_the_table_and_described() -> None:
    page = (ROOT / "docs/api.md").read_text()
    assert len(FUNCTIONS) >= 40
    for function in FUNCTIONS:
        assert f"| `{function.__name__}(" in page
        arguments = list(inspect.signature(function).parameters.values())
        described = re.findall(r"^    (\w+): ", inspect.getdoc(function) or "", re.MULTILINE)
        assert [argument.name for argument in arguments] == [name for name in described if not name.endswith("Error")]
        positional = [argument for argument in arguments if argument.kind is not inspect.Parameter.KEYWORD_ONLY]
        assert len(positional) <= 2, function.__name__


def test_everything_public_has_one_home() -> None:
    named = [name for names in api.HOMES.values() for name in names]
    assert sorted(named) == sorted(api.__all__)
    assert all(
        getattr(api, name) is getattr(importlib.import_module(home), name)
        for home, names in api.HOMES.items()
        for name in names
    )
    assert set(api.__all__) <= set(dir(api))
    with pytest.raises(AttributeError, match=r"module 'orchestrator\.api' has no attribute 'tarin'"):
        _ = api.tarin  # type: ignore[attr-defined]  # a name that is not there


def test_importing_it_imports_nothing_heavy() -> None:
    code = "import sys, orchestrator.api; sys.exit(','.join({'torch', 'pandas', 'timm', 'sklearn'} & set(sys.modules)) or 0)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr


def test_paths_may_be_words(people: Path, workspace: Path) -> None:
    built = api.ensemble(workspace=str(workspace))
    photo = sorted((people / "eval" / "images").iterdir())[0]
    prediction = api.predict([str(photo)], workspace=str(workspace), device="cpu")
    assert prediction.ensemble == built.record.id
    assert prediction.answers == api.predict([photo], workspace=workspace, device="cpu").answers


def test_a_predictor_takes_paths_words_bytes_and_pixels(people: Path, workspace: Path) -> None:
    api.ensemble(workspace=workspace)
    photo = sorted((people / "eval" / "images").iterdir())[0]
    predictor = api.load_predictor(workspace=workspace, device="cpu")
    (batch,) = predictor.predict([photo, str(photo), photo.read_bytes(), decode(photo)])
    assert batch.combined is not None
    assert len(set(batch.combined.label.tolist())) == 1
    assert batch.photos[0] == batch.photos[1] == photo
    names = (str(photo), str(photo), "photo 2", "photo 3")
    assert predictor.answers([photo, str(photo), photo.read_bytes(), decode(photo)]).photos == names
    predictor.close()
    with api.load_predictor(workspace=workspace, device="cpu", precision="fp32") as exact:  # torch needs no sample
        assert {runner.tail.precision for runner in exact.runtime.runners} == {"fp32"}


@dataclass(frozen=True)
class Elsewhere:
    """An executor of somebody else's: it says how many jobs it takes, and with how many threads, and keeps who came."""

    came: list[str] = field(default_factory=list)

    def parallelism(self, jobs: int, device: str, threads: int = 0) -> tuple[int, int]:
        return 1, threads or 3

    def run(self, jobs: Sequence[MemberJob], at_once: int, listen: Listener) -> list[JobResult]:
        self.came.extend(f"{job.run}/{job.fold}" for job in jobs)
        return LocalExecutor(1).run(jobs, at_once, listen)


def test_a_predictor_that_is_kept_runs_on_the_engine_asked_for(people: Path, exported: Path, tmp_path: Path) -> None:
    workspace = Path(shutil.copytree(exported, tmp_path / "runs"))
    api.ensemble(workspace=workspace)
    photos = sorted((people / "eval/images").iterdir())[:5]
    labels = []
    calls = {"torch": {"TorchCall"}, "onnx": {"OnnxCall"}, "auto": {"TorchCall", "OnnxCall", "OpenVinoCall"}}
    for engine, possible in calls.items():
        with api.load_predictor(
            workspace=workspace, device="cpu", engine=engine, precision="fp32", sample=photos
        ) as predictor:
            names = {type(runner.tail).__name__ for runner in predictor.runtime.runners}
            assert names <= possible
            (batch,) = predictor.predict(photos)
        labels.append(batch.combined.label.tolist() if batch.combined else None)
    assert labels[0] == labels[1] == labels[2]
    with pytest.raises(api.OrchestratorError) as refused:
        api.load_predictor(workspace=workspace, engine="onnx", precision="half")
    assert "--precision half; allowed: auto, fp32" in str(refused.value)
    assert "--engine onnx: give `sample`, photos on which it is checked against torch." in str(refused.value)


def test_a_service_that_has_bytes_alone_can_choose_an_engine(people: Path, exported: Path, tmp_path: Path) -> None:
    workspace = Path(shutil.copytree(exported, tmp_path / "runs"))
    api.ensemble(workspace=workspace)
    photos = sorted((people / "eval/images").iterdir())[:3]
    sample = [photos[0].read_bytes(), decode(photos[1]), photos[2]]
    with api.load_predictor(workspace=workspace, device="cpu", engine="onnx", sample=sample) as predictor:
        assert {type(runner.tail).__name__ for runner in predictor.runtime.runners} == {"OnnxCall"}
        answers = predictor.answers(sample)
    assert answers.label.tolist() == api.predict(photos, workspace=workspace, device="cpu").answers.label.tolist()
    with pytest.raises(ConfigError, match="photo 1 is a int; allowed: a path, a file's bytes, or an array of pixels"):
        api.load_predictor(workspace=workspace, engine="onnx", sample=[photos[0], 7])  # type: ignore[list-item]  # what is refused


def test_what_the_command_line_would_refuse_the_library_refuses_too(people: Path, tmp_path: Path) -> None:
    settings = settings_for(people, tmp_path / "runs")
    for call, parts in (
        (lambda: api.train_all(replace(settings, folds_used=-1)), ["--folds-used -1"]),
        (lambda: api.train("age", replace(settings, seed=-1, plan_seed=-1)), ["--seed -1", "--plan-seed -1"]),
        (lambda: api.train_all(settings, tasks="age"), ["tasks = 'age'"]),
        (lambda: api.train_grid("age", settings, grid="lr=1e-3,2e-3"), ["grid = 'lr=1e-3,2e-3'"]),
        (lambda: api.search("age", settings, trials=0, minutes=-1), ["--trials 0", "--minutes -1"]),
        (
            lambda: api.tune("age", replace(settings, folds=-1), stages=["loss"], small=0.1, trials=0),
            ["--small 0.1; allowed: 0.3 to 1", "--trials 0", "--folds -1"],
        ),
        (lambda: api.tta("age-0001", views="flip", workspace=tmp_path), ["views = 'flip'"]),
        (lambda: api.bench("voting"), ["parts = 'voting'"]),
        (lambda: api.bench(rounds=0, photos=0, out=tmp_path / "bench"), ["--rounds 0", "--photos 0"]),
        (lambda: api.plan_folds(people / "train", folds=3, seed=-1), ["--seed -1"]),
        (lambda: api.synthesise(tmp_path / "p", eval_people=-1, seed=-1), ["--eval-people -1", "--seed -1"]),
        (lambda: api.tracking("mlflow").__enter__(), ["to = 'mlflow'"]),
    ):  # fmt: skip
        with pytest.raises(api.OrchestratorError) as refused:
            call()
        assert all(part in refused.value.message for part in parts), refused.value.message
    assert not list(tmp_path.iterdir())


def settings_for(people: Path, workspace: Path, **more: Any) -> api.Settings:
    return api.Settings(people / "train", workspace, recipes=(), changes=TINY, folds=2, seed=5, device="cpu", **more)


@pytest.mark.slow
def test_whatever_trains_does_so_where_the_settings_say(people: Path, tmp_path: Path) -> None:
    executor, workspace = Elsewhere(), tmp_path / "runs"
    settings = settings_for(people, workspace, executor=executor)
    assert api.train_all(settings, tasks=["mask"]).complete
    assert executor.came == ["mask-0001/0", "mask-0001/1"]
    executor.came.clear()
    report = api.train_grid("age", settings, grid=["lr=1e-3,2e-3"])
    assert sorted(executor.came) == [f"age-000{run}/{fold}" for run in (1, 2) for fold in (0, 1)]
    assert {run.threads for run in report.runs} == {3}
    executor.came.clear()
    (tmp_path / "space.toml").write_text("lr = [1e-3, 3e-3]\n")
    result = api.search("age", settings, space=tmp_path / "space.toml", trials=2)
    assert result.ended == 2
    assert executor.came  # the reference and both trials, but for those that the grid has trained
    executor.came.clear()
    (workspace / "mask-0001" / "fold-1" / "weights.safetensors").unlink()
    assert api.resume("mask-0001", workspace=workspace, device="cpu", executor=executor).complete
    assert executor.came == ["mask-0001/1"]


@pytest.mark.slow
def test_whatever_trains_can_be_asked_to_stop_and_goes_on(people: Path, tmp_path: Path) -> None:
    stop = api.CancelFile(tmp_path / "stop")
    settings = settings_for(people, tmp_path / "runs", jobs=1, cancel=(stop,))
    stop.cancel()
    report = api.train_grid("age", settings, grid=["lr=1e-3,2e-3"])
    assert (len(report.cancelled), report.failures, report.complete) == (4, {}, False)
    (tmp_path / "space.toml").write_text("lr = [1e-3, 3e-3]\n")
    with pytest.raises(api.CancelledError):
        api.search("age", settings, space=tmp_path / "space.toml", trials=2)
    with pytest.raises(api.CancelledError):
        api.tune("age", settings, stages=["loss"], trials=2)
    stop.path.unlink()
    result = api.search("age", settings, space=tmp_path / "space.toml", trials=2)
    assert [trial.state for trial in result.trials] == ["complete", "complete"]
    assert api.train_grid("age", settings, grid=["lr=1e-3,2e-3"]).complete


def test_every_type_that_a_function_takes_or_returns_can_be_named() -> None:
    """By `from orchestrator.api import ...`: code that keeps a result needs its type."""
    missing = {
        node.id
        for function in map(inspect.unwrap, FUNCTIONS)
        for annotation in function.__annotations__.values()
        for node in ast.walk(ast.parse(annotation, mode="eval"))
        if isinstance(node, ast.Name) and not any(hasattr(module, node.id) for module in (api, builtins, typing))
    }
    assert missing == set()


def sequences() -> list[tuple[str, str]]:
    """Every function of the library with each of its arguments that is a sequence."""
    functions = {name: getattr(api, name) for name in api.__all__ if inspect.isfunction(getattr(api, name))}
    return [
        (name, argument)
        for name, function in functions.items()
        for argument, kind in function.__annotations__.items()
        if str(kind).startswith("Sequence[")
    ]


def call(name: str, argument: str, value: object) -> None:
    """Calls a function of the library with one argument, and None for the others that it needs."""
    function = getattr(api, name)
    needed = [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is parameter.empty and parameter.name != argument
    ]
    result = function(**dict.fromkeys(needed), **{argument: value})
    with result:  # `tracking` is a context
        pass


@pytest.mark.parametrize(("name", "argument"), sequences())
def test_one_text_is_not_taken_for_a_sequence(name: str, argument: str) -> None:
    """Letter by letter, `/` would be a photo's folder, and `keep` four tags."""
    for text in ("a/b", Path("a/b")):
        with pytest.raises(
            ConfigError, match=rf"{argument} = 'a/b': a sequence is needed, even of one: write {argument}="
        ):
            call(name, argument, text)


def arguments() -> list[tuple[str, str]]:
    """Every function of the library with each of its arguments, but what only a type checker knows."""
    functions = {name: getattr(api, name) for name in api.__all__ if inspect.isfunction(getattr(api, name))}
    return [
        (name, argument)
        for name, function in functions.items()
        for argument in inspect.signature(function).parameters
        if argument not in ("run", "executor", "cancel", "settings") or function.__annotations__[argument] == "str"
    ]


@pytest.mark.parametrize(("name", "argument"), arguments())
def test_a_value_of_another_type_is_refused_by_every_function(name: str, argument: str) -> None:
    class Other:
        def __repr__(self) -> str:
            return "a table\nof several lines"

    with pytest.raises(ConfigError, match=rf"(^|\n){argument} is a Other, and must be "):
        call(name, argument, Other())


def test_wrong_types_are_named_together() -> None:
    with pytest.raises(ConfigError) as error:
        api.cascade([5, "photo.jpg"], rate="0.1", device=None, distinct_people=1)  # type: ignore[list-item, arg-type]  # what is refused
    assert str(error.value).splitlines() == [
        "photos[0] is 5, and must be str | PathLike[str].",
        "rate is '0.1', and must be float.",
        "device is None, and must be str.",
        "distinct_people is 1, and must be bool.",
    ]
    with pytest.raises(ConfigError) as error:
        api.Settings(data=7, folds="2", seed=1.5, recipes=[3], store="yes", columns={"path": 1})  # type: ignore[arg-type, list-item, dict-item]  # likewise
    assert str(error.value).splitlines() == [
        "data is 7, and must be str | PathLike[str].",
        "columns.path is 1, and must be str.",
        "recipes[0] is 3, and must be str | PathLike[str].",
        "folds is '2', and must be int | None.",
        "seed is 1.5, and must be int.",
        "store is 'yes', and must be bool.",
    ]


def test_numpys_numbers_and_pandas_columns_are_pythons_inside(people: Path, trained: Path) -> None:
    """A plan's digest and a run's record are JSON, which knows no others; and `if photos` fails for a column."""
    settings = api.Settings(people / "train", trained, folds=np.int64(3), seed=np.uint8(3), plan_seed=np.int32(1))
    assert [type(number) for number in (settings.folds, settings.seed, settings.plan_seed)] == [int] * 3
    planned = api.plan_folds(people / "train", folds=np.int64(3), seed=np.uint8(1))
    assert planned.plan.digest == api.plan_folds(people / "train", folds=3, seed=1).plan.digest
    assert list(api.tta("gender-0001", views=np.array(["flip"]), workspace=trained).effect.views) == ["flip"]
    with pytest.raises(ConfigError, match="only runs of one specialist"):
        api.compare(pd.Series(["age-0001", "gender-0001"]), workspace=trained)


def test_training_starts_from_the_run_that_is_named(people: Path, three_runs: Path) -> None:
    """Its recipe and its plan, as `orch train --base` does; the current run, age-0003, has another loss and other folds."""
    api.use_run("age-0003", workspace=three_runs)
    settings = api.Settings(people / "train", three_runs, changes=["epochs=1"], jobs=1, device="cpu")
    (run,) = api.train("age", settings, base="age-0001").runs
    base, current = (api.run_details(name, workspace=three_runs).run for name in ("age-0001", "age-0003"))
    assert run.recipe == {**base.recipe, "epochs": 1}
    assert run.plan == base.plan
    assert (current.recipe["loss"], current.plan) != (base.recipe["loss"], base.plan)
    api.use_run("age-0003", workspace=three_runs)
    (run,) = api.train_grid("age", settings, grid=["lr=7e-3"]).runs
    assert run.recipe == {**current.recipe, "epochs": 1, "lr": 7e-3}
    assert run.plan == current.plan


def test_a_recipe_may_be_a_path(people: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    api.copy_recipe("age", "quick", to=recipe)
    assert api.load_recipe("age", recipe) == api.load_recipe("age", str(recipe))
    settings = api.Settings(people / "train", recipes=[recipe])
    assert settings.recipes == (str(recipe),)
    assert settings == api.Settings(str(people / "train"), recipes=[str(recipe)])


def test_a_predictor_is_given_a_sequence_of_photos(people: Path, workspace: Path) -> None:
    api.ensemble(workspace=workspace)
    photo = next((people / "eval/images").iterdir())
    with api.load_predictor(workspace=workspace) as predictor:
        for given in (photo, str(photo), photo.read_bytes()):
            with pytest.raises(ConfigError, match="photos = .*a sequence is needed"):
                predictor.answers(given)
        assert len(predictor.answers([photo])) == 1
        whole = photo.read_bytes()
        assert [answer.label for answer in predictor.answers([bytearray(whole), memoryview(whole)])] == [
            predictor.answers([photo])[0].label
        ] * 2
        with pytest.raises(ConfigError, match="photo 1 is a NoneType; allowed: a path"):
            predictor.answers([photo, None], on_error="mark")
        with pytest.raises(ConfigError, match="--batch -1; allowed: 0 or more"):
            predictor.answers([photo], batch=-1)


def test_the_table_of_functions_says_which_arguments_are_given_by_name() -> None:
    rows = re.findall(r"^\| `(\w+)\(([^)]*)\)` \|", (ROOT / "docs/api.md").read_text(), re.MULTILINE)
    assert len(rows) > 30
    for name, text in rows:
        parameters = inspect.signature(getattr(api, name)).parameters
        for argument in filter(None, text.removesuffix("...").strip(", ").split(", ")):
            by_name = parameters[argument.removesuffix("=")].kind is inspect.Parameter.KEYWORD_ONLY
            assert argument.endswith("=") is by_name, (name, argument)
