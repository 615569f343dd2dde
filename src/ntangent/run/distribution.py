"""Processes that train together: rank 0 leads and decides, the others compute their share.

Only the leader runs optimisers, callbacks and the run folder. What it needs of the others it announces
in a message; all ranks then enter the same collective operations. So no decision is taken twice, and
ranks cannot diverge.
"""

from __future__ import annotations

import io
import pickle
import re
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ntangent._base.errors import ArgumentError, DistributedError

T = TypeVar("T")
# How long a rank waits for the others: the leader may be busy with a factorisation or a figure.
PATIENCE = timedelta(minutes=30)
# The last process group and its team. Weak: a group that outlives ``destroy_process_group`` may abort the
# process at its end.
_last: tuple[Any, Team] | None = None


@dataclass(frozen=True)
class Team:
    """The ranks of a ``torch.distributed`` process group.

    Use ``current``, not the constructor.

    Args:
        rank: of this process; 0 leads.
        size: number of ranks.
        find: returns a group of all ranks with gloo for the CPU, which notices at once when a process
            ends; None for the default one.
        nccl: whether CUDA tensors go through NCCL; else they take the way over the CPU.
    """

    rank: int
    size: int
    find: Callable[[], Any]
    nccl: bool

    @property
    def channel(self) -> Any:
        """The group for messages and tensors on the CPU."""
        return self.find()

    @property
    def leads(self) -> bool:
        """Whether this process is the one that decides."""
        return self.rank == 0

    def announce(self, message: Any) -> None:
        """Send a message to all other ranks, which ``listen``. The leader alone may do so."""
        stream = io.BytesIO()
        _Pickler(stream, protocol=5).dump(message)
        payload = torch.frombuffer(stream.getbuffer(), dtype=torch.uint8)
        with _watched():
            dist.broadcast(torch.tensor([len(payload)]), 0, self.channel)
            dist.broadcast(payload, 0, self.channel)

    def listen(self) -> Any:
        """Return the next message of the leader; its tensors are on the CPU."""
        size = torch.zeros(1, dtype=torch.long)
        with _watched():
            dist.broadcast(size, 0, self.channel)
            payload = torch.empty(int(size), dtype=torch.uint8)
            dist.broadcast(payload, 0, self.channel)
        return pickle.loads(payload.numpy().tobytes())

    def share(self, value: T) -> T:
        """Return the leader's value on every rank; every rank calls this."""
        if self.leads:
            self.announce(value)
            return value
        result: T = self.listen()
        return result

    def agree(self, fingerprint: bytes, what: str) -> None:
        """Raise on every rank unless all have the same fingerprint.

        Args:
            fingerprint: at least 8 bytes, such as a hash.
            what: what is compared, for the message.
        """
        number = int.from_bytes(fingerprint[:7], "big")
        numbers = [int(n) for n in self.gather(torch.tensor([number]), [1] * self.size)]
        strangers = [rank for rank, other in enumerate(numbers) if other != numbers[0]]
        if strangers:
            raise ArgumentError(
                f"rank {strangers[0]} has another {what} than rank 0",
                "every process must build the same problem and network, with the same seeds",
                "torch.manual_seed(0) before they are built, in every process",
            )

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of the ranks' tensors, the same bits on every rank; all of one shape."""
        carrier, group = self._carrier(tensor.clone())
        with _watched():
            dist.all_reduce(carrier, group=group)
        return carrier.to(tensor.device)

    def gather(self, tensor: Tensor, sizes: Sequence[int], everywhere: bool = True) -> list[Tensor]:
        """Return the ranks' tensors, which may differ in their first size.

        Args:
            tensor: of this rank.
            sizes: first size of each rank's tensor.
            everywhere: whether all ranks need them; else the leader alone gets them, others none.
        """
        most = max(sizes)
        padded = tensor.new_zeros((most, *tensor.shape[1:]))
        padded[: len(tensor)] = tensor
        carrier, group = self._carrier(padded)
        found = [torch.empty_like(carrier) for _ in sizes] if everywhere or self.leads else []
        with _watched():
            if everywhere:
                dist.all_gather(found, carrier, group=group)
            else:
                dist.gather(carrier, found if self.leads else None, 0, group=group)
        return [one[:size].to(tensor.device) for one, size in zip(found, sizes, strict=False)]

    def _carrier(self, tensor: Tensor) -> tuple[Tensor, Any]:
        """Return a tensor where a group can send it, and the group."""
        if tensor.is_cuda and self.nccl:
            with _watched():
                # NCCL would wait for a process that has ended; gloo knows.
                dist.barrier(self.channel)
            return tensor.contiguous(), None
        return tensor.cpu().contiguous(), self.channel


def current() -> Team | None:
    """Return the team of the process group that was initialised, or None where there is none.

    The first call in a process group is made by all ranks.
    """
    global _last
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return None
    world: Any = dist.group.WORLD
    if _last is None or _last[0]() is not world:
        backends = str(dist.get_backend_config())
        find: Callable[[], Any] = _default
        if "gloo" not in backends:
            with _watched():
                find = weakref.ref(dist.new_group(backend="gloo", timeout=PATIENCE))
        team = Team(dist.get_rank(), dist.get_world_size(), find, "nccl" in backends)
        _last = weakref.ref(world), team
    return _last[1]


def _default() -> Any:
    return None


def leads() -> bool:
    """Return whether this process is the only one of its run, or the one that writes and prints."""
    return not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0


@contextmanager
def joined() -> Iterator[None]:
    """Join the process group of ``torchrun``, if it started this process, and leave it at the end.

    gloo serves the CPU, NCCL the GPU with the number of the local rank, which becomes the current one.
    """
    if not (dist.is_available() and dist.is_torchelastic_launched()) or dist.is_initialized():
        yield
        return
    backend = "gloo"
    if torch.cuda.is_available() and dist.is_nccl_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(dist.get_node_local_rank() % torch.cuda.device_count())
    with _watched():
        dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def _watched() -> Iterator[None]:
    """Say in plain words that a process of the run is gone."""
    try:
        yield
    except RuntimeError as error:
        first = str(error).strip().split("\n", 1)[0]
        # Without the place in gloo's source and its advice to look elsewhere.
        first = re.sub(r"^\[/[^\]]*\]\s*", "", first).split(". This is", 1)[0]
        raise DistributedError(
            f"a process of this run was lost: {first}",
            "it was killed, failed, or did not answer in time; the others cannot go on without its share",
            "resume from the last checkpoint, on as many processes as there are: solve(..., resume=True), "
            "or torchrun ... -m ntangent resume RUN_DIR",
        ) from error


class _Pickler(pickle.Pickler):
    """Sends tensors as arrays: a tenth of the time of torch's own way, and from any device."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return _tensor, (value.detach().cpu().numpy(),)
        return NotImplemented


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(array)


def moved(value: Any, device: torch.device) -> Any:
    """Return a message with its tensors on a device; looks into tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: moved(item, device) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(moved(item, device) for item in value)
    return value


def serve(team: Team, call: Callable[[Any], None]) -> Any:
    """Do what the leader announces until it has done; return its last word.

    Args:
        team: of which this process is no leader.
        call: does what a message asks for.

    Raises:
        DistributedError: the leader is gone.
        Exception: what the leader failed with.
    """
    while True:
        kind, content = team.listen()
        if kind == "done":
            return content
        if kind == "failed":
            raise content
        call(content)


def dismiss(team: Team, result: Any) -> None:
    """Let the other ranks return from ``serve``."""
    team.announce(("done", result))


def fail(team: Team, error: BaseException) -> None:
    """Let the other ranks raise what ended the leader's work."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # an exception of any kind may refuse to be sent
        error = DistributedError(f"rank 0 failed with {type(error).__name__}: {error}")
    with suppress(DistributedError):  # nobody may be left to be told
        team.announce(("failed", error))
