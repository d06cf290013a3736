"""What the Trainer expects of a data set, and the simplest one."""

from collections.abc import Sequence
from typing import Any, Protocol, final, runtime_checkable

import numpy as np
import torch
from torch import Tensor


class Dataset(Protocol):
    """Numbered items and a way to make a batch of some; every arm has its own."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...

    def collate(self, items: list[Any], /) -> Any:
        """Batch of at least one item."""
        ...


@runtime_checkable
class Batched(Protocol):
    """Data set that decides which items make a batch: sequences of one length, say, so that none is padded."""

    def batches(self, batch_size: int, rng: np.random.Generator | None, /) -> list[np.ndarray]:
        """Items of every batch of one pass, each item in one batch; in an order of its own without `rng`."""
        ...


def batches(dataset: Dataset, batch_size: int, rng: np.random.Generator | None = None) -> list[np.ndarray]:
    """Items of every batch of one pass over a data set.

    Parameters
    ----------
    dataset : Dataset
        If it is `Batched`, it decides.
    batch_size : int
    rng : numpy.random.Generator, optional
        Shuffles the items; without it they come in their order.

    Returns
    -------
    list of ndarray of int

    Examples
    --------
    >>> batches(ArrayDataset(torch.zeros(5, 1), torch.zeros(5, 1)), 2)
    [array([0, 1]), array([2, 3]), array([4])]
    """
    if isinstance(dataset, Batched):
        return dataset.batches(batch_size, rng)
    order = np.arange(len(dataset)) if rng is None else rng.permutation(len(dataset))
    return [order[first : first + batch_size] for first in range(0, len(order), batch_size)]


class Subsettable(Dataset, Protocol):
    """Data set of which parts can be taken."""

    def subset(self, indices: Sequence[int], /) -> "Subsettable":
        """Data set of these items, in this order; an index may occur twice."""
        ...


@final
class ArrayDataset:
    """Inputs and targets of a regression or classification.

    Parameters
    ----------
    inputs : Tensor, shape (n, ...)
    targets : Tensor, shape (n, ...)

    Raises
    ------
    ValueError
        If their lengths differ.
    """

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        if inputs.ndim == 0 or targets.ndim == 0 or len(inputs) != len(targets):
            raise ValueError(
                f"inputs and targets must have one length, got shapes {tuple(inputs.shape)} and {tuple(targets.shape)}"
            )
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.inputs[index], self.targets[index]

    def collate(self, items: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        inputs, targets = zip(*items, strict=True)
        return torch.stack(inputs), torch.stack(targets)

    def subset(self, indices: Sequence[int]) -> "ArrayDataset":
        chosen = torch.as_tensor(indices, dtype=torch.long)
        return ArrayDataset(self.inputs[chosen], self.targets[chosen])
