"""A quadratic form of the symmetry functions, solved for together with the linear part.

Products of two functions of four atoms see seven at a time: what many more functions bring to a linear potential,
products of an atom's functions bring here. There are tens of thousands of them, hardly fewer than labels, and most of
them small: with alike penalties in the functions' own units, as in ridge regression with the kernel (1 + G·G')², each
tells a little. Their least-squares problem is solved by conjugate gradients, in which products only appear as symmetric
matrices, one an element; in every step the linear part is solved for exactly, which leaves so well-conditioned a
problem that a few dozen steps are enough. The eigenvectors of the matrices are kept.

References
----------
Wood, Thompson, J. Chem. Phys. 148, 241721 (2018), quadratic forms of descriptors by linear least squares.
Golub, Pereyra, SIAM J. Numer. Anal. 10, 413 (1973), variables that are solved for in every step of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from molml.energy.components import Components
from molml.energy.cutoffs import jit
from molml.energy.data import StructureDataset, Structures, pair_vectors
from molml.energy.kernels import FeatureKernel, neighbourhood
from molml.energy.linear import STRESS_WEIGHT, add_gram, folds, label_rows, needs_derivatives, ridge_factor
from molml.energy.model import QuadraticForm
from molml.energy.prior import Prior

# penalties of coefficients, in units of the mean square of a force's row; what is tried first, then either way
RIDGES = (1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4)
_FIRST = RIDGES.index(1e-8)
# penalties of functions, to those of their products where functions are divided by their total deviation; ten times
# more or less makes forces of ethanol and molybdenum 0 to 3 % worse
_SHARE = 1e-3
MOST_COMPONENTS = 300
_N_FOLDS = 5
_LEAST_LABELS = 1000  # with fewer, what is left aside says by chance that products help
_ROWS, _CHANGES = 2e9, 2.5e9  # bytes of what is kept of the linear part, and of the components' derivatives
_ROWS_AT_ONCE = 2000
_ASSUMED_FOLD, _NONE = -1, -2  # what is never left aside, and the fold that holds nothing
_TOLERANCE, _MOST_STEPS = 1e-3, 60  # what more steps change is within the noise
_NEARER = 0.1  # what is left of the residual of a start, at most
# of the prior's weights, which are for a linear potential: errors are about a third of its
_ASSUMED = 0.1


class QuadraticSolution(NamedTuple):
    """Linear part and quadratic forms of every member of a committee, and how good they are."""

    solutions: np.ndarray  # (n_members, n_columns); coefficients of the functions, then energies of the elements
    forms: list[list[QuadraticForm]]  # of every member and element
    rmse: np.ndarray  # (3,) root mean square error of each of LABELS' rows, of structures left aside
    train_rmse: np.ndarray  # (3,) the same on the training data
    scores: list[dict[str, float]]  # one per tried pair: ridge, share (0 without products), mean absolute error


class _Labels(NamedTuple):
    """Rows of the least-squares problem; energies and virials are multiplied by their weight."""

    linear: np.ndarray  # (n_rows, n_columns) columns of the linear part
    target: np.ndarray  # (n_rows,)
    kind: np.ndarray  # (n_rows,) index in LABELS
    structure: np.ndarray  # (n_rows,)
    fold: np.ndarray  # (n_rows,) -1 for what is assumed, and never left aside
    weight: np.ndarray  # (n_rows,) of its structure
    place: np.ndarray  # (n_rows,) of the row among all energies, forces and virials
    factor: np.ndarray  # (n_rows,) of that number


class _Centres(NamedTuple):
    """Atoms of one element: components of their functions, and derivatives of these by the pair vectors."""

    components: np.ndarray  # (n_atoms, n_components)
    structure: np.ndarray  # (n_atoms,)
    owner: np.ndarray  # (n_pairs,) atom, by its place here
    first: np.ndarray  # (n_pairs,) atoms by their place among all
    second: np.ndarray
    vectors: np.ndarray  # (n_pairs, 3)
    changes: np.ndarray  # (n_pairs, 3, n_components); single precision halves what every step reads


class _Problem(NamedTuple):
    labels: _Labels
    centres: list[_Centres]
    n_structures: int
    n_atoms: int
    n_elements: int


def fit_quadratic(
    kernel: FeatureKernel,
    dataset: StructureDataset,
    components: Sequence[Components],
    reference: np.ndarray,
    *,
    energy_weight: float,
    factors: Sequence[np.ndarray],
    n_components: int = MOST_COMPONENTS,
    prior: Prior | None = None,
    members: int = 1,
    seed: int = 0,
    progress: bool = False,
) -> QuadraticSolution | None:
    """Quadratic forms and linear parts by ridge regression; penalties by the errors of structures left aside.

    Of these the mean absolute error counts: in the sum of squares one structure of another kind would outweigh all
    others, and in a mean of logarithms those whose forces are all but zero by symmetry.

    Parameters
    ----------
    kernel : FeatureKernel
    dataset : StructureDataset
    components : sequence of Components
        Of every element's functions.
    reference : array, shape (n_elements,), eV
    energy_weight : float
        Weight of energies against forces, as :func:`molml.energy.linear.solve` found it.
    factors : sequence of array, shape (n_functions,)
        What the functions were multiplied by for the components: the penalties are of functions so multiplied.
    n_components : int
        Most principal components of each element; fewer where their derivatives take more than 2.5 GB.
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
    n_folds = min(_N_FOLDS if members == 1 else int(np.clip(members, 5, 10)), len(dataset))
    n_labels = np.array([_n_labels(dataset[i]) for i in range(len(dataset))])
    if n_labels.sum() < _LEAST_LABELS or n_folds < 2:
        return None
    width = sum(centre.n_functions for centre in kernel.tables.centres) + len(kernel.elements)
    fold = folds(len(dataset), n_folds, seed)
    order = np.random.default_rng(seed).permutation(len(dataset))
    used = np.sort(order[np.cumsum(n_labels[order]) * 8.0 * width <= _ROWS])
    items = [dataset[i] for i in used.tolist()]
    beside = [] if prior is None else prior.structures
    assumed = [item._replace(weight=_ASSUMED * item.weight) for item in beside]
    n_pairs = sum(len(item.first) for item in (*items, *assumed))
    n = min(n_components, int(_CHANGES / (12 * max(n_pairs, 1))))
    variance = _total_variance(kernel, items, components)
    if not n or not variance:
        return None
    projections = [own.directions[:, :n] / variance**0.5 for own in components]
    problem = _gather(
        kernel,
        [*items, *assumed],
        np.concatenate([fold[used], np.full(len(assumed), _ASSUMED_FOLD)]),
        reference,
        [own.mean for own in components],
        projections,
        (energy_weight, 1.0, STRESS_WEIGHT),
        progress,
    )
    factor = np.concatenate([*factors, np.ones(len(kernel.elements))])
    labels, unit, squares = problem.labels, _mean_square(problem, factor), _squares(problem)
    judged = 1 if (labels.kind == 1).any() else 0
    left_aside = (labels.fold == 0) & (labels.kind == judged)
    if not left_aside.any():
        return None
    whole = _gram(labels, np.ones(len(labels.fold), dtype=bool))
    grams = {f: _gram(labels, labels.fold == f) for f in range(1 if members == 1 else min(members, n_folds))}
    scores: list[dict[str, float]] = []
    found: dict[tuple[float, float], np.ndarray] = {}
    # what was found last is close to what comes next
    start = [np.zeros((p.shape[1],) * 2) for p in projections]

    def solved(without: int, ridge: float, share: float) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """Without a fold: matrices of the products, coefficients of the linear part, and errors of all rows."""
        kept, penalty = labels.fold != without, unit * ridge
        gram = whole - grams[without] if without in grams else whole
        solve = ridge_factor(gram, penalty / factor**2, problem.n_elements)
        matrices = [np.zeros_like(own) for own in start]
        if share:
            matrices = _products(problem, squares, solve, kept, penalty / (share * variance), start, progress)
            start[:] = matrices
        left = labels.target - _quadratic_rows(problem, matrices)
        solution = solve(labels.linear.T @ (kept * left))
        return matrices, solution, left - labels.linear @ solution

    def score(ridge: float, share: float) -> None:
        errors = solved(0, ridge, share)[2]
        found[ridge, share] = errors[labels.fold == 0]
        scores.append({"ridge": ridge, "share": share, "error": float(np.abs(errors[left_aside]).mean())})

    def best() -> dict[str, float]:
        return min(scores, key=lambda s: s["error"])

    for share in (0.0, _SHARE):
        score(RIDGES[_FIRST], share)
    for way in (RIDGES[_FIRST + 1 :], RIDGES[:_FIRST][::-1]):
        for ridge in way:
            before = best()
            for share in (0.0, _SHARE):
                score(ridge, share)
            if best() is before:
                break
    ridge, share = best()["ridge"], best()["share"]
    if not share:
        return None
    solutions, forms, train_errors = [], [], np.zeros(0)
    for i in range(members):
        matrices, solution, errors = solved(_NONE if members == 1 else i % n_folds, ridge, share)
        solutions.append(solution)
        forms.append([_form(p, matrix) for p, matrix in zip(projections, matrices, strict=True)])
        if not i:
            train_errors = errors
    weights = energy_weight, 1.0, STRESS_WEIGHT
    aside, real = labels.fold == 0, labels.fold != _ASSUMED_FOLD
    return QuadraticSolution(
        np.array(solutions),
        forms,
        _rmse(found[ridge, share], labels, aside, weights),
        _rmse(train_errors[real], labels, real, weights),
        scores,
    )


def _n_labels(item: Structures) -> int:
    return int(item.has_energy.sum()) + 3 * int(item.has_forces.sum()) + 6 * int(item.has_stress.sum())


def _total_variance(kernel: FeatureKernel, items: Sequence[Structures], components: Sequence[Components]) -> float:
    """Of all functions together, per atom."""
    numbers = np.concatenate([item.numbers.numpy() for item in items]) if items else np.zeros(0)
    shares = [float(np.mean(numbers == z)) if len(numbers) else 0.0 for z in kernel.elements]
    return sum(share * float(own.variances.sum()) for share, own in zip(shares, components, strict=True))


def _gather(
    kernel: FeatureKernel,
    items: Sequence[Structures],
    fold: np.ndarray,
    reference: np.ndarray,
    means: Sequence[np.ndarray],
    projections: Sequence[np.ndarray],
    weights: tuple[float, float, float],
    progress: bool,
) -> _Problem:
    """Everything that the steps of the solution read; what is assumed has targets of zero."""
    n_rows, n_structures = sum(_n_labels(item) for item in items), len(items)
    n_atoms = sum(len(item.numbers) for item in items)
    width = sum(len(p) for p in projections) + len(projections)
    numbers, places = (lambda: np.zeros(n_rows)), (lambda: np.zeros(n_rows, dtype=np.int64))
    labels = _Labels(np.zeros((n_rows, width)), numbers(), places(), places(), places(), numbers(), places(), numbers())
    centres: list[_Centres] = []
    centres = []
    for z, p in zip(kernel.elements, projections, strict=True):
        own = sum(int((item.numbers == z).sum()) for item in items)
        n_pairs = sum(int((item.numbers[item.first] == z).sum()) for item in items)
        owner, first, second = (np.zeros(n_pairs, dtype=np.int64) for _ in range(3))
        changes = np.zeros((n_pairs, 3, p.shape[1]), dtype=np.float32)
        of_atoms = np.zeros((own, p.shape[1])), np.zeros(own, dtype=np.int64)
        centres.append(_Centres(*of_atoms, owner, first, second, np.zeros((n_pairs, 3)), changes))
    row, atom, own_atom, own_pair = 0, 0, [0] * len(centres), [0] * len(centres)
    for s, item in enumerate(tqdm(items, desc="quadratic form", disable=not progress, leave=False)):
        n = len(item.numbers)
        near = neighbourhood(kernel.elements, item.numbers, item.first, item.second, pair_vectors(item))
        moments = kernel.moments(near)
        values = kernel.values(near, moments)
        derivatives = kernel.jacobian(near, moments) if needs_derivatives(item) else None
        sums = np.concatenate([x.sum(0) for x in values])
        per_root = np.sqrt(float(item.weight[0]) / n)
        forces = np.flatnonzero(np.repeat(item.has_forces.numpy(), 3))
        where = np.array([s]), n_structures + 3 * atom + forces, n_structures + 3 * n_atoms + 6 * s + np.arange(6)
        factors = per_root, np.sqrt(float(item.weight[0])), per_root
        for kind, (design, target) in enumerate(label_rows(item, sums, near.atoms, derivatives, reference)):
            here = slice(row, row + len(target))
            labels.linear[here] = weights[kind] * design
            if fold[s] != _ASSUMED_FOLD:
                labels.target[here] = weights[kind] * target
            labels.kind[here], labels.structure[here], labels.fold[here] = kind, s, fold[s]
            labels.weight[here] = float(item.weight[0])
            if len(target):
                labels.place[here] = where[kind]
            labels.factor[here] = weights[kind] * factors[kind]
            row += len(target)
        blocks = kernel.derivatives(near, moments) if derivatives is not None else [None] * len(centres)
        for e, (block, centre) in enumerate(zip(blocks, centres, strict=True)):
            atoms = near.atoms[e]
            here = slice(own_atom[e], own_atom[e] + len(atoms))
            centre.components[here], centre.structure[here] = (values[e] - means[e]) @ projections[e], s
            if block is not None:
                counts = np.diff(near.pairs.start)[atoms]
                pairs = np.repeat(near.pairs.start[atoms] - np.cumsum(counts) + counts, counts)
                pairs += np.arange(len(pairs))
                those = slice(own_pair[e], own_pair[e] + len(pairs))
                centre.owner[those] = np.repeat(own_atom[e] + np.arange(len(atoms)), counts)
                centre.first[those] = atom + near.pairs.first[pairs]
                centre.second[those] = atom + near.pairs.second[pairs]
                centre.vectors[those] = near.pairs.vectors[pairs]
                centre.changes[those] = np.matmul(block, projections[e])
                own_pair[e] += len(pairs)
            own_atom[e] += len(atoms)
        atom += n
    return _Problem(labels, centres, n_structures, n_atoms, len(kernel.elements))


def _mean_square(problem: _Problem, factor: np.ndarray) -> float:
    """Of the functions in a row of forces; where there are none, in a row of energies about their mean."""
    labels, width = problem.labels, problem.labels.linear.shape[1] - problem.n_elements
    functions, weights = labels.linear[:, :width], factor[:width] ** 2
    squares = np.einsum("ij,ij,j->i", functions, functions, weights)
    forces = (labels.kind == 1) & (labels.fold != _ASSUMED_FOLD)
    if forces.any():
        return float(squares[forces].mean())
    energies = labels.kind == 0
    return float(squares[energies].mean() - functions[energies].mean(0) ** 2 @ weights)


def _gram(labels: _Labels, chosen: np.ndarray) -> np.ndarray:
    """Normal matrix of the linear part of some rows, its lower triangle."""
    gram, rows = np.zeros((labels.linear.shape[1],) * 2), np.flatnonzero(chosen)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        add_gram(gram, [labels.linear[rows[start : start + _ROWS_AT_ONCE]]])
    return gram


def _products(
    problem: _Problem,
    squares: Sequence[np.ndarray],
    solve: Callable[[np.ndarray], np.ndarray],
    kept: np.ndarray,
    penalty: float,
    start: Sequence[np.ndarray],
    progress: bool,
) -> list[np.ndarray]:
    """Matrices of the quadratic forms, by conjugate gradients; the linear part is solved for in every step.

    Products hardly depend on each other once it is, so their own mean squares precondition well.
    """
    labels = problem.labels

    def left(rows: np.ndarray) -> np.ndarray:
        """What the linear part can't explain of some rows."""
        return kept * (rows - labels.linear @ solve(labels.linear.T @ (kept * rows)))

    def image(matrices: Sequence[np.ndarray]) -> list[np.ndarray]:
        seen = _transposed(problem, left(_quadratic_rows(problem, matrices)))
        return [own + penalty * m for own, m in zip(seen, matrices, strict=True)]

    scale = [1.0 / (own + penalty) for own in squares]
    right, found = _transposed(problem, left(labels.target)), list(start)
    target = _TOLERANCE * _dot(right, [own * r for own, r in zip(scale, right, strict=True)])
    residual = right
    if any(own.any() for own in start):
        residual = [r - seen for r, seen in zip(right, image(start), strict=True)]
    direction = [own * r for own, r in zip(scale, residual, strict=True)]
    size = _dot(residual, direction)
    # a start may be good enough for itself, yet not show what another penalty changes
    target = min(target, _NEARER * size) if residual is not right else target
    for _ in tqdm(range(_MOST_STEPS), desc="products", disable=not progress, leave=False):
        if size <= target:
            break
        change = image(direction)
        step = size / _dot(direction, change)
        found = [own + step * d for own, d in zip(found, direction, strict=True)]
        residual = [r - step * c for r, c in zip(residual, change, strict=True)]
        before, size = size, _dot(residual, [own * r for own, r in zip(scale, residual, strict=True)])
        direction = [own * r + size / before * d for own, r, d in zip(scale, residual, direction, strict=True)]
    return found


def _dot(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> float:
    return float(sum(np.vdot(x, y) for x, y in zip(a, b, strict=True)))


def _rmse(errors: np.ndarray, labels: _Labels, chosen: np.ndarray, weights: tuple[float, float, float]) -> np.ndarray:
    kind, weight = labels.kind[chosen], labels.weight[chosen]
    squares = np.bincount(kind, errors**2, minlength=3) / np.bincount(kind, weight, minlength=3).clip(1e-30)
    return np.sqrt(squares) / np.array(weights)


def _quadratic_rows(problem: _Problem, matrices: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of what quadratic forms of the components say."""
    energies = np.zeros(problem.n_structures)
    forces, virials = np.zeros((problem.n_atoms, 3)), np.zeros((problem.n_structures, 6))
    for centre, matrix in zip(problem.centres, matrices, strict=True):
        slopes = 2.0 * centre.components @ matrix
        own = 0.5 * np.einsum("ij,ij->i", slopes, centre.components)
        energies += np.bincount(centre.structure, own, minlength=problem.n_structures)
        _add_slopes(centre, slopes, forces, virials)
    found = np.concatenate([energies, forces.ravel(), virials.ravel()])
    return problem.labels.factor * found[problem.labels.place]


def _transposed(problem: _Problem, rows: np.ndarray) -> list[np.ndarray]:
    """Transpose of :func:`_quadratic_rows`: symmetric matrices."""
    n, n_atoms = problem.n_structures, problem.n_atoms
    whole = np.zeros(n + 3 * n_atoms + 6 * n)
    whole[problem.labels.place] = problem.labels.factor * rows
    energies, forces = whole[:n], whole[n : n + 3 * n_atoms].reshape(-1, 3)
    virials = whole[n + 3 * n_atoms :].reshape(-1, 6)
    found = []
    for centre in problem.centres:
        own = 0.5 * energies[centre.structure][:, None] * centre.components
        _add_changes(centre, forces, virials, own)
        matrix = centre.components.T @ own
        found.append(matrix + matrix.T)
    return found


def _squares(problem: _Problem) -> list[np.ndarray]:
    """Squares of the columns of products, about: components are uncorrelated, and their changes are taken to be."""
    kind, factor = problem.labels.kind, problem.labels.factor
    of_energies = float(np.sum(factor[kind == 0] ** 2)) / max(problem.n_structures, 1)
    found = []
    for centre in problem.centres:
        variances = np.sum(centre.components**2, axis=0) / max(len(centre.components), 1)
        # every change moves two atoms
        moved = 2.0 * np.einsum("pkf,pkf->f", centre.changes, centre.changes, dtype=np.float64)
        outer = np.outer(variances, moved)
        found.append(outer + outer.T + of_energies * len(centre.components) * np.outer(variances, variances))
    return found


@jit
def _add_slopes(centre: _Centres, slopes: np.ndarray, forces: np.ndarray, virials: np.ndarray) -> None:
    """Forces and virials of slopes by the components, pair by pair."""
    for p in range(len(centre.owner)):
        atom = centre.owner[p]
        own, change = slopes[atom], centre.changes[p]
        gx, gy, gz = 0.0, 0.0, 0.0
        for f in range(len(own)):
            gx += change[0, f] * own[f]
            gy += change[1, f] * own[f]
            gz += change[2, f] * own[f]
        here, there, virial = forces[centre.first[p]], forces[centre.second[p]], virials[centre.structure[atom]]
        here[0] += gx
        here[1] += gy
        here[2] += gz
        there[0] -= gx
        there[1] -= gy
        there[2] -= gz
        x, y, z = centre.vectors[p, 0], centre.vectors[p, 1], centre.vectors[p, 2]
        virial[0] += x * gx
        virial[1] += y * gy
        virial[2] += z * gz
        virial[3] += 0.5 * (y * gz + z * gy)
        virial[4] += 0.5 * (x * gz + z * gx)
        virial[5] += 0.5 * (x * gy + y * gx)


@jit
def _add_changes(centre: _Centres, forces: np.ndarray, virials: np.ndarray, found: np.ndarray) -> None:
    """Transpose of :func:`_add_slopes`."""
    for p in range(len(centre.owner)):
        atom = centre.owner[p]
        here, there, v = forces[centre.first[p]], forces[centre.second[p]], virials[centre.structure[atom]]
        x, y, z = centre.vectors[p, 0], centre.vectors[p, 1], centre.vectors[p, 2]
        ux = here[0] - there[0] + x * v[0] + 0.5 * (z * v[4] + y * v[5])
        uy = here[1] - there[1] + y * v[1] + 0.5 * (z * v[3] + x * v[5])
        uz = here[2] - there[2] + z * v[2] + 0.5 * (y * v[3] + x * v[4])
        own, change = found[atom], centre.changes[p]
        for f in range(len(own)):
            own[f] += ux * change[0, f] + uy * change[1, f] + uz * change[2, f]


def _form(projection: np.ndarray, matrix: np.ndarray) -> QuadraticForm:
    """Eigenvectors of an element's matrix, in terms of its functions."""
    weights, vectors = np.linalg.eigh(matrix)
    return QuadraticForm((projection @ vectors).T.copy(), weights)
