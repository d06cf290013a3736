"""A loss on batches, of which every process computes its share."""

from collections.abc import Callable, Mapping
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from molml.training.data import Dataset, batches
from molml.training.distributed import Processes
from molml.training.loss import Term

Loss = Callable[[Any, Any], Mapping[str, Term]]


@final
class Evaluator:
    """Terms of a loss, checked, for this process and summed over all.

    Parameters
    ----------
    model : torch.nn.Module
    loss : callable
        (model, batch) -> {name: Term}.
    device : torch.device
        Where the totals are.

    Attributes
    ----------
    processes : Processes
        This process among its equals.
    """

    def __init__(self, model: torch.nn.Module, loss: Loss, device: torch.device) -> None:
        self.processes = Processes(0, 1)
        self._model, self._loss, self._device = model, loss, device
        self._names: list[str] | None = None

    def share(self, dataset: Dataset, indices: np.ndarray) -> Any:
        """This process's part of a batch; None if the batch is too small for all: it then only takes part in sums."""
        mine = indices[self.processes.rank :: self.processes.size]
        return dataset.collate([dataset[i] for i in mine.tolist()]) if len(mine) else None

    def terms(self, batch: Any) -> Mapping[str, Term]:
        """Terms of a batch, with their graphs; none of an absent one."""
        terms = {} if batch is None else self._loss(self._model, batch)
        if self._names is None:
            # process 0 never lacks work, and all come here for the first time together
            self._names = self.processes.broadcast(_checked_names(terms))
        if batch is not None and list(terms) != self._names:
            raise ValueError(
                f"the loss must give the same terms for every batch, got {', '.join(terms)} after "
                f"{', '.join(self._names)}; give a total of 0 and a count of 0 where there is nothing to count"
            )
        return terms

    def sum(self, terms: Mapping[str, Term]) -> Mapping[str, Term]:
        """Terms summed over processes, without graphs; the very same object if there is one process."""
        if self.processes.size == 1:
            return terms
        return self._named(self.processes.sum(self._numbers(terms)))

    def batches(self, dataset: Dataset, batch_size: int) -> list[dict[str, Term]]:
        """Terms of every batch of a data set, unshuffled, summed over processes, without graphs."""
        numbers = []
        for indices in batches(dataset, batch_size):
            numbers.append(self._numbers(self.terms(self.share(dataset, indices))))
        return [self._named(table) for table in self.processes.sum(torch.stack(numbers))]

    def _numbers(self, terms: Mapping[str, Term]) -> Tensor:
        """(3, n_terms) totals, counts and weights; zeros for absent terms, weights of process 0 only."""
        names = self._names or []
        nothing = Term(torch.zeros(()), 0, 0.0)
        table = [terms.get(name, nothing) for name in names]
        main = self.processes.rank == 0
        rows: list[list[Any]] = [
            [term.total.detach() for term in table],
            [term.count for term in table],
            [term.weight if main else 0.0 for term in table],
        ]
        numbers = [torch.as_tensor(number, dtype=torch.float64, device=self._device) for row in rows for number in row]
        return torch.stack(numbers).view(3, len(names))

    def _named(self, numbers: Tensor) -> dict[str, Term]:
        totals, counts, weights = numbers
        return {
            name: Term(total, count, weight)
            for name, total, count, weight in zip(self._names or [], totals, counts, weights.tolist(), strict=True)
        }


def _checked_names(terms: object) -> list[str]:
    if not isinstance(terms, Mapping) or not all(isinstance(term, Term) for term in terms.values()):
        raise TypeError(f"the loss must give a dict of name to Term, got {terms!r}")
    for name, term in terms.items():
        if not isinstance(term.total, Tensor) or term.total.ndim:
            raise TypeError(f"the total of term {name!r} must be a Tensor of shape (), got {term.total!r}; sum it")
    return list(terms)
