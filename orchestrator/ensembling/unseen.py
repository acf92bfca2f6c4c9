"""Held-out data: which of its people an ensemble's members have seen, by their photos' content and by their names."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.core.errors import Problem, quantity
from orchestrator.data.spelling import near, visible

__all__ = ["SEEN_NAME", "SEEN_PHOTO", "SeenPeople", "seen_people"]

SEEN_PHOTO, SEEN_NAME = "seen_photo", "seen_name"
"""Kinds of problems: what gave a person away."""


@dataclass(frozen=True, eq=False)
class SeenPeople:
    """People of held-out data whom members may have seen.

    Attributes:
        rows: whether each photo is of such a person, shape (N,), bool.
        problems: one for each such person, with what gave them away.
    """

    rows: NDArray[np.bool_]
    problems: tuple[Problem, ...]


def seen_people(
    persons: pd.Series[str], content: Sequence[str], hashes: Set[str], names: Set[str], distinct: bool = False
) -> SeenPeople:
    """Finds the people of whom a photo was trained on, or whose name, or almost the same, a person of the training has.

    One photo that was trained on gives the whole person away: a member that has learned a face knows it in other photos too.

    Args:
        persons: the person of each photo, shape (N,).
        content: sha256 of each photo's file, in the same order.
        hashes: sha256 of the files that members were trained on.
        names: names of the people whom members were trained on.
        distinct: whether equal names mean other people: then photos alone tell.
    """
    near_names = {} if distinct else {near(name): name for name in names}
    problems, seen = [], set[str]()
    trained_on = pd.Series([digest in hashes for digest in content], index=persons.index)
    for person, photos in trained_on.groupby(persons, sort=True).sum().items():
        name = near_names.get(near(str(person)))
        kind = SEEN_PHOTO if photos else SEEN_NAME
        if photos:
            what = f"{quantity(int(photos), 'photo')} of this person {'was' if photos == 1 else 'were'} trained on."
        elif str(person) in names and not distinct:
            what = "a person of this name was trained on."
        elif name is not None:
            what = f"its name is spelt almost as that of '{visible(name)}', who was trained on."
        else:
            continue
        seen.add(str(person))
        problems.append(Problem(visible(str(person)), what, kind=kind))
    return SeenPeople(persons.isin(seen).to_numpy(), tuple(problems))
