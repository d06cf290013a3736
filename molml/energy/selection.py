"""Choose the symmetry functions for a data set, so that nobody has to write a list by hand.

A grid of shells, all their two-, three- and four-body combinations, and a few repulsive walls are the candidates; those
that vary most on the training atoms, what they repeat of others taken off, are looked at (pivoted Cholesky, the
deterministic kin of CUR), and of these the ones that lower the training error most are kept (orthogonal least squares).
Where more functions are wanted than can be weighed against each other, all that are looked at are kept.
"""

from __future__ import annotations

from itertools import combinations_with_replacement, product

import numpy as np
import scipy.linalg
from ase.data import chemical_symbols

from molml.energy.data import StructureDataset, pair_vectors
from molml.energy.features import ANY, G2, FourBody, Function, SymmetryFunctions, ThreeBody
from molml.energy.kernels import FeatureKernel, neighbourhood
from molml.energy.linear import MOST_COLUMNS, forward_selection, normal_equations

N_SHELLS = 14
N_WALL = 6
DEGREE = 4
# every coupling of three degrees up to 4 that survives reflection
COUPLINGS = tuple(
    degrees
    for degrees in combinations_with_replacement(range(DEGREE + 1), 3)
    if sum(degrees) % 2 == 0 and degrees[2] <= degrees[0] + degrees[1]
)
# shells for products of two and of three moments by the number of elements, with whose 2nd and 3rd power they multiply
N_PAIR_SHELLS = {1: 6, 2: 6, 3: 6, 4: 5}
N_TRIPLE_SHELLS = {1: 4, 2: 4, 3: 3, 4: 2}
_FEWEST_CANDIDATES, _MOST_CANDIDATES = 700, 2000
_SAMPLE_ATOMS = 1500
_ATOMS_PER_CANDIDATE = 2
_SAMPLE_STRUCTURES = 300


def shells(n: int, shortest: float, cutoff: float) -> list[tuple[float, float]]:
    """Gaussians (eta in Å⁻², r_s in Å) from the shortest distance to just inside the cutoff, in geometric progression.

    Shifted functions in the manner of Gastegger et al., J. Chem. Phys. 148, 241709 (2018): each is as wide as the gap
    to its neighbour.
    """
    if n == 1:
        return [(2.0 / cutoff**2, 0.5 * (shortest + cutoff))]
    centre = np.geomspace(shortest, 0.92 * cutoff, n)
    gap = np.gradient(centre)
    return [(round(float(0.5 / g**2), 6), round(float(r), 6)) for r, g in zip(centre, gap, strict=True)]


def walls(n: int, shortest: float) -> list[tuple[float, float]]:
    """Gaussians (eta in Å⁻², r_s = 0) about the atom itself, whose logarithm falls by 1 to 8 per Å at ``shortest``.

    Like the repulsion of two atoms they rise on towards distances shorter than any in the data, where a shell would
    fall off again: a linear potential needs them to follow the largest forces.

    References
    ----------
    Imbalzano et al., J. Chem. Phys. 148, 241730 (2018), for Gaussians both centred and shifted.
    """
    return [(round(float(slope / (2.0 * shortest)), 6), 0.0) for slope in np.geomspace(1.0, 8.0, n)]


def candidates(elements: list[int], shortest: float, cutoff: float) -> list[Function]:
    """All functions of the grid, the same for every central element."""
    symbols = [chemical_symbols[z] for z in elements]
    n = len(symbols)
    radial = walls(N_WALL, shortest) + shells(N_SHELLS, shortest, cutoff)
    functions: list[Function] = [G2(s, *gaussian) for s in symbols for gaussian in radial]
    pair = [(s, shell) for s in symbols for shell in shells(N_PAIR_SHELLS.get(n, 3), shortest, cutoff)]
    for a, b in combinations_with_replacement(pair, 2):
        functions += [ThreeBody((a[0], b[0]), (a[1], b[1]), degree) for degree in range(DEGREE + 1)]
    # triples of many elements are too many to be told apart by any data set: their neighbours are weighted instead
    neighbours = symbols if n in N_TRIPLE_SHELLS else [ANY]
    triple = [(s, shell) for s in neighbours for shell in shells(N_TRIPLE_SHELLS.get(n, 4), shortest, cutoff)]
    for degrees in COUPLINGS:
        seen = set()
        for chosen in product(range(len(triple)), repeat=3):
            key = tuple(sorted(zip(chosen, degrees, strict=True)))
            if key not in seen:
                seen.add(key)
                a, b, c = (triple[i] for i in chosen)
                functions.append(FourBody((a[0], b[0], c[0]), (a[1], b[1], c[1]), degrees))
    return functions


def shortest_distance(dataset: StructureDataset) -> float:
    """Shortest distance between two atoms of the data set, Å; the cutoff where no atom has a neighbour."""
    shortest = float(dataset.cutoff or 0.0)
    for i in range(len(dataset)):
        vectors = pair_vectors(dataset[i])
        if len(vectors):
            shortest = min(shortest, float(vectors.norm(dim=1).min()))
    return shortest


def automatic_functions(
    dataset: StructureDataset,
    *,
    n_functions: int = 300,
    n_candidates: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> SymmetryFunctions:
    """Symmetry functions for a data set.

    Parameters
    ----------
    dataset : StructureDataset
        Training structures, with labels; their cutoff is the functions' cutoff.
    n_functions : int
        Most functions per central element.
    n_candidates : int, optional
        How many candidates per element reach the second, supervised stage; by default twice ``n_functions``, but at
        least 700 and at most 2,000, fewer for many elements. Where that is no more than ``n_functions``, there is no
        second stage.
    seed : int
        Of the choice of structures looked at, where there are many.

    Returns
    -------
    SymmetryFunctions

    References
    ----------
    Imbalzano et al., J. Chem. Phys. 148, 241730 (2018), for the way: grid, then selection on the data.
    Chen, Billings, Luo, Int. J. Control 50, 1873 (1989), for orthogonal least squares.
    """
    if dataset.cutoff is None:
        raise ValueError("the data set needs a cutoff, got None; use dataset.with_cutoff(5.5)")
    if n_candidates is None:
        room = min(_MOST_CANDIDATES, (MOST_COLUMNS - len(dataset.elements)) // max(len(dataset.elements), 1))
        n_candidates = max(n_functions, min(max(_FEWEST_CANDIDATES, 2 * n_functions), room))
    if n_functions < 1 or n_candidates < n_functions:
        raise ValueError(
            f"n_functions must be positive and n_candidates no smaller, got {n_functions} and {n_candidates}"
        )
    order = np.random.default_rng(seed).permutation(len(dataset)).tolist()
    atoms = dataset.atoms
    # a rare element must be seen
    holders = {next(i for i in order if z in atoms[i].numbers) for z in dataset.elements}
    sample = dataset.subset(sorted(holders | set(order[:_SAMPLE_STRUCTURES])))
    grid = candidates(dataset.elements, shortest_distance(sample), float(dataset.cutoff))
    symbols = [chemical_symbols[z] for z in dataset.elements]
    everything = SymmetryFunctions(dict.fromkeys(symbols, grid), cutoff=float(dataset.cutoff))
    kept = _independent(everything, sample, n_candidates)
    stage = {symbol: [grid[i] for i in columns] for symbol, columns in zip(symbols, kept, strict=True)}
    if all(len(columns) <= n_functions for columns in kept):
        return SymmetryFunctions({s: own or grid[:1] for s, own in stage.items()}, cutoff=float(dataset.cutoff))
    owner = np.concatenate([np.full(len(columns), e) for e, columns in enumerate(kept)] + [np.full(len(symbols), -1)])
    kernel = FeatureKernel(SymmetryFunctions(stage, cutoff=float(dataset.cutoff)))
    equations = normal_equations(kernel, sample, np.zeros(len(symbols)), n_folds=1, progress=progress)
    chosen = forward_selection(equations, owner, np.full(len(symbols), n_functions))
    start = np.cumsum([0, *(len(columns) for columns in kept)])
    functions = {}
    for e, symbol in enumerate(symbols):
        own = [grid[kept[e][c - start[e]]] for c in chosen if start[e] <= c < start[e + 1]]
        # an element whose surroundings never vary keeps one: a network needs an input
        functions[symbol] = own or grid[:1]
    return SymmetryFunctions(functions, cutoff=float(dataset.cutoff))


def _independent(functions: SymmetryFunctions, sample: StructureDataset, limit: int) -> list[list[int]]:
    """Candidates of each element: the one that varies most, then the one that varies most beside it, and so on."""
    kernel = FeatureKernel(functions)
    blocks: list[list[np.ndarray]] = [[] for _ in functions.elements]
    seen = np.zeros(len(functions.elements))
    n_atoms = max(_SAMPLE_ATOMS, _ATOMS_PER_CANDIDATE * limit)
    for i in range(len(sample)):
        item = sample[i]
        near = neighbourhood(kernel.elements, item.numbers, item.first, item.second, pair_vectors(item))
        for e, values in enumerate(kernel.values(near, kernel.moments(near))):
            blocks[e].append(values)
            seen[e] += len(values)
        if (seen > n_atoms).all():
            break
    kept = []
    for block in blocks:
        values = np.concatenate(block)[:n_atoms]
        values = values - values.mean(0)
        spread = values.std(0)
        varying = np.flatnonzero(spread > 1e-8 * max(spread.max(initial=0.0), 1e-30))
        if len(varying) > limit:
            values = values[:, varying]
            pivots = scipy.linalg.lapack.dpstrf(values.T @ values, overwrite_a=1)[1][:limit] - 1
            varying = varying[pivots]
        kept.append(sorted(varying.tolist()))
    return kept
