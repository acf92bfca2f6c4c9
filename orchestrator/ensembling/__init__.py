"""Ensembles of runs: scored out of fold with intervals over people, saved, chosen, compared."""
