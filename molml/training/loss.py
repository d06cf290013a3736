"""Terms of a loss, as totals and counts: sums over batches and over processes are then exact, whatever the sizes."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class Term(NamedTuple):
    """One summand of a loss, or a metric.

    Attributes
    ----------
    total : Tensor, shape ()
        Sum over everything that was counted; 0 where nothing was.
    count : int, float or Tensor of shape ()
        Number of things summed (atoms, force components, …), 0 or more.
    weight : float
        Factor of total / count in the objective, the same for every batch; 0 makes the term a metric, which is
        reported and not minimised.
    """

    total: Tensor
    count: int | float | Tensor  # type: ignore[assignment]  # tuple.count is not missed
    weight: float = 1.0


def squared_error(prediction: Tensor, target: Tensor, *, weight: float = 1.0) -> Term:
    """Σ (prediction - target)² over all elements. Call it "…_mse", and its root is reported too.

    Parameters
    ----------
    prediction, target : Tensor, the same shape
    weight : float
        Weight of the term.

    Returns
    -------
    Term

    Raises
    ------
    ValueError
        If the shapes differ: broadcasting (n, 1) against (n,) would silently compare all pairs.
    """
    _check_shapes(prediction, target)
    return Term((prediction - target).square().sum(), target.numel(), weight)


def absolute_error(prediction: Tensor, target: Tensor, *, weight: float = 1.0) -> Term:
    """Σ |prediction - target| over all elements; parameters and errors as in `squared_error`."""
    _check_shapes(prediction, target)
    return Term((prediction - target).abs().sum(), target.numel(), weight)


def _check_shapes(prediction: Tensor, target: Tensor) -> None:
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction and target must have one shape, got {tuple(prediction.shape)} and {tuple(target.shape)}"
        )


def objective(terms: Mapping[str, Term], weights: Mapping[str, float] | None = None) -> Tensor:
    """Σ weight · total / count, over the terms whose weight is not zero.

    A term without anything counted adds nothing. A metric is left out rather than multiplied by zero, so that it
    may be infinite.

    Parameters
    ----------
    terms : mapping of str to Term
    weights : mapping of str to float, optional
        Weights that take the place of the terms' own.

    Returns
    -------
    Tensor, shape ()

    Raises
    ------
    ValueError
        If `weights` names a term that is not there, or no term has a weight.

    Examples
    --------
    >>> terms = {"energy": Term(torch.tensor(6.0), 3), "forces": Term(torch.tensor(8.0), 2, 0.5)}
    >>> objective(terms)
    tensor(4.)
    """
    weights = {} if weights is None else weights
    if not weights.keys() <= terms.keys():
        raise ValueError(
            f"weights must name terms of the loss ({', '.join(terms)}), got {', '.join(weights.keys() - terms.keys())}"
        )
    summands = [
        weight * term.total / _at_least_one(term.count)
        for name, term in terms.items()
        if (weight := weights.get(name, term.weight)) != 0
    ]
    if not summands:
        raise ValueError("at least one term of the loss must have a weight, got none or only weights of 0")
    return sum(summands[1:], start=summands[0])


def _at_least_one(count: int | float | Tensor) -> int | float | Tensor:
    # counts may be fractions (sums of weights), so that only an exact zero is replaced
    if isinstance(count, Tensor):
        return torch.where(count == 0, torch.ones_like(count), count)
    return count or 1


def add(sums: dict[str, Term], terms: Mapping[str, Term]) -> None:
    """Add terms to running sums, in double precision and without their graphs.

    Parameters
    ----------
    sums : dict of str to Term
        Changed in place; empty at the start.
    terms : mapping of str to Term
    """
    for name, term in terms.items():
        total = term.total.detach().double()
        count = term.count.detach() if isinstance(term.count, Tensor) else term.count
        if name in sums:
            sums[name] = Term(sums[name].total + total, sums[name].count + count, sums[name].weight)
        else:
            sums[name] = Term(total, count, term.weight)


def means(sums: Mapping[str, Term]) -> dict[str, float]:
    """total / count of every term, nan where nothing was counted; x_rmse beside every x_mse.

    Parameters
    ----------
    sums : mapping of str to Term

    Returns
    -------
    dict of str to float
    """
    result = {}
    for name, term in sums.items():
        count = float(term.count)
        mean = float(term.total) / count if count else math.nan
        result[name] = mean
        if name.endswith("_mse"):
            result[name.removesuffix("_mse") + "_rmse"] = math.sqrt(mean) if mean >= 0 else math.nan
    return result
