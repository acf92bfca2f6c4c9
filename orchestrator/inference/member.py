"""One member, loaded from its folder and ready to answer: pixels in, class probabilities out."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from orchestrator.artifacts.cards import CARD, WEIGHTS, MemberCard, retrain_advice
from orchestrator.artifacts.run import RunRecord, member_folder
from orchestrator.artifacts.weights import load_weights
from orchestrator.combining.answers import Answers, Voter
from orchestrator.core.errors import DamagedError, Problem, WeightsError, WorkspaceError
from orchestrator.core.files import digest_of
from orchestrator.core.labels import CLASS_COUNTS, CLASSES, of_tasks, tasks_of
from orchestrator.core.sealed import damaged_error
from orchestrator.data.preprocessing import Preprocess
from orchestrator.networks.backbones import create
from orchestrator.networks.heads import Head, head_from_dict
from orchestrator.networks.layers import channels_last
from orchestrator.networks.lean import timm
from orchestrator.networks.views import mean_over_views

__all__ = ["AnswerFunction", "Member", "MemberFiles", "answers_of", "check_finite", "load_members", "voters_of"]


@dataclass(frozen=True)
class MemberFiles:
    """The files of a member, and what they must contain.

    Attributes:
        task: its specialist, or `joint`.
        run: id of its run.
        fold: the fold that it holds out; None: none.
        folder: folder with the card and the weights.
        sha256: hash of the weights by the ensemble's record; empty: trust the card.
        function: digest of what the member computes, by the ensemble's record; empty: trust the card.
        votes_in: the tasks in which it votes; empty: all that it answers.
    """

    task: str
    run: str
    fold: int | None
    folder: Path
    sha256: str = ""
    function: str = ""
    votes_in: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Member:
    """One member, loaded on a device and ready to answer.

    Attributes:
        folder: the folder that it was loaded from.
        task: its specialist.
        run: id of its run.
        fold: the fold that it holds out; None: none.
        backbone: a timm model name.
        pooling: how the last feature map is pooled; empty: the backbone's own way.
        views: views whose answers are averaged with the photo's own.
        head: what the network's outputs mean.
        preprocess: from decoded photos to the network's input.
        precision: the recipe's precision.
        sha256: hash of the weights.
        network: in evaluation mode, on its device.
        votes_in: the tasks in which it votes; empty: all that it answers.
    """

    folder: Path
    task: str
    run: str
    fold: int | None
    backbone: str
    pooling: str
    views: tuple[str, ...]
    head: Head
    preprocess: Preprocess
    precision: str
    sha256: str
    network: nn.Module
    votes_in: tuple[str, ...] = ()

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks in which it votes, in the order of the label's digits."""
        return self.votes_in or tasks_of(self.task)

    @property
    def name(self) -> str:
        """The member in words, `age-0001/fold-2`."""
        return f"{self.run}/{member_folder(self.fold)}"

    @property
    def kind(self) -> str:
        """A digest shared by members that differ in nothing but their weights."""
        return digest_of(
            [
                self.backbone,
                self.pooling,
                list(self.views),
                self.head.as_dict(),
                self.preprocess.as_dict(),
                self.precision,
            ]
        )[:16]


class AnswerFunction(nn.Module):
    """A member as one function of pixels: normalise, network, head, the mean over its views.

    Training, exports and all engines use these same steps, so that their results cannot diverge.
    """

    def __init__(self, member: Member) -> None:
        super().__init__()
        self.network = member.network
        self._head, self._preprocess, self._views = member.head, member.preprocess, member.views

    def forward(self, photos: Tensor) -> Tensor:
        """Class probabilities (N, C), float32, of pixels (N, H, W, 3), uint8, RGB, cropped and resized."""
        inputs = self._preprocess.normalise(photos)
        return mean_over_views(self._views, inputs, lambda view: self._head.probabilities(self.network(view)))


def voters_of(member: Member) -> tuple[Voter, ...]:
    """A member as a voter: one for its task; a joint network is one for each of its tasks, in the order of the label's digits."""
    return tuple(Voter(task, member.run, member.fold) for task in member.tasks)


def answers_of(members: Sequence[Member], probabilities: Sequence[NDArray[np.floating[Any]]]) -> Answers:
    """Members' probabilities as the answers of voters.

    Args:
        members: at least one member.
        probabilities: for each member an array (N, C) over the classes of its task.
    """
    voters = [voter for member in members for voter in voters_of(member)]
    arrays = [
        np.asarray(of_task, np.float32)
        for member, of_member in zip(members, probabilities, strict=True)
        for task, of_task in of_tasks(member.task, of_member).items()
        if task in member.tasks
    ]
    return Answers(CLASS_COUNTS, len(arrays[0]), tuple(voters), tuple(arrays))


def check_finite(member: Member, answers: NDArray[np.floating[Any]]) -> None:
    """Rejects answers that are NaN or infinite, before they are used, saved or sent.

    Raises:
        WorkspaceError: an answer is NaN or infinite; the message names the member and the way out.
    """
    if not np.isfinite(answers).all():
        raise WorkspaceError(
            f"{member.folder}: this member's answers are NaN or infinite. Retrain that fold; if it was trained in fp16, with "
            "precision = bf16 or fp32."
        )


def load_members(
    files: Sequence[MemberFiles],
    device: str = "cpu",
    loaded: Callable[[int, int], None] = lambda _done, _all: None,
) -> list[Member]:
    """Loads an ensemble's members.

    Args:
        files: the members' files; the members are returned in this order.
        device: `cpu`, `cuda` or `cuda:N`.
        loaded: called with (members loaded, members in all).

    Raises:
        WorkspaceError: files that are missing, changed, or do not fit the network of their card; all at once.
    """
    members: list[Member] = []
    problems: list[Problem] = []
    layouts = _EmptyNetworks()
    for number, member in enumerate(files, start=1):
        try:
            members.append(_load(member, device, layouts))
        except DamagedError as error:
            problems.append(_first_cause(error, member.folder.parent).problem("damaged"))
        except (WorkspaceError, WeightsError) as error:
            problems.append(Problem(str(member.folder), error.message))
        loaded(number, len(files))
    if problems:
        causes = list(dict.fromkeys(problems))  # members of a run whose record is damaged share that as their cause
        raise WorkspaceError(f"{len(problems)} of the ensemble's {len(files)} members cannot be used:", causes)
    return members


def _first_cause(error: DamagedError, run: Path) -> DamagedError:
    """The error of a member's run, where its record is damaged too: it has the way out that works then."""
    try:
        RunRecord.load(run)
    except DamagedError as error_of_run:
        return error_of_run
    return error


def _load(files: MemberFiles, device: str, layouts: _EmptyNetworks) -> Member:
    card, task = MemberCard.load(files.folder), files.task
    if files.function and card.function != files.function:
        raise damaged_error(
            files.folder / CARD,
            "not the card of the member that the ensemble was built from",
            retrain_advice(files.folder),
        )
    if card.task != task or card.classes != CLASSES[task]:
        raise WorkspaceError(
            f"a member for {card.task} with the classes {', '.join(card.classes)}; "
            f"needed: {task} with {', '.join(CLASSES[task])}."
        )
    if not timm.is_model(card.backbone.split(".")[0]):
        raise WorkspaceError(
            f"its backbone '{card.backbone}' is unknown to timm {timm.__version__}; it was trained "
            f"with timm {card.versions['timm']}. Install that version."
        )
    try:
        head, preprocess, precision = head_from_dict(card.head), Preprocess.from_dict(card.preprocess), card.precision
    except (KeyError, TypeError, ValueError) as error:
        reason = f"not the card of a member of this version ({error})"
        raise damaged_error(files.folder / CARD, reason, retrain_advice(files.folder)) from None
    sha256 = files.sha256 or card.sha256[WEIGHTS]
    backbone, pooling, views = card.backbone, card.pooling, card.views
    network = layouts.network(backbone, pooling, head.outputs, preprocess, files.folder / WEIGHTS, sha256)
    network.requires_grad_(False)
    network = network.to(torch.device(device)).eval()
    return Member(
        files.folder, task, files.run, files.fold, backbone, pooling, views, head, preprocess, precision, sha256, network,
        files.votes_in,
    )  # fmt: skip


class _NoInit(TorchFunctionMode):
    """Skips the random initialisation of `torch.nn.init`: a member's weights replace it at once."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), options: Any = None) -> Any:
        options = options or {}
        if getattr(function, "__module__", "") == torch.nn.init.__name__:
            return args[0] if args else options["tensor"]
        return function(*args, **options)


class _EmptyNetworks:
    """Networks without memory for weights, one per architecture, to be copied for each member.

    A copy takes the tensors of the member's file as its own: building EfficientNet-Lite0 with random weights that are
    overwritten at once takes 47 ms, a copy 17 ms by `deepcopy` and 2 ms by pickling (in memory; files are never
    unpickled). Architectures with tensors that no file holds are built in full. Nothing is built on the device `meta`,
    where torch imports its compiler (1.3 s) even to multiply a weight by a number.
    """

    def __init__(self) -> None:
        self._pickled: dict[tuple[str, str, int, Preprocess], bytes | None] = {}

    def network(
        self, backbone: str, pooling: str, outputs: int, preprocess: Preprocess, weights: Path, sha256: str
    ) -> nn.Module:
        """A network with a member's weights.

        Raises:
            WorkspaceError: the file is missing or not the one that was written.
            WeightsError: the tensors do not fit the network.
        """
        key = (backbone, pooling, outputs, preprocess)
        if key not in self._pickled:
            try:
                with _NoInit():
                    built = create(backbone, outputs, geometry=preprocess.geometry, pooling=pooling)
                self._pickled[key] = pickle.dumps(built.to_empty(device="meta"))
            except Exception:  # what cannot be pickled differs by architecture
                self._pickled[key] = None
        layout = self._pickled[key]
        if layout is not None:
            network: nn.Module = pickle.loads(layout)
            load_weights(weights, network, sha256, adopt=True)
            if not any(tensor.is_meta for tensor in (*network.parameters(), *network.buffers())):
                return channels_last(network)
            self._pickled[key] = None
        network = create(backbone, outputs, geometry=preprocess.geometry, pooling=pooling)
        load_weights(weights, network, sha256)
        return network
