"""The command line: a command parses, calls the library and prints.

Results go to stdout, messages and progress to stderr, `--json` is for machines. Nothing heavy is imported before a
command needs it.
"""

import time

__all__ = ["BEGAN"]

BEGAN = time.monotonic()
"""Start time of the program, before the heavy imports, so that reported times are what the user waited."""
