"""Engines give torch's answers or are refused; what is chosen is what will be done first."""

import json
import re
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest

from orchestrator.core.errors import ConfigError, DataError, EngineError
from orchestrator.core.labels import TASKS
from orchestrator.data.readers import read
from orchestrator.inference import backends
from orchestrator.inference import choice as trial
from orchestrator.inference.backends import BACKENDS, OnnxCall, cache_files
from orchestrator.inference.cache import LOCK, CacheFiles
from orchestrator.inference.choice import assign_engines
from orchestrator.inference.engine_selection import PredictorOnEngines, choose_engines
from orchestrator.inference.engines import TOLERANCE, Engine, Runner, TorchCall, engines_here, open_runners
from orchestrator.inference.export import Exports, write_onnx
from orchestrator.inference.member import Member, load_members
from orchestrator.inference.options import ENGINES, FEW_PHOTOS, check_engine, needs_trial
from orchestrator.inference.predictor import Predictor, start_predictor
from orchestrator.inference.reader import Prepared
from orchestrator.inference.runtime import start_runtime
from orchestrator.inference.shared_backbone import Split
from tests.conftest import SOFT, Done, member_files

Orch = Callable[..., Done]


@pytest.fixture(scope="module")
def predictor(trained: Path) -> Predictor:
    members = [member for task in TASKS for member in member_files(trained, f"{task}-0001", 0, 1)]
    return start_predictor(load_members(members), SOFT)


@pytest.fixture(scope="module")
def sample(predictor: Predictor, people: Path) -> list[Prepared]:
    prepared = [predictor.reader.read(path) for path in read(people / "train").paths[:20]]
    return [photo for photo in prepared if isinstance(photo, Prepared)]


@pytest.fixture
def cache(exported: Path, tmp_path: Path) -> Path:
    """A copy of an engines' cache that holds the members' exports."""
    return Path(shutil.copytree(exported / "cache" / "engines", tmp_path / "cache"))


def pixels_of(member: Member, sample: list[Prepared]) -> np.ndarray:
    return np.stack([photo.pixels[member.preprocess.geometry] for photo in sample])


def test_every_engine_answers_as_torch_does_and_each_member_for_itself(
    predictor: Predictor, sample: list[Prepared], tmp_path: Path
) -> None:
    exports = Exports(tmp_path)
    written: list[tuple[int, int]] = []
    exports.make(predictor.runtime.splits, lambda done, total: written.append((done, total)))
    assert written == [(number, 6) for number in range(1, 7)]
    exports.make(predictor.runtime.splits, lambda done, total: written.append((done, total)))
    assert len(written) == 6  # what is there is not made again
    here = engines_here("cpu")
    assert {engine.name for engine in here} == set(ENGINES) == {"torch", *BACKENDS}
    for engine in here:
        answers = []
        runners = open_runners(predictor.runtime.splits, engine, exports.path, "cpu", 2)
        for member, reference, runner in zip(predictor.members, predictor.runtime.runners, runners, strict=True):
            pixels = pixels_of(member, sample)
            answers.append(runner(pixels))
            assert answers[-1].dtype == np.float32
            assert np.abs(answers[-1] - reference(pixels)).max() <= TOLERANCE[engine.precision]
            one_by_one = np.concatenate([runner(pixels[row : row + 1]) for row in range(3)])
            assert np.allclose(one_by_one, answers[-1][:3], atol=TOLERANCE[engine.precision])
        assert np.abs(answers[0] - answers[1]).max() > 1e-4  # two folds share a trace, never their weights


def test_an_export_with_other_answers_is_refused_by_name(
    predictor: Predictor, sample: list[Prepared], tmp_path: Path
) -> None:
    exports, splits = Exports(tmp_path), predictor.runtime.splits[:2]
    paths = [exports.path(split.tail) for split in splits]
    assert len(list(write_onnx(dict.fromkeys(paths, (splits[1].member, splits[1].tail))))) == 2
    with pytest.raises(EngineError, match="does not give torch's answers for 1 of 2 members") as caught:
        exports.check(splits, Engine("onnx"), lambda member: pixels_of(member, sample))
    assert [problem.where for problem in caught.value.problems] == ["mask-0001/fold-0"]
    assert "allowed: 0.0001" in str(caught.value)
    paths[0].write_bytes(b"no network")
    for engine in (Engine("onnx"), Engine("openvino")):
        with pytest.raises(
            EngineError, match=f"{engine} cannot open this export of mask-0001/fold-0 .*Delete the file"
        ):
            open_runners(splits, engine, exports.path, "cpu", 1)


def test_a_check_on_few_photos_is_looked_at_again_with_more(
    predictor: Predictor, sample: list[Prepared], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exports, split = Exports(cache), predictor.runtime.splits[0]
    exports.make([split])
    pixels = pixels_of(split.member, sample)
    exports.difference(split, Engine("onnx"), pixels[:1])
    assert exports.photos(split, Engine("onnx")) == 1
    exports = Exports(cache)
    exports.difference(split, Engine("onnx"), pixels)
    assert exports.photos(split, Engine("onnx")) == len(pixels) == 20
    monkeypatch.setattr("orchestrator.inference.export.open_runners", lambda *_: pytest.fail("checked already"))
    exports.difference(split, Engine("onnx"), pixels[:5])


def test_fp32_means_fp32_even_where_a_recipe_says_otherwise_and_needs_no_photo(
    predictor: Predictor, tmp_path: Path
) -> None:
    assert {runner.tail.precision for runner in predictor.runtime.runners} == {"auto"}
    for engine, photos, more in (("torch", [], True), ("torch", [tmp_path / "gone.jpg"], False), ("auto", [], False)):
        choice = choose_engines(predictor, photos, engine, True, tmp_path / "cache", more=more)
        assert {runner.tail.precision for runner in choice.predictor.runtime.runners} == {"fp32"}
        assert (choice.first_results, choice.chosen) == ((), ())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("engine", "device", "photos", "needed"), [
    ("torch", "cpu", 100_000, False), ("torch", "cpu", None, False), ("auto", "cuda", 100_000, False),
    ("auto", "cuda:1", None, False), ("auto", "cpu", FEW_PHOTOS, False), ("auto", "cpu", FEW_PHOTOS + 1, True),
    ("auto", "cpu", None, True), ("onnx", "cpu", 1, True), ("openvino", "cpu", None, True),
])  # fmt: skip
def test_photos_are_read_for_a_trial_only_where_there_is_a_choice(
    engine: str, device: str, photos: int | None, needed: bool
) -> None:
    assert needs_trial(engine, device, photos) is needed


def test_a_network_that_gives_no_numbers_never_passes(
    predictor: Predictor, sample: list[Prepared], cache: Path
) -> None:
    exports, split = Exports(cache), predictor.runtime.splits[0]
    exports.make([split])
    model = onnx.load(exports.path(split.tail))
    for tensor in model.graph.initializer:
        if tensor.name.endswith("conv_stem.weight"):
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * np.nan, tensor.name))
    onnx.save(model, exports.path(split.tail))
    with pytest.raises(EngineError, match="differ by up to inf"):
        exports.check([split], Engine("onnx"), lambda member: pixels_of(member, sample))


def test_few_photos_never_wait_for_an_export(predictor: Predictor, tmp_path: Path, exported: Path) -> None:
    few = [tmp_path / "never read.jpg"] * FEW_PHOTOS
    for cache in (tmp_path / "cache", exported / "cache" / "engines"):  # nor for one to be opened
        assert choose_engines(predictor, few, "auto", False, cache) == PredictorOnEngines(predictor)
    assert not list(tmp_path.iterdir())


def test_a_choice_that_fails_leaves_members_on_torch_with_a_word(
    predictor: Predictor, people: Path, tmp_path: Path, messages: list[str]
) -> None:
    photos, file = read(people / "train").paths[:2], tmp_path / "file"
    file.write_text("where the cache should be")
    choice = choose_engines(predictor, photos, "auto", False, file, more=True)
    assert (choice.predictor, len(choice.first_results)) == (predictor, 2)
    assert [message for message in messages if str(file) in message and message.endswith("; members stay on torch.")]
    with pytest.raises(OSError, match=re.escape(str(file))):
        choose_engines(predictor, photos, "onnx", False, file, more=True)


def test_what_will_be_done_first_is_chosen_and_remembered(
    predictor: Predictor, sample: list[Prepared], cache: Path
) -> None:
    rates = {"torch fp32": 1.0, "torch bf16": 2.0, "onnx fp32": 3.0, "openvino fp32": 4.0, "openvino bf16": 5.0}
    measured: list[str] = []

    def rate(_: Split, engine: Engine) -> float:
        measured.append(str(engine))
        return rates[str(engine)]

    before = predictor.runtime
    after, chosen = assign_engines(before, sample, 100_000, "auto", True, cache, rate=rate)
    assert {str(choice.engine) for choice in chosen} == {"openvino fp32"}
    assert sorted(task for choice in chosen for task in choice.tasks) == ["age", "gender", "mask"]
    assert all(choice.difference <= 1e-4 for choice in chosen)
    assert not set(map(id, before.runners)) & set(map(id, after.runners))
    assert all(
        isinstance(runner.tail, TorchCall) for runner in before.runners
    )  # goes on answering while it is replaced
    assert "bf16" not in " ".join(measured)  # exact leaves it out
    rates["torch fp32"] = 100.0
    _, again = assign_engines(before, sample, 100_000, "auto", True, cache, rate=rate)
    assert {str(choice.engine) for choice in again} == {"torch fp32"}


def test_a_service_takes_the_best_rate_whatever_the_exports_cost(
    predictor: Predictor, sample: list[Prepared], tmp_path: Path
) -> None:
    """Nobody knows how many photos will come: a handful at first does not keep it on the slower engine."""
    rates = {"torch fp32": 1000.0, "onnx fp32": 1100.0}
    for photos, engines in ((300, set()), (None, {"onnx fp32"})):
        folder = tmp_path / str(photos)
        _, chosen = assign_engines(
            predictor.runtime,
            sample[:3],
            photos,
            "auto",
            True,
            folder,
            rate=lambda _, engine: rates.get(str(engine), 0.0),
        )
        assert {str(choice.engine) for choice in chosen} == engines


def test_an_engine_that_fails_the_check_is_passed_over(
    predictor: Predictor, sample: list[Prepared], tmp_path: Path
) -> None:
    exports = Exports(tmp_path)
    last = predictor.runtime.splits[-1]
    for path in write_onnx(
        {exports.path(split.tail): (last.member, last.tail) for split in predictor.runtime.splits}
    ):  # all age's last
        files = CacheFiles(tmp_path)
        files.write_notes(path.with_suffix(".json"), "export", {"sha256": files.sha256(path), "checks": {}})

    def rate(_: Split, engine: Engine) -> float:
        return 1.0 if engine.name == "torch" else 9.0

    _, chosen = assign_engines(predictor.runtime, sample, 100_000, "auto", True, tmp_path, rate=rate)
    assert {str(choice.engine) for choice in chosen} == {"torch fp32"}
    with pytest.raises(EngineError, match="does not give torch's answers"):
        assign_engines(predictor.runtime, sample, 100_000, "onnx", True, tmp_path, rate=rate)


def sleeping(own: float, shared: float = 0.0) -> Runner:
    """A runner that takes its time, in seconds: alone, and for what members share."""

    def sleep(seconds: float) -> Callable[[np.ndarray], np.ndarray]:
        return lambda values: (time.sleep(seconds), values)[1]

    return Runner(sleep(own), sleep(shared))


def test_a_rate_is_photos_a_second_and_what_is_shared_counts_by_its_share() -> None:
    pixels = np.zeros((4, 8, 8, 3), np.uint8)
    fast, slow = (trial.measured_rate(sleeping(seconds), pixels, 1) for seconds in (0.01, 0.05))
    assert 40 < slow <= len(pixels) / 0.05
    assert fast > 2 * slow
    assert trial.measured_rate(sleeping(0, shared=0.05), pixels, 5) > 2 * slow


def test_rates_are_measured_once_and_damaged_records_are_measured_anew(
    predictor: Predictor, sample: list[Prepared], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(trial, "measured_rate", lambda runner, pixels, sharing: calls.append(len(pixels)) or 7.0)
    assign_engines(predictor.runtime, sample[:1], 1, "onnx", True, cache)
    assert calls == [16] * 3  # a single photo is repeated: rates are those of a full call
    assign_engines(predictor.runtime, sample[:1], 1, "onnx", True, cache)
    assert len(calls) == 3
    (cache / "trials.json").write_text("{")
    assign_engines(predictor.runtime, sample[:1], 1, "onnx", True, cache)
    assert len(calls) == 6
    assert json.loads((cache / "trials.json").read_text())


DAMAGES = ("deleted", "cut", "empty", "bit", "other", "shape", "folder", "link")


def damage(path: Path, how: str, other: Path) -> None:
    """Damages a file of the cache for real."""
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.unlink()
    if how == "folder":
        path.mkdir()
        (path / "inside").write_text("x")
    elif how == "link":
        path.symlink_to("nowhere")
    elif how != "deleted":
        path.write_bytes({
            "cut": whole[:middle], "empty": b"", "other": other.read_bytes(), "shape": b'{"format": 1, "digest": []}',
            "bit": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        }[how])  # fmt: skip


def test_damaged_exports_and_notes_are_made_anew_with_a_word(
    predictor: Predictor, sample: list[Prepared], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, messages: list[str]
) -> None:
    first, second = predictor.runtime.splits[:2]
    right = predictor.runtime.runners[0](pixels_of(first.member, sample))
    exports = Exports(tmp_path)
    exports.make([first, second])
    exports.check([first, second], Engine("onnx"), lambda member: pixels_of(member, sample))
    whole = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(whole) == 5  # two exports, their notes, and the lock

    def put_back(missing: dict[Path, object]) -> Iterator[Path]:
        for path in missing:  # a trace takes seconds; what it writes is known
            path.write_bytes(whole[path.name])
            yield path

    monkeypatch.setattr("orchestrator.inference.export.write_onnx", put_back)
    for suffix in (".onnx", ".json"):
        for how in DAMAGES:
            path = exports.path(first.tail).with_suffix(suffix)
            damage(path, how, exports.path(second.tail).with_suffix(suffix))
            messages.clear()
            again = Exports(tmp_path)
            again.make([first, second])
            assert again.check([first, second], Engine("onnx"), lambda member: pixels_of(member, sample)) < 1e-4
            (runner,) = open_runners([first], Engine("onnx"), again.path, "cpu", 1)
            assert np.abs(runner(pixels_of(first.member, sample)) - right).max() < 1e-4
            if how != "deleted":
                assert any(str(path) in message and message.endswith("it will be rebuilt.") for message in messages), (
                    suffix,
                    how,
                    messages,
                )
            assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == whole, (suffix, how)
            messages.clear()
            Exports(tmp_path).make([first, second])
            assert not messages


def test_damaged_trials_are_measured_anew_and_damaged_compiled_networks_compiled_anew(
    predictor: Predictor, sample: list[Prepared], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, messages: list[str]
) -> None:
    monkeypatch.setattr(trial, "measured_rate", lambda runner, pixels, sharing: 7.0)
    some = start_runtime(predictor.members[:1])
    right = some.runners[0](pixels_of(some.members[0], sample))

    def run() -> list[str]:
        messages.clear()
        runtime, _ = assign_engines(some, sample, 1000, "openvino", True, tmp_path)
        assert np.abs(runtime.runners[0](pixels_of(some.members[0], sample)) - right).max() < 1e-4
        return list(messages)

    assert run() == []
    assert run() == []
    (blob,) = (tmp_path / "openvino").glob("*.blob")
    other = tmp_path / "other"
    other.write_bytes(b"another")
    for path in (tmp_path / "trials.json", blob, tmp_path / "openvino" / "blobs.json"):
        for how in ("deleted", "cut", "bit", "other", "folder"):
            damage(path, how, other)
            cache_files.cache_clear()  # as a new command
            logged = run()
            if how != "deleted":
                assert any(str(path) in message for message in logged), (path.name, how, logged)
            assert path.is_file()
            assert run() == []


def test_engines_that_are_unknown_or_for_another_device_are_told() -> None:
    with pytest.raises(ConfigError, match=f"--engine onx; allowed: auto, {', '.join(ENGINES)}. Did you mean 'onnx'?"):
        check_engine("onx", "cpu")
    with pytest.raises(ConfigError, match="runs on the CPU here, and --device is cuda"):
        check_engine("openvino", "cuda")


@pytest.mark.parametrize("engine", list(BACKENDS))
def test_the_command_predicts_the_same_on_every_engine(
    orch: Orch, people: Path, exported: Path, tmp_path: Path, engine: str
) -> None:
    workspace = Path(shutil.copytree(exported, tmp_path / "runs"))
    assert orch("ensemble", "-w", workspace).code == 0
    tables = []
    for name in ("torch", engine):
        out = tmp_path / f"{name}.parquet"
        words = ("--eval", people / "eval", "--out", tmp_path / "s.csv", "--probabilities", out, "-w", workspace)
        done = orch("predict", *words, "--engine", name, "--precision", "fp32")
        assert done.code == 0, done.err
        assert (f"on {name} fp32" in done.err) == (name != "torch")
        tables.append(pd.read_parquet(out))
    assert tables[0]["label"].equals(tables[1]["label"])
    columns = [column for column in tables[0] if column.startswith("p(")]
    assert np.abs(tables[0][columns] - tables[1][columns]).to_numpy().max() < 1e-4
    assert orch("predict", people / "eval", "-w", workspace, "--precision", "int8").code == 2


def test_a_network_that_cannot_be_exported_is_told_with_the_way_out(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no decomposition for aten::strange")

    exports, split = Exports(tmp_path), predictor.runtime.splits[0]
    with monkeypatch.context() as patch:
        patch.setattr("torch.onnx.export", fail)
        message = (
            r"mask-0001/fold-0: its network \(test_efficientnet\) cannot be exported to ONNX \(RuntimeError: no decomp"
        )
        with pytest.raises(EngineError, match=message + ".*Use --engine torch"):
            exports.make([split])
    with monkeypatch.context() as patch:
        patch.setattr("torch.onnx.export", lambda *_, **__: None)
        with pytest.raises(EngineError, match="torch returned no ONNX program for test_efficientnet"):
            exports.make([split])
    with monkeypatch.context() as patch:
        patch.setattr("onnxscript.optimizer.optimize", fail)
        with pytest.raises(EngineError, match=r"cannot be written as ONNX \(RuntimeError\). Use --engine torch"):
            exports.make([split])
    assert {path.name for path in tmp_path.iterdir()} <= {LOCK}


def test_an_export_is_whole_for_another_process_from_the_moment_it_is_seen(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, messages: list[str]
) -> None:
    """Between a file and its note another process would take it for damaged, and delete it."""
    split, others = predictor.runtime.splits[0], list[Future[dict[Path, object]]]()
    with ThreadPoolExecutor(1) as another:

        def write(missing: dict[Path, object]) -> Iterator[Path]:
            for path in missing:
                path.write_bytes(b"an export")
                others.append(another.submit(lambda: dict(Exports(tmp_path).missing([split]))))
                wait(others, timeout=0.3)
                yield path

        monkeypatch.setattr("orchestrator.inference.export.write_onnx", write)
        Exports(tmp_path).make([split])
        assert [future.result() for future in others] == [{}]
    assert not messages


def test_a_cache_that_may_not_be_written_is_read_without_a_lock(
    predictor: Predictor, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Path(shutil.copytree(exported / "cache" / "engines", tmp_path / "cache"))
    (cache / LOCK).unlink(missing_ok=True)
    monkeypatch.setattr("orchestrator.inference.cache.os.access", lambda *_: False)  # root may write everywhere
    assert not Exports(cache).missing(predictor.runtime.splits)
    assert not (cache / LOCK).exists()


def test_checks_and_trials_of_two_processes_are_all_kept(
    predictor: Predictor, sample: list[Prepared], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, pixels = predictor.runtime.splits[0], pixels_of(predictor.members[0], sample)
    assert not Exports(cache).missing([split])
    engines, real = [Engine("onnx"), Engine("openvino")], open_runners

    def open_meanwhile(*arguments: Any) -> list[Runner]:
        if arguments[1] == engines[0]:  # while the first process opens its engine, another has checked a second one
            Exports(cache).difference(split, engines[1], pixels)
        return real(*arguments)

    monkeypatch.setattr("orchestrator.inference.export.open_runners", open_meanwhile)
    Exports(cache).difference(split, engines[0], pixels)
    assert [Exports(cache).photos(split, engine) for engine in engines] == [20, 20]

    def rate(runner: Runner, *_: object) -> float:
        if isinstance(runner.tail, OnnxCall):
            assign_engines(predictor.runtime, sample, 1000, "openvino", True, cache)
        return 7.0

    monkeypatch.setattr(trial, "measured_rate", rate)
    assign_engines(predictor.runtime, sample, 1000, "onnx", True, cache)
    rates = json.loads((cache / "trials.json").read_text())["rates"]
    assert len(rates) == 6  # of three kinds of networks, on each of the two engines


def test_exporting_leaves_other_threads_what_they_print_and_warn(
    predictor: Predictor, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    filters = list(warnings.filters)

    def export(*_: object, **__: object) -> None:
        with ThreadPoolExecutor(1) as another:  # of a service, while it exports
            another.submit(print, "an answer").result()
        assert list(warnings.filters) == filters

    monkeypatch.setattr("torch.onnx.export", export)
    with pytest.raises(EngineError, match="no ONNX program"):
        Exports(tmp_path).make(predictor.runtime.splits[:1])
    assert capsys.readouterr().out == "an answer\n"


def broken(monkeypatch: pytest.MonkeyPatch, folder: Path, package: str) -> None:
    """Puts a package that cannot be imported in the place of a real one."""
    (folder / package).mkdir(parents=True)
    (folder / package / "__init__.py").write_text("raise ImportError('libx.so: cannot open shared object file')\n")
    monkeypatch.syspath_prepend(str(folder))
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    backends.openvino_core.cache_clear()


@pytest.mark.parametrize(("engine", "package"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_a_broken_package_is_told_where_its_engine_is_wanted_and_passed_over_otherwise(
    predictor: Predictor, sample: list[Prepared], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, engine: str, package: str,
) -> None:  # fmt: skip
    broken(monkeypatch, tmp_path / "site", package)
    message = rf"--engine {engine} needs {package}, which is installed but cannot be imported \(ImportError: libx.so"
    with pytest.raises(EngineError, match=message + ".*Reinstall it"):
        assign_engines(predictor.runtime, sample, 100_000, engine, True, cache)
    _, chosen = assign_engines(predictor.runtime, sample, 100_000, "auto", True, cache)
    assert engine not in {choice.engine.name for choice in chosen}
    backends.openvino_core.cache_clear()


def test_a_sample_without_a_readable_photo_checks_no_engine(predictor: Predictor, tmp_path: Path) -> None:
    bad = tmp_path / "a.jpg"
    bad.write_bytes(b"no photo")
    with pytest.raises(DataError, match="--engine onnx: no photo of the sample can be read"):
        choose_engines(predictor, [bad], "onnx", False, tmp_path, more=True)
    assert choose_engines(predictor, [bad], "auto", False, tmp_path, more=True).predictor is predictor
    assert list(predictor.answers([])) == []
