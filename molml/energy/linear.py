"""Linear least squares on symmetry functions: energies, forces and stress in one solve, cross-validated ridge.

The normal equations are gathered structure by structure, so memory does not grow with the number of structures, and
separately for every fold and every kind of label, so that any ridge and any weighting of energies against forces can be
cross-validated without touching the structures again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import scipy.linalg
import torch
from tqdm import tqdm

from molml.energy.data import StructureDataset, Structures, pair_vectors
from molml.energy.kernels import FeatureKernel, neighbourhood
from molml.energy.model import forces_and_virial

LABELS = ("energy", "forces", "stress")
ENERGY_WEIGHTS = (10.0, 30.0, 100.0)
STRESS_WEIGHT = 0.3
ERROR_LIMIT = 8.0
RIDGES = (1e-11, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4)
_ROUNDING = 1e-12
_STIFFNESS = 1000.0  # of errors beyond the limit: a bound, for all that matters
_LEAST_LIMIT = 1e-3  # eV/Å; smaller errors are nobody's concern
_MOST_PASSES, _MOST_STEPS = 5, 12
_STRUCTURES_A_PASS = 30  # all rows of a structure are kept, so this bounds memory
_ROWS_AT_ONCE = 2000  # a rank-k update of the normal matrix costs no less for fewer rows
MOST_COLUMNS = 12_000  # OpenBLAS crashes with two threads and 16,000


class NormalEquations(NamedTuple):
    """Least-squares sums, for each fold and each of :data:`LABELS`.

    Rows are: energy per √atom, eV; force components, eV/Å; virial components per √atom, eV. Columns are the functions
    of all elements in turn, then one reference energy an element.
    """

    gram: np.ndarray  # (n_folds, 3, n_columns, n_columns)
    moment: np.ndarray  # (n_folds, 3, n_columns)
    square: np.ndarray  # (n_folds, 3)
    n_rows: np.ndarray  # (n_folds, 3), each row counted by its structure's weight
    n_elements: int


class LeastSquares(NamedTuple):
    """A solution and how it was chosen."""

    coefficients: np.ndarray  # (n_columns,)
    energy_weight: float
    ridge: float
    rmse: np.ndarray  # (3,) root mean square error of each of LABELS' rows, cross-validated
    train_rmse: np.ndarray  # (3,) the same on the training data
    # one per tried pair: energy_weight, ridge, log_score, energy_rmse, virial_rmse (eV per √atom), forces_rmse (eV/Å)
    scores: list[dict[str, float]]


def reference_energies(dataset: StructureDataset, elements: list[int]) -> np.ndarray:
    """Energy per atom of each of ``elements`` by least squares on the compositions, eV, shape (n_elements,).

    Where the compositions do not tell the elements apart the solution of least norm is taken.
    """
    energies, counts = [], []
    for i in range(len(dataset)):
        item = dataset[i]
        if bool(item.has_energy[0]):
            n = len(item.numbers)
            counts.append([float((item.numbers == z).sum()) / n for z in elements])
            energies.append(float(item.energy[0]) / n)
    if not energies:
        return np.zeros(len(elements))
    return np.linalg.lstsq(np.array(counts), np.array(energies), rcond=1e-8)[0]


def structure_rows(
    kernel: FeatureKernel, item: Structures, reference: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Design matrix and targets of one structure for each of :data:`LABELS`; no rows where the label is missing."""
    near = neighbourhood(kernel.elements, item.numbers, item.first, item.second, pair_vectors(item))
    moments = kernel.moments(near)
    sums = np.concatenate([block.sum(0) for block in kernel.values(near, moments)])
    derivatives = kernel.jacobian(near, moments) if needs_derivatives(item) else None
    return label_rows(item, sums, near.atoms, derivatives, reference)


def needs_derivatives(item: Structures) -> bool:
    """Whether a structure has labels of forces or stress."""
    return bool(item.has_forces.any()) or bool(item.has_stress[0])


def label_rows(
    item: Structures,
    sums: np.ndarray,
    atoms: Sequence[np.ndarray],
    derivatives: tuple[np.ndarray, np.ndarray] | None,
    reference: np.ndarray,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows of one structure from the columns summed over its atoms, and from their derivatives.

    Parameters
    ----------
    item : Structures
    sums : array, shape (n,)
    atoms : sequence of array
        Those of every element, whose numbers are the last columns.
    derivatives : (array (n_atoms, 3, n), array (6, n)), or None
        By positions and by strain, as :meth:`FeatureKernel.jacobian` gives them.
    reference : array, shape (n_elements,), eV
        Energies of the elements, taken off the targets.
    """
    n_atoms, n_elements = len(item.numbers), len(atoms)
    members = np.array([float(len(own)) for own in atoms])
    width = len(sums) + n_elements
    empty = np.empty((0, width)), np.empty(0)
    rows = [empty, empty, empty]
    per_root = np.sqrt(float(item.weight[0]) / n_atoms)
    if bool(item.has_energy[0]):
        design = np.concatenate([sums, members])[None]
        rows[0] = design * per_root, np.array([float(item.energy[0]) - members @ reference]) * per_root
    if derivatives is not None:
        by_position, by_strain = derivatives
        if bool(item.has_forces.any()):
            mask = np.repeat(item.has_forces.numpy(), 3)
            design = np.zeros((3 * n_atoms, width))
            design[:, :-n_elements] = -by_position.reshape(3 * n_atoms, -1)
            scale = np.sqrt(float(item.weight[0]))
            rows[1] = design[mask] * scale, item.forces.numpy().reshape(-1)[mask] * scale
        if bool(item.has_stress[0]):
            design = np.zeros((6, width))
            design[:, :-n_elements] = by_strain
            stress = item.stress[0].numpy()[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
            rows[2] = design * per_root, stress * float(item.volume[0]) * per_root
    return rows


def check_columns(width: int) -> None:
    """Refuse what normal matrices have no room for."""
    if width > MOST_COLUMNS:
        raise ValueError(
            f"least squares are solved for at most {MOST_COLUMNS:,} functions of all elements together, got {width:,}; "
            "use fewer (n_functions)"
        )


def folds(n_structures: int, n_folds: int, seed: int) -> np.ndarray:
    """Fold of every structure, shape (n_structures,): equal parts at random."""
    return np.random.default_rng(seed).permutation(n_structures) % n_folds


def normal_equations(
    kernel: FeatureKernel,
    dataset: StructureDataset | Sequence[Structures],
    reference: np.ndarray,
    *,
    n_folds: int = 5,
    seed: int = 0,
    progress: bool = False,
    description: str = "least squares",
) -> NormalEquations:
    """Gather the least-squares sums of a data set; structures are dealt to the folds at random.

    Raises
    ------
    ValueError
        For more than :data:`MOST_COLUMNS` functions and elements.
    """
    n_folds = max(1, min(n_folds, len(dataset)))
    width = sum(centre.n_functions for centre in kernel.tables.centres) + len(kernel.elements)
    check_columns(width)
    gram = np.zeros((n_folds, 3, width, width))
    moment, square, count = np.zeros((n_folds, 3, width)), np.zeros((n_folds, 3)), np.zeros((n_folds, 3))
    fold = folds(len(dataset), n_folds, seed)
    waiting: dict[tuple[int, int], list[np.ndarray]] = {}
    for i in tqdm(range(len(dataset)), desc=description, disable=not progress, leave=False):
        item = dataset[i]
        for label, (design, target) in enumerate(structure_rows(kernel, item, reference)):
            if len(target):
                key = int(fold[i]), label
                moment[key] += design.T @ target
                square[key] += target @ target
                count[key] += len(target) * float(item.weight[0])
                waiting.setdefault(key, []).append(design)
                if sum(len(part) for part in waiting[key]) > _ROWS_AT_ONCE:
                    add_gram(gram[key], waiting.pop(key))
    for key, parts in waiting.items():
        add_gram(gram[key], parts)
    for key in zip(*np.nonzero(count), strict=True):
        gram[key] += np.tril(gram[key], -1).T
    return NormalEquations(gram, moment, square, count, len(kernel.elements))


def add_gram(gram: np.ndarray, parts: list[np.ndarray]) -> None:
    """Add RᵀR to the lower triangle of ``gram`` in place, R being the stacked parts."""
    rows = np.concatenate(parts)
    # BLAS is column-major: gram.T and rows.T are these arrays as they lie in memory, its upper triangle is our lower
    scipy.linalg.blas.dsyrk(1.0, rows.T, beta=1.0, c=gram.T, lower=0, overwrite_c=1)


def solve(
    equations: NormalEquations,
    *,
    energy_weights: tuple[float, ...] = ENERGY_WEIGHTS,
    ridges: tuple[float, ...] = RIDGES,
    stress_weight: float = STRESS_WEIGHT,
    prior: np.ndarray | float = 0.0,
) -> LeastSquares:
    """Ridge regression; the ridge and the weight of energies against forces by cross-validation.

    The score of a pair is the product of the energies' and the forces' squared errors on each fold left out, so
    that it does not matter in what units or how well either can be fitted, and of all folds, so that it matters
    little if one of them holds a structure that cannot be predicted from the others. Penalties are those of
    :func:`penalties`; the reference energies have none.

    Parameters
    ----------
    equations : NormalEquations
    energy_weights, ridges : tuple of float
        What to try.
    stress_weight : float
        Weight of a virial row (eV per √atom) against a force row (eV/Å).
    prior : array, shape (n_columns, n_columns), optional
        Added to the normal matrix, whatever fold is left out (:mod:`molml.energy.prior`).
    """
    gram, moment = equations.gram, equations.moment
    total = equations.n_rows.sum(0)
    if not total[0] or not total[1:].any():
        energy_weights = energy_weights[:1]  # nothing to weigh against
    if total[2] and total[0] + total[1] == 0:
        raise ValueError("a linear potential needs energies or forces, got stress labels only")
    scores: list[dict[str, float]] = []
    n_folds, n_free = len(gram), equations.n_elements

    def fitted(folds: Iterable[int], energy_weight: float, ridge: float) -> np.ndarray:
        matrix, right = _weighted(equations, folds, (energy_weight, 1.0, stress_weight))
        matrix += prior
        return ridge_solution(matrix, right, penalties(matrix, ridge, n_free), n_free)

    def squares(f: int, x: np.ndarray) -> np.ndarray:
        labelled = zip(gram[f], equations.n_rows[f], strict=True)
        product = np.array([own @ x if n else np.zeros(len(x)) for own, n in labelled])
        return (product - 2.0 * moment[f]) @ x + equations.square[f]

    def score(energy_weight: float, ridge: float) -> None:
        error = np.zeros((n_folds, 3))
        for f in range(n_folds if n_folds > 1 else 0):
            error[f] = squares(f, fitted((g for g in range(n_folds) if g != f), energy_weight, ridge))
        # rounding can turn a perfect fit's error negative
        error = np.maximum(error, 1e-30)
        rmse = np.where(total > 0.0, np.sqrt(error.sum(0) / np.maximum(total, 1.0)), 0.0)
        log_score = float(np.log(error[:, :2][equations.n_rows[:, :2] > 0.0]).sum())
        names = "energy_weight", "ridge", "energy_rmse", "forces_rmse", "virial_rmse", "log_score"
        scores.append(dict(zip(names, (energy_weight, ridge, *rmse.tolist(), log_score), strict=True)))

    def best_score() -> dict[str, float]:
        return min(scores, key=lambda score: score["log_score"])

    # the two choices hardly depend on each other: first the weight at a middling ridge, then the ridge, away from
    # there either way as long as the score falls
    middle = len(ridges) // 2
    for energy_weight in energy_weights:
        score(energy_weight, ridges[middle])
    for way in (ridges[middle + 1 :], ridges[:middle][::-1]):
        for ridge in way:
            before = best_score()
            score(before["energy_weight"], ridge)
            if best_score() is before:
                break
    best = best_score()
    solution = fitted(range(n_folds), best["energy_weight"], best["ridge"])
    left = np.sum([squares(f, solution) for f in range(n_folds)], axis=0)
    train_rmse = np.sqrt(np.maximum(left, 0.0) / np.maximum(total, 1.0))
    rmse = np.array([best["energy_rmse"], best["forces_rmse"], best["virial_rmse"]])
    return LeastSquares(solution, best["energy_weight"], best["ridge"], rmse, train_rmse, scores)


def limit_force_errors(
    kernel: FeatureKernel,
    dataset: StructureDataset,
    gram: np.ndarray,
    errors: dict[int, np.ndarray],
    *,
    ridge: float,
    limit: float = ERROR_LIMIT,
) -> np.ndarray:
    """Least change of the coefficients that keeps every force error within ``limit`` times the RMSE.

    A mean over ten thousands of components does not see the one at the shortest distance, which is where a simulation
    fails. Minimised is the change of all predictions, d · gram · d / 2 (to which the sum of squares grows around its
    least value), plus, for every force component, a thousand times the square of what its error exceeds the limit by.
    That is convex and quadratic by parts: few components are beyond the limit, so each pass over the structures finds
    those, and normal equations with their rows added are solved until the same ones remain beyond.

    Parameters
    ----------
    kernel : FeatureKernel
    dataset : StructureDataset
    gram : array, shape (n_columns, n_columns)
        Of :func:`weighted_gram` for these structures.
    errors : dict of int to array, eV/Å
        Errors of the force components with labels, of each structure (by index) that has some and counts.
    ridge : float
    limit : float
        In units of the root mean square error of the force components.

    Returns
    -------
    array, shape (n_columns,)
        To be added to the coefficients of the linear part; zeros where nothing exceeds the limit.
    """
    change, now = np.zeros(len(gram)), errors
    rows: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for _ in range(_MOST_PASSES if errors else 0):
        rmse = (sum(float(own @ own) for own in now.values()) / sum(len(own) for own in now.values())) ** 0.5
        bound = max(limit * rmse, _LEAST_LIMIT)
        largest = {i: float(np.abs(own).max()) for i, own in now.items() if i not in rows}
        beyond = [i for i in sorted(largest, key=lambda i: -largest[i]) if largest[i] > bound]
        if not beyond:
            break
        for i in beyond[:_STRUCTURES_A_PASS]:
            design = structure_rows(kernel, dataset[i], np.zeros(len(kernel.elements)))[1][0]
            rows[i] = design, -errors[i] * float(dataset[i].weight[0]) ** 0.5
        root = np.concatenate([np.full(len(rows[i][1]), float(dataset[i].weight[0]) ** 0.5) for i in rows])
        design, target = (np.concatenate(parts) for parts in zip(*rows.values(), strict=True))
        penalty = penalties(gram, ridge, len(kernel.elements))
        change = _bounded(gram, design, target, bound * root, penalty, change, len(kernel.elements))
        added = linear_forces(kernel, dataset, change)
        now = {i: own + added[i] for i, own in errors.items()}
    return change


def weighted_gram(equations: NormalEquations, energy_weight: float) -> np.ndarray:
    """Normal matrix of all folds and labels, shape (n_columns, n_columns), weighted as :func:`solve` does."""
    return _weighted(equations, range(len(equations.gram)), (energy_weight, 1.0, STRESS_WEIGHT))[0]


def _weighted(
    equations: NormalEquations, folds: Iterable[int], weights: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Normal matrix and right-hand side of some folds, added up one matrix at a time: they can be large."""
    matrix, right = np.zeros(equations.gram.shape[2:]), np.zeros(equations.moment.shape[2:])
    for f in folds:
        for label, weight in enumerate(weights):
            if equations.n_rows[f, label]:
                matrix += weight**2 * equations.gram[f, label]
                right += weight**2 * equations.moment[f, label]
    return matrix, right


def linear_forces(
    kernel: FeatureKernel, dataset: StructureDataset | Sequence[Structures], coefficients: np.ndarray
) -> dict[int, np.ndarray]:
    """Force components that coefficients give, eV/Å, where there are labels, for each structure that counts."""
    bounds = np.cumsum([0, *(centre.n_functions for centre in kernel.tables.centres)])
    own = [coefficients[a:b] for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
    found = {}
    for i in range(len(dataset)):
        item = dataset[i]
        if float(item.weight[0]) and bool(item.has_forces.any()):
            vectors = pair_vectors(item)
            near = neighbourhood(kernel.elements, item.numbers, item.first, item.second, vectors)
            weights = [np.tile(c, (len(atoms), 1)) for c, atoms in zip(own, near.atoms, strict=True)]
            gradient = torch.from_numpy(kernel.vjp(near, kernel.moments(near), weights))
            found[i] = forces_and_virial(item, vectors, gradient)[0][item.has_forces].numpy().ravel()
    return found


def _bounded(
    gram: np.ndarray,
    design: np.ndarray,
    target: np.ndarray,
    bound: np.ndarray,
    penalty: np.ndarray,
    start: np.ndarray,
    n_free: int,
) -> np.ndarray:
    """Least x · gram · x with a stiff penalty on what design · x - target exceeds ``bound`` by."""
    x, before = start, None
    for _ in range(_MOST_STEPS):
        error = design @ x - target
        beyond = np.abs(error) > bound
        if before is not None and np.array_equal(beyond, before):
            break
        own, before = design[beyond], beyond
        goal = target[beyond] + bound[beyond] * np.sign(error[beyond])
        x = ridge_solution(gram + _STIFFNESS * own.T @ own, _STIFFNESS * goal @ own, penalty, n_free)
    return x


def penalties(gram: np.ndarray, ridge: float, n_free: int) -> np.ndarray:
    """Penalties of the squares of coefficients: all alike, in units of the median column's mean square.

    Functions are of like size by their definition, and one that hardly varies on the data needs a large coefficient to
    say anything: alike penalties keep coefficients of the fine and the far-fetched small. In units of every column's
    own size, which is the custom, all of them would count the same; forces on new structures are then up to 15 % worse
    where functions are many and structures few (aspirin), and much the same elsewhere.
    """
    own = np.diag(gram)[: len(gram) - n_free]
    own = own[own > _ROUNDING**2 * own.max(initial=0.0)]
    return np.full(len(gram), ridge * (float(np.median(own)) if len(own) else 1.0))


def ridge_solution(gram: np.ndarray, moment: np.ndarray, penalty: np.ndarray, n_free: int) -> np.ndarray:
    """Solve with ``penalty`` on the squares of the coefficients, the last ``n_free`` excepted."""
    return ridge_factor(gram, penalty, n_free)(moment)


def ridge_factor(gram: np.ndarray, penalty: np.ndarray, n_free: int) -> Callable[[np.ndarray], np.ndarray]:
    """As :func:`ridge_solution`, for any number of right-hand sides; the lower triangle of ``gram`` is read."""
    scale = np.sqrt(np.diag(gram))
    # a column that symmetry makes zero holds roundings, which must not be blown up to the size of the others
    scale[scale <= _ROUNDING * scale.max()] = 1.0
    scaled_penalty, least = penalty / scale**2, 1e-13
    scaled_penalty[len(scale) - n_free :] = least
    while True:
        scaled = gram / scale
        scaled /= scale[:, None]
        scaled[np.diag_indices_from(scaled)] += np.maximum(scaled_penalty, least)
        try:
            factor = scipy.linalg.cho_factor(scaled, lower=True, overwrite_a=True, check_finite=False)
            return lambda moment: scipy.linalg.cho_solve(factor, moment / scale, check_finite=False) / scale
        except scipy.linalg.LinAlgError:
            # rounding has eaten the smallest eigenvalues: penalties above it are the least that can be had
            least *= 10.0


def forward_selection(
    equations: NormalEquations, columns: np.ndarray, limit: np.ndarray, *, energy_weight: float = 30.0
) -> np.ndarray:
    """Choose functions one by one, each time the one that lowers the training error most (orthogonal least squares).

    Parameters
    ----------
    equations : NormalEquations
    columns : int array, shape (n_columns,)
        Element (by index) whose functions a column belongs to; -1 for the reference energies, which are taken first.
    limit : int array, shape (n_elements,)
        Most functions of each element.

    Returns
    -------
    int array
        The chosen columns, sorted.

    References
    ----------
    Chen, Billings, Luo, Int. J. Control 50, 1873 (1989).
    """
    weight = np.array([energy_weight**2, 1.0, 1.0])
    gram = np.tensordot(weight, equations.gram.sum(0), 1)
    target = np.tensordot(weight, equations.moment.sum(0), 1)
    scale = np.sqrt(np.diag(gram))
    usable = scale > _ROUNDING * scale.max()
    scale[~usable] = 1.0
    gram = gram / scale / scale[:, None]
    left, size = target / scale, np.ones(len(scale))
    room = limit.copy()
    directions = np.zeros((int(limit.sum()) + equations.n_elements, len(scale)))
    first = np.flatnonzero(columns < 0).tolist()
    chosen: list[int] = []
    while len(chosen) < len(directions):
        # what is left of a column after the chosen ones must be more than rounding
        open_ = usable & (size > 1e-9)
        open_[columns >= 0] &= room[columns[columns >= 0]] > 0
        if first:
            best = first.pop(0)
            if not open_[best]:
                continue
        else:
            open_[columns < 0] = False
            if not open_.any():
                break
            best = int(np.argmax(np.where(open_, left**2 / np.maximum(size, 1e-30), -1.0)))
            room[columns[best]] -= 1
        step = len(chosen)
        direction = (gram[best] - directions[:step, best] @ directions[:step]) / np.sqrt(size[best])
        directions[step] = direction
        left = left - direction * (left[best] / np.sqrt(size[best]))
        size = size - direction**2
        usable[best] = False
        chosen.append(best)
    return np.sort(np.array([c for c in chosen if columns[c] >= 0], dtype=np.int64))
