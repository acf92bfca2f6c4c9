"""The `orch` command: its groups, and the one place where errors become sentences."""

from __future__ import annotations

import atexit
import errno
import gc
import os
import sys
import threading
from contextlib import suppress

import typer

from orchestrator import __version__
from orchestrator.cli import (
    bench,
    cascade,
    data,
    demo,
    ensemble,
    ensembles,
    export,
    predict,
    pseudo,
    recipes,
    runs,
    submissions,
    sweep,
    train,
    tta,
)
from orchestrator.cli.console import warn
from orchestrator.errors import OrchestratorError

__all__ = ["app", "main", "program"]

COLLECT_EVERY = (
    1_000_000  # objects more than before; Python's own 700 is meant for programs that do not begin by importing torch
)

app = typer.Typer(
    name="orch",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Three specialists (age, gender, mask), one honest ensemble, for photos of people.\n\n"
    "\b\n"
    "Begin with:\n"
    "  orch demo                         the whole on synthetic people\n"
    "  orch data check --data DIR        is my data in order?\n"
    "  orch train-all --data DIR         three specialists, five folds\n"
    "  orch ensemble --strategy soft     fuse them, score them honestly\n"
    "  orch predict --eval DIR --out answers.csv      the submission",
)
app.command("demo", rich_help_panel="Start here")(demo.demo)
app.command("train-all", rich_help_panel="Train")(train.train_all)
app.command("train", rich_help_panel="Train")(train.train)
app.command("sweep", rich_help_panel="Train")(sweep.sweep)
app.command("ensemble", rich_help_panel="Ensemble and predict")(ensemble.ensemble)
app.command("cascade", rich_help_panel="Ensemble and predict")(cascade.cascade)
app.command("predict", rich_help_panel="Ensemble and predict")(predict.predict)
app.command("pseudo", rich_help_panel="Ensemble and predict")(pseudo.pseudo)
app.command("tta", rich_help_panel="Ensemble and predict")(tta.tta)
app.command("export", rich_help_panel="Ensemble and predict")(export.export)
app.command("bench", rich_help_panel="Data and records")(bench.bench)
app.add_typer(data.app, name="data", rich_help_panel="Data and records")
app.add_typer(runs.app, name="runs", rich_help_panel="Data and records")
app.add_typer(ensembles.app, name="ensembles", rich_help_panel="Data and records")
app.add_typer(submissions.app, name="submissions", rich_help_panel="Data and records")
app.add_typer(recipes.app, name="recipes", rich_help_panel="Data and records")


@app.callback(invoke_without_command=True)
def root(
    version: bool = typer.Option(False, "--version", help="Print the version and stop.", is_eager=True),
) -> None:
    """Handles `--version`."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


def program() -> None:
    """`orch` as a program: `main` with rarer garbage collections, and an end that leaves freeing memory to the system.

    Importing torch and timm makes so many objects that collecting among them took 0.6 of 2.8 s here, and taking them apart at the
    end 0.9 s. mypy ends in the same way (mypy.util.hard_exit).
    """
    gc.set_threshold(COLLECT_EVERY)
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    threading._shutdown()  # type: ignore[attr-defined]  # Python's own order: loky ends its idle workers here, not by atexit,
    atexit._run_exitfuncs()  # which would wait five minutes for them
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # whoever read it is gone
            stream.flush()
    os._exit(code)


def main() -> None:
    """Runs the command line; exit code 0: done, 1: not in order or partly failed, 2: wrong input, 130: interrupted."""
    try:
        app()
    except OrchestratorError as error:
        if debugging():
            raise
        warn(str(error))
        sys.exit(2)
    except BrokenPipeError:  # `orch ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except MemoryError:
        if debugging():
            raise
        warn("Out of memory. Lower --jobs, batch_size or the input size (--set batch_size=16).")
        sys.exit(2)
    except Exception as error:  # the last net: whatever was not foreseen is told as our fault
        if debugging():
            raise
        if type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error):  # torch's words
            warn("Out of memory. Lower --batch (predict), or --jobs, batch_size and the input size (train).")
            sys.exit(2)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            where = f": {error.filename}" if error.filename else ""
            warn(f"The disk is full{where}. Free some room and run the same command again.")
            sys.exit(2)
        if isinstance(error, OSError) and error.filename:
            warn(f"{error.filename}: {error.strerror}.")
            sys.exit(2)
        warn(
            f"This is a fault in orch, not in your input: {type(error).__name__}: {error}\n"
            "Run it again with ORCH_DEBUG=1 for the traceback, and report it."
        )
        sys.exit(70)  # EX_SOFTWARE of sysexits.h


def debugging() -> bool:
    """Whether tracebacks are wanted."""
    return os.environ.get("ORCH_DEBUG", "") not in ("", "0")
