"""Batches for training and for scoring, in an order and with augmentation that depend on the seed alone.

Each batch is drawn as a whole by its number, and augmented with a seed of its own, so the same epoch gives the same
bits with any number of DataLoader workers, or none. Workers end with their parent, and waiting for a batch always ends.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from orchestrator.core.errors import TrainingError, first_line
from orchestrator.core.interrupts import uninterrupted
from orchestrator.data.augmentation import Augmenter
from orchestrator.data.sharing import WIDEN, shared_room, start_context, why_no_parallelism
from orchestrator.data.store import Rows

__all__ = ["AHEAD", "Batches", "load", "why_no_workers"]

AHEAD = 4  # batches that each DataLoader worker has ready
MARGIN = 16 * 1024**2  # bytes of shared memory left for joblib's semaphores and other programs
PATIENCE = 900  # seconds to wait for one batch: decoding a large one from a slow network disk takes minutes
WITHOUT = "--set workers=0 loads in the training's own process"

Item = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Batches(Dataset[Item]):
    """The batches of one pass.

    Attributes:
        pixels: source of pixels.
        rows: row numbers of the table, in order, shape (n,).
        size: photos per batch; the last batch may be smaller.
        augmenter: augmentation; None for scoring.
        seed: augmentation seed of this pass.
    """

    pixels: Rows
    rows: NDArray[np.int64]
    size: int
    augmenter: Augmenter | None = None
    seed: int = 0

    def __len__(self) -> int:
        return math.ceil(len(self.rows) / self.size)

    def __getitem__(self, number: int) -> Item:
        """Pixels (n, H, W, 3) uint8 and their rows (n,) int64."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        rows = self.rows[number * self.size : (number + 1) * self.size]
        pixels = self.pixels.take(rows)
        if self.augmenter is not None:
            seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
            pixels = self.augmenter(pixels, seed)
        return torch.from_numpy(np.ascontiguousarray(pixels)), torch.from_numpy(rows)


@dataclass(frozen=True)
class _Sent(Dataset[Any]):
    """Batches as a DataLoader worker sends them: in shared memory if it has room, through a pipe otherwise.

    Exceptions are sent too, unchanged: torch would replace our messages with its own report and a traceback. Memory is
    shared here, where a failure can be caught: torch shares it in a thread of its queue, where a failure loses the
    batch and the receiver waits forever.
    """

    batches: Batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> Any:
        try:
            batch = self.batches[number]
        except Exception as error:  # of any kind: it must reach the training process
            return _portable(error)
        room = shared_room()
        if room is None or sum(tensor.nbytes for tensor in batch) + MARGIN < room:
            try:
                return tuple(tensor.share_memory_() for tensor in batch)  # type: ignore[no-untyped-call]  # torch has no types here
            except (OSError, RuntimeError):  # torch raises either if the room is gone or not writable
                pass
        return tuple(tensor.numpy() for tensor in batch)


def _portable(error: Exception) -> Exception:
    """An error that can be sent to another process, with its traceback as a note."""
    error.add_note("In a DataLoader worker: " + traceback.format_exc())
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # an exception of a library with a constructor of its own
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _as_sent(batch: Any) -> Any:
    """Returns the batch unchanged: torch would convert it to tensors in shared memory."""
    return batch


def _begin(_: int) -> None:
    """Prepares a DataLoader worker: it ends with its parent, however that ends, and leaves Ctrl-C to it.

    A signal that stops all processes of a command ends it as if its work were done: for a worker that is killed, torch raises
    an error in the parent, wherever that is at the moment, even while it ends.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, lambda *_: os._exit(0))
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    # The thread that hands over shared memory fails if the receiver was stopped halfway: there is nothing to report.
    sys.excepthook = lambda *_: None
    cv2.setNumThreads(1)


def why_no_workers(workers: int) -> str:
    """Why this many DataLoader workers cannot be started, with the way out; empty if they can."""
    reason = why_no_parallelism(3 * workers + 8)  # torch's queues and event
    return f"workers = {workers}: {reason} {WIDEN} {WITHOUT}." if reason else ""


def load(batches: Batches, workers: int, pin: bool = False) -> Iterator[Item]:
    """Iterates over batches, prepared in `workers` processes ahead of use (0: in this one).

    Args:
        batches: what to load.
        workers: number of DataLoader workers; on a CPU the network itself uses every core, so 0 is fastest there.
        pin: whether to use page-locked memory, for copies to a GPU that overlap with its work.

    Raises:
        TrainingError: DataLoader workers cannot be started, or one of them died or timed out.
    """
    if not workers:
        yield from DataLoader(batches, batch_size=None, shuffle=False, pin_memory=pin)
        return
    if why := why_no_workers(workers):
        raise TrainingError(why)
    cv2.setNumThreads(1)  # a forked process would wait for OpenCV's threads, which exist only in its parent
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")  # more than cores: the user's choice
        loader: DataLoader[Any] = DataLoader(
            _Sent(batches), batch_size=None, shuffle=False, num_workers=workers, pin_memory=pin, prefetch_factor=AHEAD,
            collate_fn=_as_sent, timeout=PATIENCE, worker_init_fn=_begin, multiprocessing_context=start_context(),
        )  # fmt: skip
    for batch in _received(loader, workers):
        if isinstance(batch, Exception):
            raise batch
        pixels, rows = (part if isinstance(part, torch.Tensor) else torch.from_numpy(part) for part in batch)
        yield pixels, rows


def _received(loader: DataLoader[Any], workers: int) -> Iterator[Any]:
    """What DataLoader workers send; torch's errors about them are raised as a TrainingError."""
    try:
        yield from uninterrupted(
            lambda: iter(loader)
        )  # an iterator that is half made cannot be cleaned up without an error
    except (RuntimeError, OSError) as error:
        raise TrainingError(_worker_message(error, workers)) from error


def _worker_message(error: Exception, workers: int) -> str:
    """Our message for torch's error about its DataLoader workers."""
    message = str(error)
    if "timed out" in message:
        return f"none of {workers} DataLoader workers had a batch ready within {PATIENCE:g} seconds. {WITHOUT}."
    if "exited unexpectedly" in message or "killed by signal" in message:
        fewer = f"fewer need less (--set workers={workers // 2}), and " if workers > 1 else ""
        return f"one of {workers} DataLoader workers died, most likely because memory ran out: {fewer}{WITHOUT}."
    return f"{workers} DataLoader workers: {first_line(error)}. {WITHOUT}."
