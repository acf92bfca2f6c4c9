"""Training in the terminal: the display and the trackers while it runs, and the report at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from orchestrator.cli.console import (
    duration_text,
    elapsed,
    grid,
    print_error,
    print_json,
    print_message,
    print_profile,
    score_text,
    stdout_console,
)
from orchestrator.cli.endings import stop_code
from orchestrator.cli.listing import recipe_of
from orchestrator.core.events import Listener, forward_to_all

if TYPE_CHECKING:
    from orchestrator.pipeline.training import Report

__all__ = ["UNFINISHED", "listening", "report_training"]

UNFINISHED = (
    "Complete members are kept. Fix the causes above: the same command then trains what is missing, and other "
    "settings make another run."
)
"""The message below the causes of a training that is not complete."""


@contextmanager
def listening(track: list[str], workspace: Path) -> Iterator[Listener]:
    """The terminal's display, and the trackers that `--track` names; ends an interrupted training calmly: Ctrl-C with exit code
    130, SIGTERM with 143.
    """
    from orchestrator import api
    from orchestrator.cli.display import TrainingDisplay

    display = TrainingDisplay()
    with api.tracking(track, workspace=workspace) as tracked:  # closed last: sending may take long
        try:
            yield forward_to_all(tracked, display)
        except KeyboardInterrupt:
            display.close()
            print_message("\nInterrupted. Finished work is kept: the same command continues from there.")
            raise typer.Exit(stop_code()) from None
        finally:
            display.close()


def report_training(report: Report, json: bool, next_step: Callable[[], str] | None = None) -> None:
    """Prints the table of what is complete and what failed; exit code 1 when something failed.

    Args:
        report: how training ended.
        json: whether to print JSON instead.
        next_step: what to do next, as a sentence; asked for last, and only where all is complete and people read it.
    """
    from orchestrator.artifacts.summary import cards_of, profile_of, run_as_dict, score_of

    profiles = {run.id: profile for run in report.runs if (profile := profile_of(run, report.trained.get(run.id, ())))}
    if json:
        failures = [{"run": run, "fold": fold, "reason": reason} for (run, fold), reason in report.failures.items()]
        print_json(
            {
                "runs": [run_as_dict(run) for run in report.runs],
                "failures": failures,
                "seconds": report.seconds,
                "profile": profiles,
            }
        )
    else:
        table = grid("", "run", "specialist", "recipe", "members", "macro F1", "state")
        for run in report.runs:
            score = score_of(run)
            score_shown = "-" if score is None else score_text(score)
            members = f"{len(cards_of(run))}/{len(run.folds)}"
            state = run.status if not any(key[0] == run.id for key in report.failures) else "failed"
            table.add_row(run.id, run.task, recipe_of(run), members, score_shown, state)
        stdout_console().print(table)
        print_message(f"{duration_text(elapsed())} in all.")
        if profiles:
            print_profile(profiles, elapsed(), report.at_once, report.training)
    for (run_id, fold), reason in report.failures.items():
        print_error(f"{run_id} {'all' if fold is None else f'fold {fold}'}: {reason}")
    if not report.complete:
        print_message(UNFINISHED)
        raise typer.Exit(1)
    if next_step is not None and not json:
        print_message(next_step())
