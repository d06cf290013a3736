"""Several processes, started by torchrun, that do the work of one.

Every process holds the same weights and takes a slice of every batch; totals, counts and gradients are summed. Alone,
nothing here does anything.
"""

import atexit
import os
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, distributed

T = TypeVar("T")


class Processes(NamedTuple):
    """This process among its equals.

    Attributes
    ----------
    rank : int
        Number of this process, 0 … size - 1; number 0 writes the files.
    size : int
        Number of processes.
    """

    rank: int
    size: int

    def sum(self, numbers: Tensor) -> Tensor:
        """Sum over the processes; the same bits on each."""
        if self.size > 1:
            numbers = numbers.clone()
            distributed.all_reduce(numbers)
        return numbers

    def broadcast(self, value: T) -> T:
        """Value of process 0."""
        if self.size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Replace every gradient by its sum over the processes, in one message.

        A parameter stays without gradient where no process has one, as it would in a single process: an optimiser
        skips it then, while zeros would still decay its weights and moments.
        """
        if self.size == 1:
            return
        flags = parameters[0].new_tensor([p.grad is not None for p in parameters])
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([flags, *(g.reshape(-1) for g in gradients)])
        distributed.all_reduce(flat)
        present, *sums = flat.split([len(parameters), *(p.numel() for p in parameters)])
        for parameter, has_gradient, total in zip(parameters, present.tolist(), sums, strict=True):
            parameter.grad = total.view_as(parameter).to(parameter.dtype) if has_gradient else None

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.size > 1:
            distributed.barrier()


def processes() -> Processes:
    """This process among those that torchrun started, connected on the first call; rank 0 of 1 without torchrun.

    Returns
    -------
    Processes

    Examples
    --------
    >>> processes()
    Processes(rank=0, size=1)
    """
    if not distributed.is_available():
        return Processes(0, 1)
    if not distributed.is_initialized():
        # torchrun's environment; without it this is an ordinary program
        if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "MASTER_ADDR" not in os.environ:
            return Processes(0, 1)
        distributed.init_process_group("gloo")
        atexit.register(_disconnect)
    return Processes(distributed.get_rank(), distributed.get_world_size())


def _disconnect() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()
