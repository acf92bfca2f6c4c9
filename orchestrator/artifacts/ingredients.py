"""What a training is made from, as digests: a run's key and its members' identities follow from them, and from nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from orchestrator.core.files import digest_of

__all__ = ["Ingredients"]


@dataclass(frozen=True)
class Ingredients:
    """All that the members of a run have in common, and that their weights depend on, but for the machine.

    Whatever else weights come to depend on belongs here: a run that differs in it must not be taken for another.

    Attributes:
        task: task of the specialist, or `joint`.
        recipe: digest of the recipe.
        weights: sha256 of the initial weights; empty: random weights.
        data: fingerprint of photos and labels.
        plan: digest of the fold plan; None without one.
        extra: fingerprint of the extra photos; None without any.
    """

    task: str
    recipe: str
    weights: str
    data: str
    plan: str | None
    extra: str | None

    def member_id(self, fold: int | None, seed: int) -> str:
        """The identity of a member, machine and number of threads aside.

        Args:
            fold: held-out fold; None: no fold.
            seed: seed of its training.
        """
        return digest_of([self.task, fold, self.recipe, self.weights, self.data, self.plan, seed, self.extra])

    def run_key(self, folds: Sequence[int | None], seed: int, device: str, parent: str | None) -> str:
        """The key of a run: a command resumes, or finds, a run of the same key.

        Args:
            folds: folds that the run trains itself.
            seed: seed of the training.
            device: `cpu`, `cuda` or `cuda:N`; all GPUs count as one.
            parent: the run that other members are shared with.
        """
        part = {"folds": list(folds), "seed": seed, "device": device.partition(":")[0], "parent": parent}
        return digest_of({**asdict(self), **part})
