"""Walks through the space of an autoencoder: neighbours of a molecule, paths and grids between molecules."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator
from rdkit.DataStructs import BulkTanimotoSimilarity

from molml.molecules.data import as_molecules, canonical
from molml.molecules.display import MoleculeList

__all__ = ["Autoencoder", "interpolate", "near", "similarities"]

Floats = np.ndarray[Any, np.dtype[np.float64]]

WIDENING = 1.25
MOST_ROUNDS = 24
DRAWS = 3  # points decoded per neighbour wanted, in a round
# paths: codes tried at every point, their distance from it in standard deviations of the posterior, and what a step to
# the same molecule is worth: as much as one to a rather similar one, or the smoothest path would stand still
CANDIDATES, NEARBY, REST = 32, 0.5, 0.7
MISSING = -1.0  # what a step from or to a point is worth that is no molecule
MOST_SWEEPS = 20
_MORGAN = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)


class Autoencoder(Protocol):
    """What these functions need of a model; `molml.molecules.MoleculeVAE` has it."""

    def encode(self, source: object, /) -> Floats:
        """Codes (n, n_latent) of molecules: the means."""

    def decode(self, z: Floats, /) -> list[Chem.Mol | None]:
        """Molecules of codes, None where there is none."""

    def dataset(self, smiles: Sequence[str], /) -> Any:
        """Canonical SMILES as the model reads them."""

    def posterior(self, dataset: Any, /) -> tuple[Any, Any]:
        """Mean and log variance of the codes, tensors (n, n_latent)."""


def similarities(query: Chem.Mol, molecules: Sequence[Chem.Mol | None]) -> list[float | None]:
    """Tanimoto similarity of Morgan fingerprints (radius 2, 2048 bits) to one molecule; None for None.

    Parameters
    ----------
    query : Mol
    molecules : sequence of Mol or None

    Returns
    -------
    list of float or None

    Examples
    --------
    >>> similarities(Chem.MolFromSmiles("CCO"), [Chem.MolFromSmiles("OCC"), None, Chem.MolFromSmiles("c1ccccc1")])
    [1.0, None, 0.0]
    """
    prints = [_MORGAN.GetFingerprint(mol) for mol in molecules if mol is not None]
    found = iter(BulkTanimotoSimilarity(_MORGAN.GetFingerprint(query), prints))
    return [None if mol is None else float(next(found)) for mol in molecules]


def near(
    vae: Autoencoder, molecule: object, n: int = 20, *, radius: float | None = None, seed: int = 0
) -> MoleculeList:
    """Molecules around a molecule: decoded from points in random directions from its code.

    Parameters
    ----------
    vae : Autoencoder
    molecule : Mol or str
        The query: a molecule, SMILES, InChI or known name.
    n : int
        Number of neighbours.
    radius : float, optional
        Distance of the points from the code. If not given, it starts at half the norm of the posterior's standard
        deviation, the distance at which a decoder still finds its molecule, and grows by a quarter until there are n
        neighbours; the note of the result says how far.
    seed : int
        Of the directions.

    Returns
    -------
    MoleculeList of n + 1
        The query, highlighted, and n different other molecules, the most similar first. Values: Tanimoto similarity of
        Morgan fingerprints to the query, and distance of the code from which each was decoded first.

    Raises
    ------
    ValueError
        If something is not one molecule, or a number is out of its range.

    Warns
    -----
    UserWarning
        If there are fewer than n neighbours, at the given radius or at all.

    References
    ----------
    Gómez-Bombarelli et al., ACS Cent. Sci. 4, 268 (2018), figure 2.
    """
    (query,) = _given([molecule] if isinstance(molecule, str) else molecule, (1,), "molecule")
    _check_integer("n", n, 1)
    _check_integer("seed", seed, 0)
    if radius is not None and not 0 < radius < np.inf:
        raise ValueError(f"radius must be positive and finite, got {radius}; leave it out to have it chosen")
    smiles = canonical(query)
    mean, logvar = (np.asarray(x, dtype=np.float64) for x in vae.posterior(vae.dataset([smiles])))
    rng = np.random.default_rng(seed)
    length = 0.5 * float(np.linalg.norm(np.exp(0.5 * logvar[0]))) if radius is None else radius
    first = length
    found: dict[str, tuple[Chem.Mol, float]] = {}
    for turn in range(MOST_ROUNDS):
        if turn and radius is None:
            length *= WIDENING
        directions = rng.normal(size=(DRAWS * n, mean.shape[1]))
        directions *= length / np.linalg.norm(directions, axis=1, keepdims=True)
        for mol in vae.decode(mean + directions):
            if mol is not None and (name := canonical(mol)) != smiles:
                found.setdefault(name, (mol, length))
        if len(found) >= n:
            break
    # the nearest in the code, then the most similar: far points only where near ones did not suffice
    alike = similarities(query, [mol for mol, _ in found.values()])
    ranked = sorted(
        (
            (distance, -float(s or 0.0), name, mol)
            for (name, (mol, distance)), s in zip(found.items(), alike, strict=True)
        ),
        key=lambda item: item[:3],
    )[:n]
    ranked.sort(key=lambda item: (item[1], item[0], item[2]))
    if len(ranked) < n:
        reach = f"at radius {length:.3g}" if radius is not None else f"up to radius {length:.3g}"
        warnings.warn(
            f"only {len(ranked)} different neighbours of {smiles} were found {reach}, {n} were asked for; "
            "ask for fewer or give a larger radius",
            stacklevel=2,
        )
    note = f"{len(ranked)} neighbours at radius {first:.3g}" + (f" to {length:.3g}" if length > first else "") + "."
    back = vae.decode(mean)[0]
    if back is None or canonical(back) != smiles:
        note += " The model does not reconstruct the query itself."
    return MoleculeList(
        [query, *(mol for _, _, _, mol in ranked)],
        {"similarity": [1.0, *(-s for _, s, _, _ in ranked)], "distance": [0.0, *(d for d, _, _, _ in ranked)]},
        highlight=[0],
        title="Neighbours",
        note=note,
    )


def interpolate(
    vae: Autoencoder,
    molecules: object,
    n: int = 7,
    *,
    path: bool = False,
    spherical: bool = False,
    candidates: int = CANDIDATES,
    seed: int = 0,
) -> MoleculeList:
    """Molecules between molecules: decoded from points between their codes.

    The molecules that the points themselves decode to may have little to do with each other. So some codes are tried
    close to every point, half a standard deviation of the posterior away, and of each point's molecules that one is
    taken which makes the steps along the path, or along the rows and columns of the grid, smallest in all.

    Parameters
    ----------
    vae : Autoencoder
    molecules : iterable of Mol or str
        Four give a two-dimensional grid with them in the corners (first row: from the first to the second; last row:
        from the third to the fourth); any other number a path through them, in their order.
    n : int
        Points per side of the grid, or per leg of the path, ends included.
    path : bool
        A path also through four.
    spherical : bool
        Turn from one code to the next, at a length between theirs, rather than along the straight line.
    candidates : int
        Codes tried at every point that is not an end, the point itself among them; with 1 it is all.
    seed : int
        Of the others.

    Returns
    -------
    MoleculeList
        Row after row; None where a point is no molecule. The first and last of each leg, or the corners, highlighted,
        are decoded like the rest; the note says if one is not the molecule given. Value: Tanimoto similarity to the
        one before, in a path; to the most similar of the four, in a grid.

    Raises
    ------
    ValueError
        If there are fewer than two molecules, or a number is out of its range.

    References
    ----------
    Gómez-Bombarelli et al., ACS Cent. Sci. 4, 268 (2018), figure 2. Spherical: Shoemake, SIGGRAPH 1985.
    """
    given = _given(molecules, None, "molecules")
    _check_integer("n", n, 2)
    _check_integer("candidates", candidates, 1)
    _check_integer("seed", seed, 0)
    codes = np.asarray(vae.encode(given), dtype=np.float64)
    steps = np.linspace(0.0, 1.0, n)
    grid = len(given) == 4 and not path
    all_points = _grid if grid else _legs
    points = all_points(codes, steps, turned if spherical else straight)
    if grid:
        numbers = np.arange(n * n).reshape(n, n)
        ends, lines = [0, n - 1, n * (n - 1), n * n - 1], [*numbers.tolist(), *numbers.T.tolist()]
    else:
        ends, lines = [i * (n - 1) for i in range(len(given))], [list(range(len(points)))]
    _, logvar = vae.posterior(vae.dataset([canonical(mol) for mol in given]))
    spread = NEARBY * all_points(np.exp(0.5 * np.asarray(logvar, dtype=np.float64)), steps, straight)
    noise = np.random.default_rng(seed).normal(size=(len(points), candidates, points.shape[1]))
    noise[:, 0] = 0.0
    tried = [z[:1] if i in ends else z for i, z in enumerate(points[:, None] + spread[:, None] * noise)]
    decoded = iter(vae.decode(np.concatenate(tried)))
    found = _smoothest([[next(decoded) for _ in z] for z in tried], lines)
    if grid:
        to_each = [similarities(mol, found) for mol in given]
        alike = [None if mol is None else max(float(s[i] or 0.0) for s in to_each) for i, mol in enumerate(found)]
        values = {"similarity": alike}
    else:
        values = {"to previous": _to_previous(found)}
    lost = [canonical(mol) for mol, end in zip(given, ends, strict=True) if not _same(mol, found[end])]
    valid = sum(mol is not None for mol in found)
    different = len({canonical(mol) for mol in found if mol is not None})
    note = f"{valid} of {len(found)} points are molecules, {different} of them different."
    if lost:
        note += f" The model does not reconstruct {', '.join(lost)}."
    return MoleculeList(
        found, values, columns=n if grid else min(len(found), n), highlight=ends, title="Interpolation", note=note
    )


def _grid(corners: Floats, steps: Floats, between: Callable[[Floats, Floats, Floats], Floats]) -> Floats:
    left, right = between(corners[0], corners[2], steps), between(corners[1], corners[3], steps)
    return np.concatenate([between(a, b, steps) for a, b in zip(left, right, strict=True)])


def _legs(stations: Floats, steps: Floats, between: Callable[[Floats, Floats, Floats], Floats]) -> Floats:
    legs = zip(stations, stations[1:], strict=False)
    return np.concatenate([between(a, b, steps)[i > 0 :] for i, (a, b) in enumerate(legs)])


def _smoothest(found: Sequence[Sequence[Chem.Mol | None]], lines: Sequence[Sequence[int]]) -> list[Chem.Mol | None]:
    """One of the molecules of every point, so that those that follow each other along lines of points are alike.

    One line after the other is chosen by dynamic programming (Viterbi, IEEE Trans. Inf. Theory 13, 260 (1967)), for the
    others as they are, until nothing changes: the best choice for a single line, a good one for several.
    """
    prints = [[None if mol is None else _MORGAN.GetFingerprint(mol) for mol in each] for each in found]
    links: dict[int, dict[int, Floats]] = {i: {} for i in range(len(found))}
    for line in lines:
        for i, j in zip(line, line[1:], strict=False):
            links[i][j] = _likeness(prints[i], prints[j])
            links[j][i] = links[i][j].T
    chosen = [0] * len(found)
    for _ in range(MOST_SWEEPS):
        before = list(chosen)
        for line in lines:
            others = [[link[:, chosen[j]] for j, link in links[i].items() if j not in line] for i in line]
            own = [sum(each, np.zeros(len(found[i]))) for i, each in zip(line, others, strict=True)]
            total, origins = own[0], []
            for place, (i, j) in enumerate(zip(line, line[1:], strict=False), start=1):
                worth = total[:, None] + links[i][j]
                origins.append(worth.argmax(0))
                total = worth.max(0) + own[place]
            best = int(total.argmax())
            for i, origin in zip(line[:0:-1], origins[::-1], strict=True):
                chosen[i], best = best, int(origin[best])
            chosen[line[0]] = best
        if chosen == before:
            break
    return [each[k] for each, k in zip(found, chosen, strict=True)]


def _likeness(prints: Sequence[Any], others: Sequence[Any]) -> Floats:
    """What a step from each of the molecules to each of the others is worth, by their fingerprints."""
    worth = np.full((len(prints), len(others)), MISSING)
    there = [k for k, other in enumerate(others) if other is not None]
    for row, each in zip(worth, prints, strict=True):
        if each is not None:
            row[there] = BulkTanimotoSimilarity(each, [others[k] for k in there])
    # mirror images, too, are alike to the fingerprint
    worth[worth == 1.0] = REST
    return worth


def _given(source: object, allowed: tuple[int, ...] | None, what: str) -> list[Chem.Mol]:
    mols = as_molecules(source, what=what)
    if allowed is not None and len(mols) not in allowed:
        raise ValueError(f"{what} must be one molecule, got {len(mols)}")
    if allowed is None and len(mols) < 2:
        raise ValueError(f"{what} must be at least two molecules, got {len(mols)}")
    return mols


def _check_integer(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")


def straight(a: Floats, b: Floats, steps: Floats) -> Floats:
    """Points of the straight line from a (at 0) to b (at 1), shape (n_steps, n_latent)."""
    return a + steps[:, None] * (b - a)


def turned(a: Floats, b: Floats, steps: Floats) -> Floats:
    """Points of the arc from a to b, of lengths between theirs, shape (n_steps, n_latent)."""
    lengths = np.linalg.norm(a), np.linalg.norm(b)
    if min(lengths) == 0.0:
        return straight(a, b, steps)
    cosine = np.clip(a @ b / (lengths[0] * lengths[1]), -1.0, 1.0)
    angle = np.arccos(cosine)
    # parallel codes have no plane to turn in, opposite ones too many
    if np.sin(angle) < 1e-6:
        return straight(a, b, steps)
    t = steps[:, None]
    unit = (np.sin((1 - t) * angle) * (a / lengths[0]) + np.sin(t * angle) * (b / lengths[1])) / np.sin(angle)
    return (lengths[0] + t * (lengths[1] - lengths[0])) * unit


def _to_previous(found: Sequence[Chem.Mol | None]) -> list[float | None]:
    result: list[float | None] = [None]
    for a, b in zip(found, found[1:], strict=False):
        result.append(None if a is None or b is None else similarities(a, [b])[0])
    return result


def _same(mol: Chem.Mol, other: Chem.Mol | None) -> bool:
    return other is not None and canonical(mol) == canonical(other)
