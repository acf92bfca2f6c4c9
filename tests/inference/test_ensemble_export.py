"""`orch export`: files that answer without orch as they do with it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from orchestrator.inference import ensemble_export
from tests.conftest import Done, hashes, tiny

Orch = Callable[..., Done]


@pytest.fixture
def workspace(exported: Path, tmp_path: Path) -> Path:
    """A copy of the trained workspace whose members are exported already."""
    return Path(shutil.copytree(exported, tmp_path / "runs"))


def odd_photos(people: Path, folder: Path) -> list[Path]:
    """One photo turned by EXIF, grey, half transparent, with 16 bits, and as it is."""
    folder.mkdir()
    plain = next((people / "eval" / "images").iterdir())
    image = Image.open(plain).convert("RGB")
    turned = Image.Exif()
    turned[0x0112] = 6
    image.save(folder / "turned.jpg", exif=turned)
    image.convert("L").save(folder / "grey.png")
    image.convert("RGBA").resize((90, 121)).save(folder / "small.png")
    veil = image.copy()
    veil.putalpha(128)
    veil.save(folder / "veil.png")
    Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(folder / "deep.png")
    shutil.copy(plain, folder / f"plain{plain.suffix}")
    return sorted(folder.iterdir())


@pytest.mark.parametrize("words", [
    ("--strategy", "soft"), ("--strategy", "hard"), ("--strategy", "mask=hard,age=geometric"),
    ("--strategy", "greedy", "--calibrate", "vector", "--decide", "macro-f1"),
])  # fmt: skip
def test_the_program_beside_an_export_gives_orchs_answers(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    assert orch("ensemble", *words, "-w", workspace).code == 0
    done = orch("export", "--out", tmp_path / "out", "-w", workspace, "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert report["photos"] == 64
    assert len(report["differences"]) == 9
    assert max(report["differences"].values()) < 1e-4
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert [member["file"] for member in card["members"]] == list(report["differences"])
    photos = odd_photos(people, tmp_path / "photos")
    theirs = subprocess.run(
        [sys.executable, tmp_path / "out" / "predict.py", *photos], capture_output=True, text=True, check=True,
        cwd=tmp_path, env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )  # fmt: skip
    ours = json.loads(orch("predict", *photos, "-w", workspace, "--json", "--engine", "torch").out)
    answers = [json.loads(line) for line in theirs.stdout.splitlines()]
    assert len(answers) == len(ours) == 6
    for answer, expected in zip(answers, ours, strict=True):
        assert (answer["label"], answer["name"]) == (expected["label"], expected["name"])
        assert {"probabilities", "shares"} & set(answer) == {"probabilities", "shares"} & set(expected)
        for task, shares in expected.get("probabilities", {}).items():
            assert answer["probabilities"][task] == pytest.approx(shares, abs=1e-3)


@pytest.mark.parametrize(("strategy", "right", "wrong", "message"), [
    ("soft", "int(combined.label[0])", "(int(combined.label[0]) + 1) % 18", "the ensemble's is"),
    ("hard", "int(combined.label[0])", "(int(combined.label[0]) + 1) % 18", "the ensemble's is"),
    ("soft", ".shares[0].round(6)", ".shares[0][::-1].round(6)", "probabilities or shares differ by up to"),
    ("hard", ".shares[0].round(6)", ".shares[0][::-1].round(6)", "shares differ by up to"),
    ("soft", "def answer(", "raise RuntimeError('no luck')\n\ndef answer(", "does not run here (RuntimeError: no luck)"),
    ("soft", "_beside('decoding')", "(1 / 0)", "cannot be read as a photo: division by zero"),
])  # fmt: skip
def test_a_program_that_answers_otherwise_is_no_export(
    orch: Orch, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    strategy: str, right: str, wrong: str, message: str,
) -> None:  # fmt: skip
    write = ensemble_export._write_programs

    def write_wrong(folder: Path) -> list[str]:
        names = write(folder)
        program = folder / "predict.py"
        text = program.read_text().replace('_beside("decoding")', "_beside('decoding')")
        assert right in text
        program.write_text(text.replace(right, wrong))
        return names

    monkeypatch.setattr(ensemble_export, "_write_programs", write_wrong)
    assert orch("ensemble", "--strategy", strategy, "-w", workspace).code == 0
    done = orch("export", "--out", tmp_path / "out", "-w", workspace)
    assert (done.code, message in done.err) == (2, True), done.err
    assert "so the export was not finished" in done.err
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(ensemble_export, "_write_programs", write)
    assert orch("export", "--out", tmp_path / "out", "-w", workspace).code == 0
    whole = hashes(tmp_path / "out")
    monkeypatch.setattr(ensemble_export, "_write_programs", write_wrong)
    assert orch("export", "--out", tmp_path / "out", "-w", workspace).code == 2
    assert hashes(tmp_path / "out") == whole  # the export that was there stays as it was


@pytest.mark.parametrize("name", ["card.json", ".unfinished/notes.txt"])
def test_a_users_files_of_the_same_names_are_left_alone(orch: Orch, workspace: Path, tmp_path: Path, name: str) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    own = tmp_path / "own" / name
    own.parent.mkdir(parents=True)
    own.write_text('{"mine": 1}')
    done = orch("export", "--out", tmp_path / "own", "-w", workspace)
    assert done.code == 2
    assert "holds files that no export has made" in done.err
    assert own.read_text() == '{"mine": 1}'


def test_two_commands_do_not_export_into_one_folder_at_once(orch: Orch, exported: Path, tmp_path: Path) -> None:
    runs = Path(shutil.copytree(exported, tmp_path / "runs"))
    assert orch("ensemble", "-w", runs).code == 0
    out = tmp_path / "a/b/out"
    with ensemble_export._staged(out) as staging:
        assert staging.is_dir()
        done = orch("export", "--out", out, "-w", runs)
        assert done.code == 2
        assert "another orch command is exporting there" in done.err
        for name in ("predict.py", "card.json"):
            (staging / name).write_text("{}")
    with pytest.raises(OSError, match="broken"), ensemble_export._staged(tmp_path / "new/out"):
        raise OSError("broken")
    assert not (tmp_path / "new").exists()


def test_what_a_killed_export_left_is_written_over(orch: Orch, workspace: Path, tmp_path: Path) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    (tmp_path / "out" / ".unfinished").mkdir(parents=True)
    (tmp_path / "out" / ".unfinished" / ".orch-export").touch()
    (tmp_path / "out" / ".unfinished" / "half.onnx").write_bytes(b"x")
    (tmp_path / "out" / "predict.py").write_text("half")
    done = orch("export", "--out", tmp_path / "out", "-w", workspace)
    assert done.code == 0, done.err
    assert not (tmp_path / "out" / ".unfinished").exists()
    assert "half" not in (tmp_path / "out" / "predict.py").read_text()[:10]


def test_a_check_on_few_photos_says_so(orch: Orch, people: Path, workspace: Path, tmp_path: Path) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    photos = sorted((people / "eval/images").iterdir())
    done = orch("export", "--out", tmp_path / "out", "-w", workspace, "--photos", photos[0])
    assert done.code == 0, done.err
    assert "checked on 1 photo alone, which shows little: give 16 or more (--photos DIR)" in done.err
    done = orch("export", "--out", tmp_path / "more", "-w", workspace, *(f"--photos={path}" for path in photos[:16]))
    assert (done.code, "shows little" in done.err) == (0, False), done.err


def test_the_program_goes_on_after_a_photo_that_cannot_be_read(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path
) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    assert orch("export", "--out", tmp_path / "out", "-w", workspace).code == 0
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8")
    photo = next((people / "eval" / "images").iterdir())
    program = [sys.executable, tmp_path / "out" / "predict.py"]
    done = subprocess.run([*program, tmp_path / "cut.jpg", photo], capture_output=True, text=True, check=False)
    first, second = map(json.loads, done.stdout.splitlines())
    assert done.returncode == 1
    assert "error" in first
    assert "label" in second
    line = 'set -o pipefail; "$@" 2>err | head -1; exit $?'
    piped = ["bash", "-c", line, "-", *program, *[photo] * 20]
    done = subprocess.run(piped, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, len(done.stdout.splitlines()), (tmp_path / "err").read_text()) == (0, 1, "")
    done = subprocess.run(["bash", "-c", '"$@" >&-', "-", *program, photo], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    with subprocess.Popen(
        [*program, *[photo] * 5000], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest = process.communicate()
    assert (process.returncode, rest[1]) == (130, "")
    nothing = subprocess.run(program, capture_output=True, text=True, check=False)
    assert nothing.returncode == 2
    assert "usage" in nothing.stderr
    shown = subprocess.run([*program, "--help"], capture_output=True, text=True, check=False)
    assert shown.returncode == 0
    assert "Answers for photos with an exported ensemble" in shown.stdout
    assert "PHOTO" in shown.stdout
    gone = subprocess.run([*program, tmp_path / "gone.jpg"], capture_output=True, text=True, check=False)
    assert gone.returncode == 1
    answer = json.loads(gone.stdout)
    assert answer["path"] == str(tmp_path / "gone.jpg")
    assert answer["error"].startswith("cannot be read as a photo: no such file")
    # What it reads back is what was exported.
    network, card = sorted((tmp_path / "out").glob("*.onnx"))[0], tmp_path / "out" / "card.json"
    for path in (network, card, tmp_path / "out" / "decoding.py"):
        whole = path.read_bytes()
        middle = len(whole) // 2
        for damaged in (None, b"", whole[:middle], whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]):
            path.unlink()
            if damaged is not None:
                path.write_bytes(damaged)
            done = subprocess.run([*program, tmp_path / "cut.jpg", photo], capture_output=True, text=True, check=False)
            assert done.returncode == 1
            assert done.stdout == ""  # not even that the first cannot be read
            assert "Copy the whole export again" in done.stderr
            assert path.name in done.stderr
            path.write_bytes(whole)
    assert subprocess.run([*program, photo], capture_output=True, text=True, check=False).returncode == 0


def test_an_exported_file_takes_pixels_of_any_number_of_photos(orch: Orch, workspace: Path, tmp_path: Path) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    assert orch("export", "--out", tmp_path / "out", "-w", workspace).code == 0
    again = orch("export", "--out", tmp_path / "out", "-w", workspace)
    assert again.code == 0, again.err  # an earlier export may be written anew
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "age-0001-fold-1.onnx"))
    (photos,) = session.get_inputs()
    assert (photos.name, photos.type, photos.shape[1:]) == ("photos", "tensor(uint8)", [32, 32, 3])
    for count in (1, 3):
        (probabilities,) = session.run(None, {"photos": np.zeros((count, 32, 32, 3), np.uint8)})
        assert probabilities.shape == (count, 3)
        assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_exports_never_overwrite_other_files_and_need_photos_to_check_on(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    done = orch("export", "--out", tmp_path / "mine", "-w", workspace)
    assert done.code == 2
    assert "holds files that no export has made" in done.err
    done = orch("export", "--out", tmp_path / "mine" / "thesis.txt", "-w", workspace)
    assert "is a file; a folder is needed" in done.err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    shutil.rmtree(workspace / "store")

    def load(*_: object, **__: object) -> None:
        raise AssertionError("a member was loaded")

    with monkeypatch.context() as patch:
        patch.setattr("orchestrator.inference.opening.load_members", load)
        done = orch("export", "--out", tmp_path / "out", "-w", workspace)
    assert done.code == 2
    assert "Give some: --photos DIR" in done.err
    done = orch("export", "--out", tmp_path / "out", "-w", workspace, "--photos", people / "eval" / "images")
    assert done.code == 0, done.err
    assert "checked on 28 photos" in done.out


def test_an_export_over_an_earlier_one_leaves_nothing_of_it(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path
) -> None:
    """Members that answer no longer would be asked by whoever lists the folder's files."""
    more = ("train", "age", "--data", people / "train", "--folds", 3, "--seed", 1, "--jobs", 1, *tiny())
    assert orch(*more, "-w", workspace).code == 0
    assert orch("ensemble", "--members", "age=age-0001,age-0002", "-w", workspace).code == 0
    assert orch("ensemble", "--members", "age=age-0001", "-w", workspace).code == 0
    for name, folder in (("soft-0001", "both"), ("soft-0002", "both"), ("soft-0002", "fresh")):
        assert orch("export", "--ensemble", name, "--out", tmp_path / folder, "-w", workspace).code == 0
        if folder == "both" and name == "soft-0001":
            assert any("age-0002" in path.name for path in (tmp_path / "both").iterdir())
            (tmp_path / "both/notes.txt").write_text("mine")
    assert {path.name for path in (tmp_path / "both").iterdir()} == {
        "notes.txt",
        *(path.name for path in (tmp_path / "fresh").iterdir()),
    }
