"""Runs put together: scored out of fold with intervals over people, saved, chosen, held against each other."""
