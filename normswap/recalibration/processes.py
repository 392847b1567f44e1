"""Share batches between the processes of torch.distributed, and bring what each collected together."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from operator import length_hint
from typing import Any, TypeVar

from normswap.errors import CannotRunError, NormswapError
from normswap.statistics.moments import Moments

__all__ = ["merged", "merged_over_processes", "process_group", "rank_and_size", "share_of"]

T = TypeVar("T")


def rank_and_size() -> tuple[int, int]:
    """Return this process's number and how many there are: 0 and 1 where torch.distributed was not started."""
    distributed = sys.modules.get("torch.distributed")  # which nobody started who did not import it
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def share_of(batches: Iterable[T], share: tuple[int, int]) -> Iterable[T]:
    """Return each n-th batch from the i-th on, for (i, n); all of a loader that has a DistributedSampler."""
    index, count = share
    if count == 1 or type(getattr(batches, "sampler", None)).__name__ == "DistributedSampler":
        return batches
    return _Share(batches, index, count)


class _Share(Iterable[T]):
    def __init__(self, batches: Iterable[T], index: int, count: int) -> None:
        self._batches, self._index, self._count = batches, index, count

    def __length_hint__(self) -> int:
        return len(range(self._index, length_hint(self._batches, 0), self._count))

    def __iter__(self) -> Iterator[T]:
        return islice(self._batches, self._index, None, self._count)


def merged_over_processes(collect: Callable[[], Mapping[str, Moments]]) -> dict[str, Moments]:
    """Collect in every process and merge what they have seen, in the order of their ranks, so that all have the same.

    All of them wait for each other; where one fails, all do.

    Args:
        collect: Returns the moments of this process's share, by the layer's name.

    Raises:
        NormswapError: What ``collect`` raised here.
        CannotRunError: If it raised in another process.
    """
    if rank_and_size()[1] == 1:
        return dict(collect())
    from torch import distributed

    own: dict[str, Any] = {}
    trouble: NormswapError | None = None
    try:
        own = {name: moments.to_array() for name, moments in collect().items()}
    except NormswapError as error:
        trouble = error
    found: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, (own, "" if trouble is None else str(trouble)))
    if trouble is not None:
        raise trouble
    for rank, (_, reason) in enumerate(found):
        if reason:
            raise CannotRunError(f"process {rank} of {len(found)}: {reason}")
    return merged([{name: Moments.from_array(a) for name, a in arrays.items()} for arrays, _ in found])


def merged(parts: Sequence[Mapping[str, Moments]]) -> dict[str, Moments]:
    """Merge the moments of several shares by the layer's name, in their order."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: Moments.merged(part[name] for part in parts if name in part) for name in names}


@contextmanager
def process_group() -> Iterator[None]:
    """Start torch.distributed where this process is one of several that torchrun started; stop it in the end."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "RANK" not in os.environ:
        yield
        return
    import torch
    from torch import distributed

    nccl = torch.cuda.is_available()
    if nccl:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("nccl" if nccl else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()
