"""Views tried on a trained run, counted, and kept as a run of their own."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from sklearn.metrics import f1_score

from orchestrator.ensembling.intervals import difference
from tests.conftest import Done, edit_held_out, edit_sealed, hashes, member_files, tiny, train

Orch = Callable[..., Done]


def held_out(run: Path) -> pd.DataFrame:
    parts = [pd.read_parquet(path) for path in sorted(run.glob("fold-*/held_out.parquet"))]
    return pd.concat(parts, ignore_index=True).sort_values("path", ignore_index=True)


def test_views_are_counted_kept_and_predict_as_they_score(orch: Orch, people: Path, workspace: Path) -> None:
    for fold in range(3):  # without views it answers otherwise: there is something to gain or to lose
        table = pd.read_parquet(workspace / f"age-0001/fold-{fold}/held_out.parquet")
        answers = [column for column in table.columns if column.startswith("p(")]
        table.loc[::2, answers] = np.roll(table.loc[::2, answers].to_numpy(), 1, axis=1)
        edit_held_out(workspace / f"age-0001/fold-{fold}", table)
    before = hashes(workspace / "age-0001")
    done = orch("tta", "age-0001", "--views", "flip,zoom", "--keep", "-w", workspace, "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert hashes(workspace / "age-0001") == before
    assert report["kept"] == "age-0002"
    plain, viewed = held_out(workspace / "age-0001"), held_out(workspace / "age-0002")
    truth = plain["truth"].to_numpy()
    plain_choice, viewed_choice = (table.filter(like="p(").to_numpy().argmax(axis=1) for table in (plain, viewed))
    became_right, became_wrong = (
        ((plain_choice != truth) & (viewed_choice == truth)).sum(),
        ((plain_choice == truth) & (viewed_choice != truth)).sum(),
    )
    assert sum(entry["became_right"] for entry in report["classes"].values()) == became_right
    assert sum(entry["became_wrong"] for entry in report["classes"].values()) == became_wrong
    assert not np.allclose(plain.filter(like="p("), viewed.filter(like="p("), atol=1e-6)
    plain_f1, viewed_f1 = (f1_score(truth, choice, average="macro") for choice in (plain_choice, viewed_choice))
    assert report["macro_f1"] == pytest.approx(plain_f1)
    assert report["macro_f1_with_views"] == pytest.approx(viewed_f1)
    assert viewed_f1 != plain_f1
    order = plain.sort_values(["fold", "path"]).index  # in which people are drawn
    gain = difference(plain["person"][order], truth[order], plain_choice[order], viewed_choice[order], 3)
    assert report["gain"] == pytest.approx(gain.value) == pytest.approx(viewed_f1 - plain_f1)
    assert report["gain_interval_95"] == pytest.approx(gain.interval.as_list())
    kept = json.loads((workspace / "age-0002/run.json").read_text())
    assert kept["score"] == pytest.approx(viewed_f1)
    assert (kept["parent"], kept["status"], kept["recipe"]["views"]) == ("age-0001", "complete", ["flip", "zoom"])
    again = orch("tta", "age-0001", "--views", "zoom,flip", "--keep", "-w", workspace, "--json")
    assert json.loads(again.out)["kept"] == "age-0002"  # the same views, in whatever order
    edit_sealed(workspace / "age-0002/run.json", status="unfinished")  # as a kill leaves it
    shutil.rmtree(workspace / "age-0002/fold-2")
    again = orch("tta", "age-0001", "--views", "flip,zoom", "--keep", "-w", workspace, "--json")
    assert json.loads(again.out)["kept"] == "age-0002"
    assert len(held_out(workspace / "age-0002")) == len(viewed)
    weights = [workspace / name / "fold-1/weights.safetensors" for name in ("age-0001", "age-0002")]
    assert weights[0].samefile(weights[1])
    # A member predicts with the views that it was scored with: its held-out photos get its held-out probabilities.
    assert orch("ensemble", "-w", workspace, "--members", "age=age-0002").code == 0
    from orchestrator.inference.engines import torch_runners
    from orchestrator.inference.member import load_members
    from orchestrator.inference.shared_backbone import split

    (member,) = load_members(member_files(workspace, "age-0002", 0))
    assert member.views == ("flip", "zoom")
    (runner,) = torch_runners(split([member, member])[:1], "cpu")
    table = pd.read_parquet(workspace / "age-0002/fold-0/held_out.parquet").head(6)
    from orchestrator.data.preprocessing import decode

    pixels = np.stack([member.preprocess.geometry.apply(decode(people / "train" / path)) for path in table["path"]])
    answers, held_out_answers = runner(pixels), table.filter(like="p(").to_numpy()
    # A batch of another size adds in another order, by how much depends on the processor; ties may then fall either way.
    assert np.allclose(answers, held_out_answers, atol=1e-5)
    likeliest = np.sort(held_out_answers, axis=1)
    clear = likeliest[:, -1] - likeliest[:, -2] > 1e-4
    assert clear.any()
    assert (answers.argmax(axis=1) == held_out_answers.argmax(axis=1))[clear].all()
    predicted = orch("predict", people / "train" / table["path"].iloc[0], "-w", workspace)
    assert predicted.code == 0, predicted.err


@pytest.mark.parametrize(("words", "message"), [
    (("age-0001", "--views", "flp"), "--views flp; allowed: flip, zoom, zoom_flip. Did you mean 'flip'?"),
    (("age-0001", "--views", ","), "names no view"),
    (("age-0009",), "run 'age-0009' is not in"),
])  # fmt: skip
def test_wrong_words_are_told(orch: Orch, trained: Path, words: tuple[str, ...], message: str) -> None:
    done = orch("tta", *words, "-w", trained)
    assert done.code == 2
    assert message in done.err


def test_other_photos_than_those_trained_on_are_refused(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert orch("data", "synth", tmp_path / "others", "--people", 12, "--seed", 5).code == 0
    done = orch("tta", "age-0001", "-w", workspace, "--data", tmp_path / "others/train")
    assert done.code == 2
    assert "not the photos that age-0001 was trained on" in done.err
    moved = tmp_path / "moved"
    shutil.copytree(people, moved)
    monkeypatch.setattr(
        "orchestrator.artifacts.sources.Path", lambda _source: tmp_path / "gone/train"
    )  # where they were
    done = orch("tta", "age-0001", "-w", workspace)
    assert done.code == 2
    assert f"{tmp_path / 'gone/train'}: nothing is there" in done.err
    command = re.search(r"`orch (tta [^`]*)`", done.err)
    assert command
    words = [str(moved / "train") if word == "DIR" else word for word in shlex.split(command[1])]
    assert orch(*words).code == 0
    monkeypatch.undo()
    shown = orch("tta", "mask-0001", "-w", workspace)
    assert shown.code == 0, shown.err
    assert "became right" in shown.out
    assert "95 % interval" in shown.out


def test_each_training_keeps_its_own_views(orch: Orch, people: Path, workspace: Path) -> None:
    assert train(orch, people, workspace, "train", "age", *tiny(), "--again").code == 0
    kept = {}
    for run in ("age-0001", "age-0002"):  # of one recipe, plan, data and seed
        done = orch("tta", run, "--views", "flip", "--keep", "-w", workspace, "--json")
        assert done.code == 0, done.err
        kept[run] = json.loads(done.out)["kept"]
    assert len({*kept.values()}) == 2
    for run, views in kept.items():
        weights = [workspace / name / "fold-0/weights.safetensors" for name in (run, views)]
        assert weights[0].samefile(weights[1])


def test_answers_that_are_no_numbers_are_refused(orch: Orch, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from orchestrator.inference.member import AnswerFunction

    real = AnswerFunction.forward
    monkeypatch.setattr(AnswerFunction, "forward", lambda self, photos: real(self, photos) * torch.nan)
    done = orch("tta", "age-0001", "-w", workspace, "--keep")
    assert done.code == 2
    assert "fold-0: this member's answers are NaN or infinite" in done.err
    assert not (workspace / "age-0002").exists()


def test_missing_and_changed_files_are_told(orch: Orch, workspace: Path) -> None:
    table = workspace / "age-0001/fold-1/held_out.parquet"
    whole = table.read_bytes()
    for damaged in (None, whole[:200], b""):
        table.unlink(missing_ok=True)
        if damaged is not None:
            table.write_bytes(damaged)
        done = orch("tta", "age-0001", "-w", workspace)
        assert done.code == 2
        assert f"held_out.parquet: {'missing' if damaged is None else 'not the file that was written'}" in done.err


def test_views_need_no_store_if_none_is_wanted(orch: Orch, workspace: Path) -> None:
    with_store = orch("tta", "age-0001", "-w", workspace, "--json")
    shutil.rmtree(workspace / "store")
    without = orch("tta", "age-0001", "-w", workspace, "--json", "--no-store")
    assert without.code == 0, without.err
    assert json.loads(without.out) == json.loads(with_store.out)
    assert not (workspace / "store").exists()


def test_two_commands_never_write_one_run(orch: Orch, workspace: Path) -> None:
    assert orch("tta", "age-0001", "--views", "flip", "--keep", "-w", workspace).code == 0
    record = workspace / "age-0002/run.json"
    edit_sealed(record, status="unfinished")
    with FileLock(workspace / "age-0002/run.lock"):
        done = orch("tta", "age-0001", "--views", "flip", "--keep", "-w", workspace)
    assert done.code == 2
    assert "another orch command is writing this run" in done.err
