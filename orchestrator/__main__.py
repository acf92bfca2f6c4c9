"""`orch`, and `python -m orchestrator`."""

import sys


def program() -> None:
    """Imports the command line and runs it; Ctrl-C while it is imported ends the command as later."""
    try:
        from orchestrator.cli.app import program as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted.\n")
        sys.exit(130)


if __name__ == "__main__":
    program()
