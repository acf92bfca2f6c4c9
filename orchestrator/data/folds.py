"""The fold plan: which person is held out when. One plan is shared by all specialists of a workspace.

People are split, never photos: one row per person, stratified by the joint class of gender and age band
(scikit-learn's StratifiedKFold), then expanded to photos. With one row per person this is simpler and more exact
than StratifiedGroupKFold, whose greedy assignment only approximates the shares.

A plan is drawn once. When the data grows it is extended: people keep their folds, whatever was corrected in their labels, and
newcomers are dealt out. So runs that were trained before and after can still be scored together.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.core.errors import PlanError
from orchestrator.core.files import digest_of
from orchestrator.core.labels import age_band_names
from orchestrator.core.sealed import damaged_error, read_sealed, write_sealed
from orchestrator.core.typed import check_types

__all__ = ["FoldPlan", "plan_folds", "stratum_names"]

PLAN_FORMAT = 3
KIND = "plan"


@dataclass(frozen=True)
class FoldPlan:
    """Assignment of people to the folds that hold them out.

    Attributes:
        k: number of folds, at least 2.
        seed: seed of the draw.
        fold_of: person -> fold in 0..k-1, for every person.
        strata: columns that were stratified by; empty if the table has neither gender nor age.
        ancestors: digests of the plans that it extends, the first drawn first; empty for a plan that was drawn.
    """

    k: int
    seed: int
    fold_of: Mapping[str, int]
    strata: tuple[str, ...]
    ancestors: tuple[str, ...] = ()

    @cached_property
    def digest(self) -> str:
        """sha256 (hex) of k and `fold_of`: equal plans have equal digests, however they were made."""
        return digest_of({"k": self.k, "fold_of": dict(self.fold_of)})

    def extended(self, people: pd.DataFrame) -> FoldPlan:
        """The plan with a fold for everybody: whoever has one keeps it, people who left the data too.

        Newcomers are dealt out by joint class, in an order drawn from the plan's seed and their names: each to the fold with
        the fewest people of the class, and among those to the one with the fewest people. The order of rows does not matter.

        Args:
            people: one row per person, indexed by key; columns `gender` and `age` (years) where known.
        """
        strata = stratum_names(people)
        is_new = ~people.index.isin(list(self.fold_of))
        if not is_new.any():
            return self
        fold_of = {**self.fold_of}
        known = [(fold_of[str(person)], stratum) for person, stratum in strata[~is_new].items()]
        of_class, in_all = Counter(known), Counter(fold for fold, _ in known)
        newcomers = strata[is_new]
        for person in sorted(newcomers.index, key=lambda person: (newcomers[person], _draw(self.seed, person))):
            stratum = newcomers[person]
            fold = min(range(self.k), key=lambda fold: (of_class[fold, stratum], in_all[fold], fold))
            fold_of[str(person)] = fold
            of_class[fold, stratum] += 1
            in_all[fold] += 1
        return FoldPlan(self.k, self.seed, dict(sorted(fold_of.items())), self.strata, (*self.ancestors, self.digest))

    def folds(self, persons: pd.Series[str]) -> NDArray[np.int64]:
        """The fold of each row's person, shape (N,).

        Raises:
            PlanError: the plan does not know a person: it was made for other data.
        """
        folds = persons.map(self.fold_of)
        if folds.isna().any():
            unknown = persons[folds.isna()].unique()
            raise PlanError(
                f"the fold plan {self.digest[:12]} does not know {len(unknown)} people of this data "
                f"({', '.join(map(str, unknown[:3]))} ...): it was made for other data."
            )
        return np.asarray(folds, dtype=np.int64)

    def split(self, persons: pd.Series[str], fold: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row numbers to train on and row numbers held out, for one fold; together they are all rows.

        Raises:
            PlanError: the plan has no such fold, or was made for other data.
        """
        if not 0 <= fold < self.k:
            raise PlanError(f"fold {fold} is not in this plan; allowed: 0 to {self.k - 1}.")
        is_held_out = self.folds(persons) == fold
        return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)

    @property
    def name(self) -> str:
        """Name of the plan: the first twelve digits of its digest."""
        return self.digest[:12]

    def save(self, path: Path) -> None:
        """Writes the plan as sealed JSON, atomically."""
        body = {
            "k": self.k, "seed": self.seed, "strata": list(self.strata), "ancestors": list(self.ancestors),
            "fold_of": dict(self.fold_of),
        }  # fmt: skip
        write_sealed(path, KIND, self.name, PLAN_FORMAT, body)

    @classmethod
    def load(cls, path: Path, name: str, way_out: str) -> FoldPlan:
        """Reads a plan that `save` wrote.

        Args:
            path: the file.
            name: name of the plan.
            way_out: how to go on without the file, as in `read_sealed`.

        Raises:
            DamagedError: the file is missing, damaged, or another plan's.
        """
        value = read_sealed(path, KIND, name, PLAN_FORMAT, way_out)
        try:
            plan = cls(value["k"], value["seed"], value["fold_of"], tuple(value["strata"]), tuple(value["ancestors"]))
            check_types(plan)
        except (KeyError, TypeError) as error:
            raise damaged_error(path, f"not a fold plan ({error})", way_out) from None
        if plan.name != name:
            raise damaged_error(path, f"the people in it are those of the plan {plan.name}", way_out)
        return plan


def plan_folds(people: pd.DataFrame, k: int, seed: int = 0) -> FoldPlan:
    """Draws a plan; the same people, k and seed give the same plan whatever the order of rows.

    Args:
        people: one row per person, indexed by key; columns `gender` and `age` (years) where known.
        k: number of folds, at least 2.
        seed: seed of the draw.

    Raises:
        PlanError: k is below 2 or larger than the smallest class.
    """
    people = people.sort_index()
    if k < 2:
        raise PlanError(f"--folds {k}: a plan needs at least 2 folds. (`--folds 0` trains on everything, unscored.)")
    strata = tuple(column for column in ("gender", "age") if column in people)
    stratum_of_person = stratum_names(people)
    sizes = stratum_of_person.value_counts() if strata else pd.Series({"people": len(people)})
    smallest = str(sizes.index[-1])
    if k > sizes.iloc[-1]:
        raise PlanError(
            f"--folds {k} is larger than the smallest class: '{smallest}' has {sizes.iloc[-1]} "
            f"{'person' if sizes.iloc[-1] == 1 else 'people'}, and each fold needs one to hold out. "
            f"Use --folds {sizes.iloc[-1]} or fewer, or add people of that class."
            if sizes.iloc[-1] > 1
            else f"--folds {k}: the class '{smallest}' has a single person, so it cannot be on both sides of any "
            "split. Add people of that class, or leave that person out."
        )
    from sklearn.model_selection import KFold, StratifiedKFold  # a slow import (1 s), not needed for prediction

    splitter: Any = StratifiedKFold if strata else KFold
    fold_of: dict[str, int] = {}
    parts = splitter(n_splits=k, shuffle=True, random_state=seed).split(np.zeros(len(people)), stratum_of_person)
    for fold, (_, held) in enumerate(parts):
        fold_of.update({str(person): fold for person in people.index[held]})
    return FoldPlan(k, seed, dict(sorted(fold_of.items())), strata)


def _draw(seed: int, person: object) -> bytes:
    """A person's place in the order in which newcomers are dealt out; the same on every machine."""
    return hashlib.sha256(f"{seed} {person}".encode("utf-8", "surrogateescape")).digest()


def stratum_names(people: pd.DataFrame) -> pd.Series[str]:
    """The name of each person's joint class, `female <30`."""
    strata = pd.Series("", index=people.index)
    if "gender" in people:
        strata += people["gender"].astype(str)
    if "age" in people:
        strata = (strata + " " + pd.Series(age_band_names(people["age"]), index=people.index)).str.strip()
    return strata
