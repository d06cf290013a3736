"""A quadratic form of the symmetry functions, solved for together with the linear part.

Products of two functions of four atoms see seven at a time: what many more functions bring to a linear potential, a few
dozen projections of an atom's functions bring here. All products of their leading principal components are columns of
one least-squares problem; its solution is a symmetric matrix per element, whose eigenvectors are kept.

References
----------
Wood, Thompson, J. Chem. Phys. 148, 241721 (2018), quadratic forms of descriptors by linear least squares.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from molml.energy.components import Components
from molml.energy.cutoffs import jit
from molml.energy.data import StructureDataset, Structures, pair_vectors
from molml.energy.kernels import FeatureKernel, Neighbourhood, neighbourhood
from molml.energy.linear import STRESS_WEIGHT, add_gram, folds, label_rows, needs_derivatives, penalties, ridge_solution
from molml.energy.model import QuadraticForm
from molml.energy.prior import Prior

RIDGES = (1e-2, 1e-4, 1e-1)  # of the products; the first is the one that numbers of components are compared with
N_FOLDS = 3
MOST_COMPONENTS = 60
_SHARES = (1 / 6, 1 / 3, 2 / 3, 1)
_LEAST_LABELS = 1000  # with fewer, cross-validation finds by chance what makes new structures worse
_LABELS_PER_COLUMN = 2.0
_MATRICES = 4e9  # bytes of all normal matrices: there are no more components than fit in it
_ROWS_AT_ONCE = 2000


class QuadraticSolution(NamedTuple):
    """Linear part and quadratic forms of every member of a committee, and how good they are."""

    solutions: np.ndarray  # (n_members, n_columns); coefficients of the functions, then energies of the elements
    forms: list[list[QuadraticForm]]  # of every member and element
    rmse: np.ndarray  # (3,) root mean square error of each of LABELS' rows, cross-validated
    train_rmse: np.ndarray  # (3,) the same on the training data
    scores: list[dict[str, float]]  # one per tried pair: n_components, ridge, log_score


class _Fold(NamedTuple):
    """Least-squares sums of the forces of a fold, and its few rows of energies and virials as they are."""

    gram: np.ndarray  # (n_columns, n_columns), the lower triangle
    moment: np.ndarray
    square: np.ndarray  # (1,)
    n_rows: np.ndarray  # (3,)
    rows: tuple[list[np.ndarray], list[np.ndarray]]
    targets: tuple[list[np.ndarray], list[np.ndarray]]


class _Layout(NamedTuple):
    """Columns: products of components, those with the last component first, then functions, then elements.

    So fewer components are the columns from some place on.
    """

    projections: list[np.ndarray]  # (n_functions, n_components) of every element
    means: list[np.ndarray]  # (n_functions,)
    start: np.ndarray  # (n_elements, most components): column of the products of component b with 0 ... b
    n_products: int

    def first(self, n_components: int) -> int:
        """First column where only so many components count."""
        return self.n_products - sum(_n_products(min(n_components, p.shape[1])) for p in self.projections)


def _n_products(n_components: int) -> int:
    return n_components * (n_components + 1) // 2


def fit_quadratic(
    kernel: FeatureKernel,
    dataset: StructureDataset,
    components: Sequence[Components],
    reference: np.ndarray,
    *,
    energy_weight: float,
    ridge: float,
    n_components: int = MOST_COMPONENTS,
    prior: Prior | None = None,
    members: int = 1,
    seed: int = 0,
    progress: bool = False,
) -> QuadraticSolution | None:
    """Quadratic forms and linear parts by ridge regression; number of components and penalty by cross-validation.

    Forces decide, where there are any: one structure of another kind outweighs all others in the sum of the energies'
    squares.

    Parameters
    ----------
    kernel : FeatureKernel
    dataset : StructureDataset
    components : sequence of Components
        Of every element's functions.
    reference : array, shape (n_elements,), eV
    energy_weight, ridge : float
        Weight of energies against forces, and penalty of the functions: those of :func:`molml.energy.linear.solve`.
    n_components : int
        Most principal components of each element.
    prior : Prior, optional
        What is assumed of other structures.
    members : int
        Members of a committee are solved for without a different part of the structures each.
    seed : int
        Of the folds.

    Returns
    -------
    QuadraticSolution, or None where the linear potential alone is as good, or labels are too few for more
    """
    n_folds = min(N_FOLDS if members == 1 else int(np.clip(members, 5, 10)), len(dataset))
    n_labels = sum(int(dataset[i].has_energy.sum() + 3 * dataset[i].has_forces.sum()) for i in range(len(dataset)))
    if n_labels < _LEAST_LABELS:
        return None
    most = min(n_labels / _LABELS_PER_COLUMN, (_MATRICES / (8 * (n_folds + 5))) ** 0.5)
    layout = _layout(components, n_components, most)
    if not layout.n_products or n_folds < 2:
        return None
    parts = _gather(kernel, dataset, reference, layout, folds(len(dataset), n_folds, seed), n_folds, progress)
    weights = energy_weight, STRESS_WEIGHT
    whole = _weighted(parts, weights)
    if prior is not None:
        (assumed,) = _gather(kernel, prior.structures, reference, layout, np.zeros(len(prior.structures)), 1, progress)
        whole = whole[0] + assumed.gram, whole[1]
    n_products = layout.n_products
    n_elements, largest = len(kernel.elements), max(p.shape[1] for p in layout.projections)
    judged = 1 if any(part.n_rows[1] for part in parts) else 0
    scores: list[dict[str, float]] = []
    errors: dict[tuple[int, float], np.ndarray] = {}

    def score(n: int, of_products: float) -> None:
        first, found = layout.first(n), np.zeros((n_folds, 3))
        for part, own in zip(parts, found, strict=True):
            solution = _without(part, whole, weights, first, n_products - first, (of_products, ridge), n_elements)
            own[:] = _squares(part, solution, first)
        errors[n, of_products] = found
        log_score = float(np.log(np.maximum(found[:, judged], 1e-30)).sum())
        scores.append({"n_components": n, "ridge": of_products, "log_score": log_score})

    def best() -> dict[str, float]:
        return min(scores, key=lambda s: s["log_score"])

    for n in sorted({0, *(round(largest * share) for share in _SHARES)}):
        score(n, RIDGES[0])
    n_best = int(best()["n_components"])
    if not n_best:
        return None
    for of_products in RIDGES[1:]:
        score(n_best, of_products)
    of_products = best()["ridge"]
    first = layout.first(n_best)
    solutions = [
        _without(
            None if members == 1 else parts[i % n_folds],
            whole,
            weights,
            first,
            n_products - first,
            (of_products, ridge),
            n_elements,
        )
        for i in range(members)
    ]
    total = np.maximum(sum(part.n_rows for part in parts), 1.0)
    left = sum(_squares(part, solutions[0], first) for part in parts)
    return QuadraticSolution(
        np.array([solution[n_products - first :] for solution in solutions]),
        [_forms(solution, layout, first) for solution in solutions],
        np.sqrt(errors[n_best, of_products].sum(0) / total),
        np.sqrt(left / total),
        scores,
    )


def _layout(components: Sequence[Components], n_components: int, most: float) -> _Layout:
    """Columns for so many components that there are no more than ``most``."""
    projections = [own.scaled(n_components, 0.5) for own in components]
    n_linear = sum(len(p) for p in projections) + len(projections)

    def products(n: int) -> int:
        return sum(_n_products(min(n, p.shape[1])) for p in projections)

    n = max((p.shape[1] for p in projections), default=0)
    while n and n_linear + products(n) > most:
        n -= 1
    projections = [p[:, :n] for p in projections]
    start, column = np.zeros((len(projections), n), dtype=np.int64), 0
    for b in range(n - 1, -1, -1):
        for e, projection in enumerate(projections):
            if b < projection.shape[1]:
                start[e, b] = column
                column += b + 1
    return _Layout(projections, [own.mean for own in components], start, column)


def _near(kernel: FeatureKernel, item: Structures) -> Neighbourhood:
    return neighbourhood(kernel.elements, item.numbers, item.first, item.second, pair_vectors(item))


def _gather(
    kernel: FeatureKernel,
    dataset: StructureDataset | Sequence[Structures],
    reference: np.ndarray,
    layout: _Layout,
    fold: np.ndarray,
    n_folds: int,
    progress: bool,
) -> list[_Fold]:
    width = layout.n_products + sum(len(p) for p in layout.projections) + len(kernel.elements)
    parts = [
        _Fold(np.zeros((width, width)), np.zeros(width), np.zeros(1), np.zeros(3), ([], []), ([], []))
        for _ in range(n_folds)
    ]
    waiting: list[list[np.ndarray]] = [[] for _ in parts]
    for i in tqdm(range(len(dataset)), desc="quadratic form", disable=not progress, leave=False):
        item, own = dataset[i], int(fold[i])
        part = parts[own]
        for label, (design, target) in enumerate(_rows(kernel, item, reference, layout)):
            part.n_rows[label] += len(target) * float(item.weight[0])
            if label == 1:
                part.moment[:] += design.T @ target
                part.square[0] += target @ target
                waiting[own].append(design)
            elif len(target):
                part.rows[label // 2].append(design)
                part.targets[label // 2].append(target)
        if sum(len(rows) for rows in waiting[own]) > _ROWS_AT_ONCE:
            add_gram(part.gram, waiting[own])
            waiting[own] = []
    for part, rows in zip(parts, waiting, strict=True):
        if rows:
            add_gram(part.gram, rows)
    return parts


def _rows(
    kernel: FeatureKernel, item: Structures, reference: np.ndarray, layout: _Layout
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Design matrices and targets of one structure."""
    near = _near(kernel, item)
    moments = kernel.moments(near)
    values = kernel.values(near, moments)
    z = [(x - mean) @ p for x, mean, p in zip(values, layout.means, layout.projections, strict=True)]
    n = layout.n_products
    sums = np.concatenate([np.zeros(n), *(x.sum(0) for x in values)])
    for e, own in enumerate(z):
        matrix = own.T @ own
        for b, start in enumerate(layout.start[e, : own.shape[1]].tolist()):
            sums[start : start + b + 1] = matrix[b, : b + 1]
    derivatives = None
    if needs_derivatives(item):
        by_position, by_strain = (
            np.concatenate([np.zeros((*part.shape[:-1], n)), part], axis=-1) for part in kernel.jacobian(near, moments)
        )
        strain = bool(item.has_stress[0])
        for e, block in enumerate(kernel.derivatives(near, moments)):
            counts = np.diff(near.pairs.start)[near.atoms[e]]
            owner = np.repeat(np.arange(len(counts)), counts)
            pairs = np.repeat(near.pairs.start[near.atoms[e]] - np.cumsum(counts) + counts, counts)
            pairs += np.arange(len(owner))
            changes = np.matmul(block, layout.projections[e])
            geometry = near.pairs.first[pairs], near.pairs.second[pairs], near.pairs.vectors[pairs]
            _products(*geometry, z[e][owner], changes, layout.start[e], by_position, by_strain, strain)
        derivatives = by_position, by_strain
    return label_rows(item, sums, near.atoms, derivatives, reference)


@jit
def _products(
    first: np.ndarray,
    second: np.ndarray,
    vectors: np.ndarray,
    z: np.ndarray,
    changes: np.ndarray,
    start: np.ndarray,
    by_position: np.ndarray,
    by_strain: np.ndarray,
    strain: bool,
) -> None:
    """Add the derivatives of all products of two components, pair by pair; by strain where asked for."""
    n = z.shape[1]
    for p in range(len(first)):
        here, there, own = by_position[first[p]], by_position[second[p]], z[p]
        x, y, w = vectors[p, 0], vectors[p, 1], vectors[p, 2]
        dx, dy, dz = changes[p, 0], changes[p, 1], changes[p, 2]
        for b in range(n):
            zb, xb, yb, wb = own[b], dx[b], dy[b], dz[b]
            for a in range(b + 1):
                column = start[b] + a
                gx, gy, gz = own[a] * xb + zb * dx[a], own[a] * yb + zb * dy[a], own[a] * wb + zb * dz[a]
                here[0, column] -= gx
                here[1, column] -= gy
                here[2, column] -= gz
                there[0, column] += gx
                there[1, column] += gy
                there[2, column] += gz
            if strain:
                for a in range(b + 1):
                    column = start[b] + a
                    gx, gy, gz = own[a] * xb + zb * dx[a], own[a] * yb + zb * dy[a], own[a] * wb + zb * dz[a]
                    by_strain[0, column] += x * gx
                    by_strain[1, column] += y * gy
                    by_strain[2, column] += w * gz
                    by_strain[3, column] += 0.5 * (y * gz + w * gy)
                    by_strain[4, column] += 0.5 * (x * gz + w * gx)
                    by_strain[5, column] += 0.5 * (x * gy + y * gx)


def _weighted(parts: Sequence[_Fold], weights: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Normal matrix (its lower triangle) and right-hand side of all labels of some folds."""
    gram, moment = np.zeros_like(parts[0].gram), np.zeros_like(parts[0].moment)
    for part in parts:
        gram += part.gram
        moment += part.moment
        for weight, rows, targets in zip(weights, part.rows, part.targets, strict=True):
            if rows:
                design = np.concatenate(rows)
                add_gram(gram, [weight * design])
                moment += weight**2 * (np.concatenate(targets) @ design)
    return gram, moment


def _without(
    part: _Fold | None,
    whole: tuple[np.ndarray, np.ndarray],
    weights: tuple[float, float],
    first: int,
    n_products: int,
    ridges: tuple[float, float],
    n_elements: int,
) -> np.ndarray:
    """Solution for the columns from ``first`` on, of all structures but those of a fold.

    The components are of like size on the data, so every product is penalised in units of its own; functions are as
    in a linear potential (:func:`molml.energy.linear.penalties`).
    """
    gram, moment = whole[0][first:, first:], whole[1][first:]
    if part is not None:
        own_gram, own_moment = _weighted([part], weights)
        gram, moment = gram - own_gram[first:, first:], moment - own_moment[first:]
    own = np.diag(gram)[:n_products]
    own = ridges[0] * np.maximum(own, 1e-12 * own.max(initial=0.0))
    penalty = np.concatenate([own, penalties(gram[n_products:, n_products:], ridges[1], n_elements)])
    return ridge_solution(gram, moment, penalty, n_elements)


def _squares(part: _Fold, solution: np.ndarray, first: int) -> np.ndarray:
    """Squared errors of each of LABELS' rows."""
    errors = np.zeros(3)
    lower = part.gram[first:, first:]
    product = lower @ solution + lower.T @ solution - np.diag(lower) * solution
    errors[1] = product @ solution - 2.0 * part.moment[first:] @ solution + part.square[0]
    for label, rows, targets in zip((0, 2), part.rows, part.targets, strict=True):
        if rows:
            errors[label] = np.sum((np.concatenate(rows)[:, first:] @ solution - np.concatenate(targets)) ** 2)
    return np.maximum(errors, 0.0)


def _forms(solution: np.ndarray, layout: _Layout, first: int) -> list[QuadraticForm]:
    """Eigenvectors of each element's matrix, in terms of its functions."""
    forms = []
    for projection, start in zip(layout.projections, layout.start, strict=True):
        kept = [b for b in range(projection.shape[1]) if start[b] >= first]
        matrix = np.zeros((len(kept), len(kept)))
        for b in kept:
            own = solution[start[b] - first : start[b] - first + b + 1]
            matrix[b, : b + 1] += 0.5 * own
            matrix[: b + 1, b] += 0.5 * own
        weights, vectors = np.linalg.eigh(matrix)
        forms.append(QuadraticForm((projection[:, : len(kept)] @ vectors).T.copy(), weights))
    return forms
