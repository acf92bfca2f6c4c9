"""Mistakes of use: reported as fast as small programs end, because nothing that trains or predicts is imported for them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from orchestrator.core import device_names
from tests.conftest import ROOT, Done

Orch = Callable[..., Done]

WITHOUT_A_TABLE = {
    "predict": "give exactly one of photos and --eval DIR",
    "predict nowhere.jpg": "nowhere.jpg: no such file or folder",
    "predict PHOTO --ensemble soft-9999": "ensemble 'soft-9999' is not in",
    "predict PHOTO --engine onx": "--engine onx; allowed: auto",
    "predict PHOTO --out .": "is a folder; give the name of a file",
    "predict PHOTO --device gpu": "--device gpu: allowed: auto",
    "predict PHOTO --starategy soft": "No such option: --starategy",
    "cascade PHOTO --rate 1.5": "--rate 1.5; allowed",
    "cascade nowhere": "nowhere: no such file or folder",
    "cascade PHOTOS": "28 photos cannot show a rate of 0.001",
    "pseudo PHOTO --out a.csv --threshold 2": "--threshold 2.0; allowed",
    "pseudo PHOTO --out .": "is a folder; give the name of a file",
    "pseudo nowhere --out a.csv": "nowhere: no such file or folder",
    "export --out PHOTO": "is a file; a folder is needed",
    "tta age-9999": "run 'age-9999' is not in",
    "tta age-0001 --views flp": "--views flp; allowed",
    "tta age-0001 --data nowhere": "nowhere: no such folder or table",
    "bench --data nowhere": "nowhere: no such folder or table",
    "bench trainin": "'trainin' is not a part of the benchmark",
    "bench --recipe probe": "--recipe probe: trains only heads",
    "predict --eval nowhere --out x.csv": "nowhere/info.csv: no such file",
    "predict --eval TABLE --out x.csv": "is a file. Give the folder that holds info.csv and images/",
    "ensemble --with nofile.csv": "--with nofile.csv: no such file",
    "train age --data DATA --fold 1 --valid-only": "Give one of them",
    "data check --data nowhere": "nowhere: no such folder or table",
    "data faces --data nowhere": "nowhere: no such folder or table",
    "data describe --data nowhere": "nowhere: no such folder or table",
    "data folds --data nowhere": "nowhere: no such folder or table",
    "ensemble --strategy sft": "--strategy sft; allowed: soft, ",
    "ensemble --members age=x": "run 'x' is not in",
    "runs compare age-0001 age-7": "run 'age-7' is not in",
    "runs track age-0001 --to xx": "tracker xx: allowed: tensorboard",
    "train-all --data nowhere": "nowhere: no such folder or table",
    "train-all --data PHOTO": "not named like a table",
    "train-all --data DATA --track nope": "tracker nope: allowed: tensorboard",
    "train age --data DATA --track nope": "tracker nope: allowed: tensorboard",
    "train age --data DATA --grid xx=1": "--grid xx=1: unknown key 'xx'",
    "train age --data DATA --grid lr=1e-3 --set lr=1e-4": "--set lr=1e-4: --grid changes that too",
    "train age --data DATA --fold 7": "--fold 7: allowed: 0 to 2",
    "train age --data DATA --fold 1 --folds 0": "--fold goes with a fold plan",
    "sweep age --data DATA --track nope": "tracker nope: allowed: tensorboard",
    "sweep age --data DATA --space nope.toml": "nope.toml: No such file",
    "sweep age --data DATA --stages lss": "no stage is called 'lss'",
    "resume age-0001 --jobs -2": "--jobs -2; allowed: 1 or more",
    "resume age-0001 --device tpu": "--device tpu: allowed: auto",
    "resume age-0001 --data nowhere": "nowhere: no such folder or table",
    "train-all --data DATA -w TABLE": "table.csv: not a folder, where a folder must be",
    "train-all --data DATA -w BELOW_TABLE": "table.csv: not a folder, where a folder must be",
    "train-all --data DATA -w PHOTOS": "is not empty and not a workspace",
    "train age --data DATA -w LINK": "link: a link that leads nowhere (/nowhere), where a folder must be",
    "sweep age --data DATA -w PHOTOS": "is not empty and not a workspace",
    "train age --data DATA --fold 0 --folds 4": "trained by --folds 3 --plan-seed 0, and this command asks for --folds 4",
    "train age --data DATA --fold 0 --plan-seed 1": "members of different plans never mix. Leave --folds and",
    "sweep age --data DATA --folds 0": "--folds 0 holds nobody out: give --folds 2 or more",
    "sweep age --data DATA --stages lr --folds 0": "--folds 0 holds nobody out: give --folds 2 or more",
    "predict TABLE": "no photo (JPEG, PNG, WEBP, BMP) among the 1 file given",
    "predict TABLE /etc/passwd /dev/null": "no photo (JPEG, PNG, WEBP, BMP) among the 3 files given",
    "pseudo TABLE --out a.csv": "no photo (JPEG, PNG, WEBP, BMP) among the 1 file given",
    "cascade TABLE": "no photo (JPEG, PNG, WEBP, BMP) among the 1 file given",
    "export --out nowhere --photos TABLE": "no photo (JPEG, PNG, WEBP, BMP) among the 1 file given",
    "runs track age-0001 --to tensorboard=/etc/passwd": "tensorboard: /etc/passwd: is a file; a folder is needed",
    "runs track age-0001 --to tensorboard=/etc/passwd/x": "/etc/passwd/x: /etc/passwd is not a folder",
    "runs track age-0001 --to mlflow=here": "mlflow=here: PLACE is a tracking URI",
    "train age --data DATA --track tensorboard=/etc/passwd": "tensorboard: /etc/passwd: is a file; a folder is needed",
    "runs track age-0001 --to tensorboard=": "tracker tensorboard=: names no place. Write tensorboard alone",
    "runs track age-0001 --to TENSORBOARD_LINK": "link: is a link that leads nowhere (/nowhere)",
    "predict PHOTO --out BELOW_LINK": "link is a link that leads nowhere (/nowhere). Restore what it leads to",
    "train age --data DATA --recipe EMPTY": "an empty word; `orch recipes list` shows what can be named",
    "sweep age --data DATA --recipe EMPTY": "an empty word; `orch recipes list` shows what can be named",
    "data synth nowhere --jobs -7": "--jobs -7; allowed: 0 or more",
    "ensembles slices soft-0001 --data nowhere": "--data: only --by reads the data's table",
    "ensembles slices soft-0001 --columns foo=bar": "--columns: only --by reads the data's table",
    "predict EMPTY": "an empty path; '.' is the current folder",
    "predict PHOTO EMPTY": "an empty path; '.' is the current folder",
    "train-all --data EMPTY": "an empty path; '.' is the current folder",
    "runs list -w EMPTY": "an empty path; '.' is the current folder",
}
"""Words -> what is reported: no table has to be read for it."""

WITH_A_TABLE = {
    "train-all --data DATA --folds 99": "--folds 99 is larger than the smallest class",
    "train age --data DATA --folds 99": "--folds 99 is larger than the smallest class",
    "train age --data DATA --folds-used 9": "--folds-used 9; the plan has 3 folds",
    "train-all --data DATA --folds 0 --set schedule=plateau": "plateau watches held-out people",
    "train-all --data TABLE": "line 2: 6 fields, where the header has 5",
    "train age --data TABLE": "line 2: 6 fields, where the header has 5",
    "train age --data TABLE --grid lr=1e-3,1e-4": "line 2: 6 fields, where the header has 5",
    "resume mask-0001 --data TABLE": "line 2: 6 fields, where the header has 5",
    "tta age-0001 --data TABLE": "line 2: 6 fields, where the header has 5",
    "tta age-0001 --data OTHERS": "not the photos that age-0001 was trained on",
    "cascade --data TABLE": "line 2: 6 fields, where the header has 5",
    "bench --data TABLE": "line 2: 6 fields, where the header has 5",
    "data faces --data TABLE": "line 2: 6 fields, where the header has 5",
}
"""Words -> what a table's rows show."""

OF_NAMES = {
    "runs compare age-0001 mask-0001": "only runs of one specialist can be compared",
    "data synth DATA": "is not empty; synthetic people are never mixed into other files",
    "demo --out DATA": "holds files that no demo has made",
    "bench trainin": "'trainin' is not a part of the benchmark",
    "recipes lint age nope": "no recipe 'nope'; allowed",
    "recipes show age nope": "no recipe 'nope'; allowed",
    "predict PHOTO --ensemble soft-9999": "ensemble 'soft-9999' is not in",
    "export --out PHOTO": "is a file; a folder is needed",
    "export --out LINK": "link: is a link that leads nowhere (/nowhere). Restore what it leads to, or move it away",
    "export --out BELOW_LINK": "link is a link that leads nowhere (/nowhere)",
    "data synth LINK": "link: is a link that leads nowhere (/nowhere)",
    "recipes copy age quick BELOW_LINK": "link is a link that leads nowhere (/nowhere)",
    "resume age-0001 --data nowhere": "nowhere: no such folder or table",
    "train age --data DATA --fold 7": "--fold 7: allowed: 0 to 2",
    "ensembles slices soft-9999": "ensemble 'soft-9999' is not in",
    "ensembles slices age-0001": "ensemble 'age-0001' is not in",
    "data check --data DATA --tasks foo": "'foo' is not a task; allowed: mask, gender, age",
    "data check --data DATA --folds 1": "--folds 1; allowed: 2 or more, or 0 for no plan",
    "data folds --data DATA --folds -7": "--folds -7; allowed: 2 or more",
    "train-all --data DATA --columns foo=bar": "--columns maps the names of a manifest",
    "data check --data DATA --columns foo=bar": "--columns maps the names of a manifest",
    "evaluate --data DATA --columns foo=bar": "--columns maps the names of a manifest",
    "tta age-0001 --data DATA --columns foo=bar": "--columns maps the names of a manifest",
    "cascade --eval nowhere": "nowhere/info.csv: no such file",
    "pseudo --eval nowhere --out a.csv": "nowhere/info.csv: no such file",
    "cascade --data nowhere": "nowhere: no such folder or table",
    "ensemble --with PHOTOS": "a folder, and a table is needed",
    "evaluate --data PHOTOS": "images/train.csv: no such file. Give the folder that holds train.csv",
    "export --out DATA": "holds files that no export has made. Choose a new or empty folder",
    "export --out nowhere --photos nofile": "nofile: no such file or folder",
}
"""Words -> what names alone show: neither arrays nor the schemas of recipes are needed, as slow to import as all the rest."""

NETWORKS = frozenset({"torch", "timm", "onnxruntime", "matplotlib"})
TABLES = frozenset({"pandas", "sklearn", "scipy", "joblib", "pyarrow"})
ARRAYS = frozenset({"numpy", "cv2", "PIL", "pydantic.main"})

PROGRAM = """
import contextlib, io, json, sys
from orchestrator.cli.app import main
results = []
for words in json.load(sys.stdin):
    sys.argv, printed, code = ['orch', *words], io.StringIO(), 0
    with contextlib.redirect_stderr(printed):
        try: main()
        except SystemExit as stop: code = stop.code
    results.append([code, printed.getvalue(), sorted(set(sys.modules))])
json.dump(results, sys.stdout)
"""
"""All in one process: what the first imports without need is there after the first."""


@pytest.mark.parametrize(
    ("mistakes", "heavy"),
    [(OF_NAMES, NETWORKS | TABLES | ARRAYS), (WITHOUT_A_TABLE, NETWORKS | TABLES), (WITH_A_TABLE, NETWORKS)],
)
def test_mistakes_of_use_are_told_before_anything_heavy_is_imported(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path, mistakes: Mapping[str, str], heavy: frozenset[str]
) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    assert orch("data", "synth", tmp_path / "others", "--people", 12, "--seed", 5, "--jobs", 1).code == 0
    (workspace / "mask-0001/fold-1/member.json").unlink()  # there is something to resume
    table = tmp_path / "table.csv"
    table.write_text("path,person,age,gender,mask\na.jpg,one,30,male,wear,\n")
    (tmp_path / "link").symlink_to("/nowhere")
    places = {
        "PHOTO": next((people / "eval/images").iterdir()), "PHOTOS": people / "eval/images", "DATA": people / "train",
        "TABLE": table, "BELOW_TABLE": table / "runs", "OTHERS": tmp_path / "others/train", "LINK": tmp_path / "link",
        "EMPTY": "", "TENSORBOARD_LINK": f"tensorboard={tmp_path / 'link'}", "BELOW_LINK": tmp_path / "link/x.csv",
    }  # fmt: skip
    commands = [[str(places.get(word, word)) for word in mistake.split()] for mistake in mistakes]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=json.dumps(commands), capture_output=True, text=True, cwd=ROOT, check=False,
        env={**os.environ, "ORCH_WORKSPACE": str(workspace)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert len(results) == len(mistakes) >= 10
    for (mistake, message), (code, printed, modules) in zip(mistakes.items(), results, strict=True):
        assert (code, message in printed) == (2, True), (mistake, printed)
        assert not heavy & set(modules), mistake


def test_networks_that_a_user_chose_are_judged_together_with_the_data(
    orch: Orch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, recipe = tmp_path / "table.csv", tmp_path / "mine.toml"
    table.write_text("path,person,age\na.jpg,one,30,\n")
    assert orch("recipes", "copy", "age", "quick", recipe).code == 0
    recipe.write_text(recipe.read_text().replace('backbone = "', 'backbone = "no_'))
    words = ("train", "age", "--data", table, "-w", tmp_path / "runs")
    for more in (("--set", "backbone=no_such"), ("--set", "age.backbone=no_such"), ("--recipe", recipe)):
        done = orch(*words, *more)
        assert done.code == 2
        assert "line 2: 4 fields, where the header has 3" in done.err, more
        assert "age: backbone = 'no_" in done.err, more
    monkeypatch.setattr(device_names, "GPU_FILES", ("null",))  # as where a driver is loaded
    done = orch(*words, "--device", "cuda:99")
    assert "--device cuda:99: " in done.err
    assert "line 2: 4 fields" in done.err
    assert not (tmp_path / "runs").exists()
