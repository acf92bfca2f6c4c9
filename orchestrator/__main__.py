"""`python -m orchestrator`: the same as `orch`."""

from orchestrator.cli.app import program

if __name__ == "__main__":
    program()
