"""The command line: a command parses, makes one library call and prints.

Results go to stdout, talk and progress to stderr, `--json` is for machines. Nothing heavy is imported before a command
needs it.
"""

import time

__all__ = ["BEGAN"]

BEGAN = time.monotonic()
"""When the program began, before anything heavy was imported: a command's minutes are those that its user waited."""
