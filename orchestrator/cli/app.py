"""The `orch` command: its groups, and the one place where errors become sentences."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
import warnings

import typer

from orchestrator import __version__
from orchestrator.cli import BEGAN
from orchestrator.cli.console import begin, has_emitted, print_json, print_message, print_result, show_log_messages
from orchestrator.cli.conversion import plain_conversion
from orchestrator.cli.endings import (
    debugging,
    end_undisturbed,
    ending_of,
    out_of_memory,
    report_ending,
    signals_as_interrupts,
    stop_code,
)
from orchestrator.cli.groups import Entry, LazyGroup
from orchestrator.cli.limits import in_child, is_limited
from orchestrator.cli.streams import configure_streams, in_utf8

__all__ = ["ENTRIES", "app", "main", "program"]

COLLECT_EVERY = (
    1_000_000  # new objects between collections; Python's 700 is meant for programs that do not import torch first
)

FEEDER_SECONDS = 1.0  # a feeder's end takes milliseconds, unless it waits for a worker that no longer reads

CALM = ("usage", "interrupted")  # no traceback helps with these

START, TRAIN, FUSE, RECORDS = "Start here", "Train", "Ensemble and predict", "Data and records"

ENTRIES = (
    Entry(
        "demo",
        START,
        "Draw synthetic people, train the three specialists, fuse them, predict: all once, without real photos.",
    ),
    Entry(
        "train-all", TRAIN, "Train the three specialists over the folds of one plan of people.", "train", "train_all"
    ),
    Entry("train", TRAIN, "Retrain one specialist into a new run; the others' files are not touched."),
    Entry(
        "resume",
        TRAIN,
        "Complete a run from its record alone: train the members that are missing or damaged, and nothing else.",
    ),
    Entry("sweep", TRAIN, "Search for better settings of one specialist, or tune it stage by stage."),
    Entry(
        "ensemble", FUSE, "Fuse the specialists' runs, score them out of fold, and save the ensemble for prediction."
    ),
    Entry(
        "cascade",
        FUSE,
        "Measure how few members suffice for the same labels, and save that for `orch predict --cascade`.",
    ),
    Entry(
        "predict",
        FUSE,
        "Predict photos: print a table or JSON, or write a file of answers or the contest's submission.",
    ),
    Entry("evaluate", FUSE, "Score an ensemble on labelled photos of people whom none of its members has seen."),
    Entry("pseudo", FUSE, "Write pseudo-labels for training: an ensemble's confident answers for unlabelled photos."),
    Entry(
        "tta",
        FUSE,
        "Test-time augmentation: what a run's members would answer with several views of each photo; nothing is trained.",
    ),
    Entry(
        "export",
        FUSE,
        "Write an ensemble's members as ONNX files for use elsewhere, each checked against torch on photos.",
    ),
    Entry(
        "bench",
        RECORDS,
        "Measure training, prediction and voting on this machine, each against its lower bound.",
    ),
    Entry(
        "data",
        RECORDS,
        "Photos and their tables: check, find copies, compare, describe, find faces, split, synthesise.",
        attribute="app",
    ),
    Entry("runs", RECORDS, "Runs: list, show, compare, choose, delete.", attribute="app"),
    Entry("ensembles", RECORDS, "Ensembles: list, compare, look into, choose, delete.", attribute="app"),
    Entry("workspace", RECORDS, "The workspace's own files: check and repair them.", attribute="app"),
    Entry("submissions", RECORDS, "Submission files: compare two.", attribute="app"),
    Entry("recipes", RECORDS, "Recipes: list, show, compare, check and copy them.", attribute="app"),
)
"""Each command's first sentence is repeated here, so that listing commands imports none; a test keeps both equal."""


class _Commands(LazyGroup):
    entries = ENTRIES


app = typer.Typer(
    name="orch",
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Three specialists (age, gender, mask), one honest ensemble, for photos of people.\n\n"
    "\b\n"
    "Begin with:\n"
    "  orch demo                         the whole workflow on synthetic people\n"
    "  orch data check --data DIR        is my data in order?\n"
    "  orch train-all --data DIR         three specialists, five folds\n"
    "  orch ensemble --strategy soft     fuse them, score them honestly\n"
    "  orch predict --eval DIR --out answers.csv      the submission",
)


@app.callback(invoke_without_command=True)
def root(
    version: bool = typer.Option(False, "--version", help="Print the version and stop.", is_eager=True),
) -> None:
    """Options of `orch` itself: `--version` prints and stops."""
    if version:
        print_result(__version__)
        raise typer.Exit


def program() -> None:
    """`orch` as a program: `main` with rarer garbage collections, and an end that leaves freeing memory to the system.

    Importing torch and timm makes so many objects that collecting garbage took 0.6 of 2.8 s here, and freeing them at
    the end 0.9 s. mypy ends in the same way (mypy.util.hard_exit).
    """
    in_utf8()
    if is_limited():
        in_child(_without_memory)
    # Reported in our own words where several processes are wanted (data/sharing.py).
    warnings.filterwarnings("ignore", message=".*joblib will operate in serial mode")
    warnings.filterwarnings(
        "ignore", message=".*adjusting the input task iterator"
    )  # joblib's, when it is stopped on purpose
    gc.set_threshold(COLLECT_EVERY)
    code = 0
    try:
        main(BEGAN)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    end_undisturbed()
    _end_idle_workers()
    threading._shutdown()  # type: ignore[attr-defined]  # Python's own order: loky ends its executor here, not by atexit,
    atexit._run_exitfuncs()  # which would wait five minutes for it
    _end_feeders()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:  # results that went into a file on a full disk are not done
            ending = ending_of(error)
            code = code or ending.code
            if stream is sys.stdout:
                report_ending(ending, json=False)
    os._exit(code)


def _end_idle_workers() -> None:
    """Kills workers that joblib keeps for a next call: ending by themselves, each takes torch apart first, for seconds."""
    reusable = sys.modules.get("joblib.externals.loky.reusable_executor")
    executor = None if reusable is None else reusable._executor
    if executor is not None:
        executor.shutdown(kill_workers=True)


def _end_feeders() -> None:
    """Waits for the threads that fed workers' queues: they may be deleting semaphores, and stopped between deleting one
    and reporting it, they make loky warn of a leak."""
    for thread in threading.enumerate():
        if thread.name == "QueueFeederThread":
            thread.join(FEEDER_SECONDS)


def _without_memory() -> int:
    """Reports that the command ran out of memory, and returns the exit code for that."""
    configure_streams()
    ending = out_of_memory()
    report_ending(ending, "--json" in sys.argv[1:])
    return ending.code


def main(began: float | None = None) -> None:
    """Runs the command line and exits; the codes are listed in `endings`.

    Args:
        began: start of the process, by time.monotonic; None: now.
    """
    configure_streams()
    begin(began)
    show_log_messages()
    json = "--json" in sys.argv[1:]
    with signals_as_interrupts(), plain_conversion():
        try:
            code = typer.main.get_command(app).main(standalone_mode=False)
        except typer.Abort:
            print_message("Aborted.")
            code = 1
        except SystemExit:
            raise
        except BaseException as error:  # every exception, signals included, ends in a message and a code
            ending = ending_of(error)
            if debugging() and ending.kind not in CALM:
                raise
            report_ending(ending, json)
            code = ending.code
        else:
            code = code if isinstance(code, int) else 0
            if code == stop_code() and json and not has_emitted():
                print_json(ending_of(KeyboardInterrupt()).as_dict())  # the command has said it in words
        sys.exit(code)
