"""What the Trainer expects of a data set, and the simplest one."""

from collections.abc import Sequence
from typing import Any, Protocol, final

import torch
from torch import Tensor


class Dataset(Protocol):
    """Numbered items and a way to make a batch of some; every arm has its own."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...

    def collate(self, items: list[Any], /) -> Any:
        """Batch of at least one item."""
        ...


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
