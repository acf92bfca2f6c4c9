"""Three specialists (age, gender, mask), one honest ensemble, for photos of people.

The command line (`orch --help`) and `orchestrator.api` do the same things; `pipeline/training.py` tells the training story
on one page. Importing this package imports nothing heavy.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
