"""Better molecules: search in the space of an autoencoder for a property, by gradients, Gaussian process or CMA-ES."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, final

import numpy as np
import torch
from rdkit import Chem
from tqdm import tqdm

from molml.molecules.data import as_molecules, canonical
from molml.molecules.display import MoleculeList
from molml.molecules.exploration import Autoencoder, similarities
from molml.molecules.properties import PROPERTIES

__all__ = ["Call", "Optimization", "optimize"]

Floats = np.ndarray[Any, np.dtype[np.float64]]
Method = Literal["gradient", "bayesian", "cma"]

METHODS = ("gradient", "bayesian", "cma")
CANDIDATES = 2000  # of the acquisition function
MOST_MODELLED = 300  # points that the Gaussian process is fitted to: best, latest, and unfit ones
MOST_IDLE = 50  # batches of points without a new molecule
SCREENED = 8  # points decoded per molecule evaluated: most points of a batch are known molecules, or none, or unlike


class Call(NamedTuple):
    """One call of the score.

    Attributes
    ----------
    smiles : str
        Canonical.
    score : float
    similarity : float
        To the start: Tanimoto, Morgan fingerprints.
    best : float
        Best score so far of a molecule that is similar enough.
    """

    smiles: str
    score: float
    similarity: float
    best: float


class Optimization(NamedTuple):
    """What an optimisation found.

    Attributes
    ----------
    best : Mol
        Best molecule that is similar enough; the start if none is better.
    score, start_score : float
        Of the best molecule and of the start.
    found : MoleculeList
        The start, highlighted, and all better molecules that are similar enough, the best first.
    history : list of Call
        In the order of the calls; the start first.
    """

    best: Chem.Mol
    score: float
    start_score: float
    found: MoleculeList
    history: list[Call]


def optimize(
    vae: Autoencoder,
    score: str | Callable[[Chem.Mol], float],
    start: object,
    *,
    similarity: float = 0.0,
    direction: Literal["max", "min"] | float = "max",
    method: Method = "bayesian",
    budget: int = 500,
    seed: int = 0,
    progress: bool | None = None,
) -> Optimization:
    """Search around a molecule for others with a better score.

    Parameters
    ----------
    vae : Autoencoder
    score : str or callable
        Name of a property (`molml.molecules.properties.PROPERTIES`), or a function of a molecule. A result that is not
        finite counts as the worst.
    start : Mol or str
        A molecule, SMILES, InChI or known name.
    similarity : float
        Least Tanimoto similarity (Morgan fingerprints, radius 2, 2048 bits) of a result to the start.
    direction : "max", "min" or float
        Which scores are better: larger, smaller, or closer to this number.
    method : "bayesian", "gradient" or "cma"
        "bayesian" models the score over the codes by a Gaussian process and takes points of largest expected
        improvement in a trust region. "cma" is an evolution strategy that learns a step for every direction.
        "gradient" climbs the model's own prediction of the property, from the start and from the best molecules so
        far; for that `score` must be one of the properties that the model predicts.
    budget : int
        Most calls of the score: molecules evaluated, the start among them; each is evaluated once. Where no new
        molecules turn up, the search goes nearer or farther and starts again from others that it has found; fewer
        calls are made if that does not help, and the note of the list of molecules says so, and why.
    seed : int
    progress : bool, optional
        Show a progress bar; if not given, only if stderr is a terminal.

    Returns
    -------
    Optimization
        Its result is never worse than the start.

    Raises
    ------
    TypeError, ValueError
        If a parameter is of the wrong type or out of its range, the start is no molecule, its score is not finite, or
        the model does not predict the property whose gradient is asked for.

    References
    ----------
    Trust region: Eriksson et al., NeurIPS 2019. Expected improvement: Jones et al., J. Global Optim. 13, 455 (1998).
    CMA-ES: Ros and Hansen, PPSN X (2008), the separable variant.
    """
    evaluate, better = score_of(score), direction_of(direction)
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if not 0 <= similarity <= 1:
        raise ValueError(f"similarity must lie in 0…1, got {similarity}")
    for name, value, least in (("budget", budget, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    mols = as_molecules(start, what="start")
    if len(mols) != 1:
        raise ValueError(f"start must be one molecule, got {len(mols)}")
    climb = _climber(vae, score, better) if method == "gradient" else None
    mean, logvar = (np.asarray(x, dtype=np.float64) for x in vae.posterior(vae.dataset([canonical(mols[0])])))
    search = _Search(vae, evaluate, better, mols[0], mean[0], similarity, budget)
    rng = np.random.default_rng(seed)
    with tqdm(
        total=budget, initial=1, desc="optimisation", unit="call", disable=None if progress is None else not progress
    ) as bar:
        search.bar = bar
        if climb is not None:
            _gradient(search, climb, np.exp(0.5 * logvar[0]), rng)
        elif method == "bayesian":
            _bayesian(search, np.exp(0.5 * logvar[0]), rng)
        else:
            _cma(search, np.exp(0.5 * logvar[0]), rng)
    return search.result()


def score_of(score: object) -> Callable[[Chem.Mol], float]:
    if isinstance(score, str):
        if score not in PROPERTIES:
            raise ValueError(f"score must be one of {', '.join(PROPERTIES)} or a function of a molecule, got {score!r}")
        return PROPERTIES[score]
    if not callable(score):
        raise TypeError(f"score must be the name of a property or a function, got {type(score).__name__}")
    return score


def direction_of(direction: object) -> Callable[[Any], Any]:
    """From scores, numbers or tensors, to what is maximised."""
    if direction == "max":
        return lambda value: value
    if direction == "min":
        return lambda value: -value
    if isinstance(direction, str) or isinstance(direction, bool) or not isinstance(direction, int | float):
        raise ValueError(f"direction must be 'max', 'min' or a number to come close to, got {direction!r}")
    if not math.isfinite(direction):
        raise ValueError(f"direction must be finite, got {direction}")
    return lambda value: -abs(value - direction)


@final
class _Search:
    """Calls of the score, counted and kept, and where in the space of codes they were made."""

    def __init__(
        self,
        vae: Autoencoder,
        evaluate: Callable[[Chem.Mol], float],
        better: Callable[[Any], Any],
        start: Chem.Mol,
        code: Floats,
        similarity: float,
        budget: int,
    ) -> None:
        self.vae, self.evaluate, self.better, self.start = vae, evaluate, better, start
        self.similarity, self.budget = similarity, budget
        self.history: list[Call] = []
        self.known: dict[str, tuple[Chem.Mol, float]] = {}
        self.codes: list[Floats] = []
        self.values: list[float] = []  # to be maximised, of the codes; −inf where there is no molecule that will do
        self.places: dict[str, Floats] = {}  # of every molecule, where it was found first
        self.idle = 0
        # of the points since the last new molecule: how many were none, not similar enough, known
        self.vain = dict.fromkeys(("no molecule", "not similar", "known"), 0)
        self.bar: tqdm[Any] | None = None
        name, value = canonical(start), float(evaluate(start))
        if not math.isfinite(value):
            raise ValueError(f"score must be finite at the start, got {value} for {name}")
        self.best, self.best_value, self.start_score = name, float(better(value)), value
        self.known[name] = start, self.best_value
        self.history.append(Call(name, value, 1.0, value))
        self.best_code = code
        self.codes.append(code)
        self.values.append(self.best_value)
        self.places[name] = code

    def over(self) -> bool:
        return len(self.history) >= self.budget or self.idle >= MOST_IDLE

    def try_codes(self, codes: Floats, most: int | None = None) -> Floats:
        """Values of the molecules at these codes, −inf for what will not do.

        New molecules beyond the budget, or beyond the first `most`, are not evaluated and will not do.
        """
        found = self.vae.decode(codes)
        alike = similarities(self.start, found)
        values, calls = np.full(len(codes), -np.inf), len(self.history)
        end = self.budget if most is None else min(self.budget, calls + most)
        vain = dict.fromkeys(self.vain, 0)
        for index, (code, mol, near) in enumerate(zip(codes, found, alike, strict=True)):
            if mol is not None and near is not None and near >= self.similarity:
                name = canonical(mol)
                if name in self.known:
                    vain["known"] += 1
                elif len(self.history) < end:
                    self._call(name, mol, near, code)
                else:
                    continue
                values[index] = self.known[name][1]
            else:
                vain["no molecule" if mol is None else "not similar"] += 1
            self.codes.append(code)
            self.values.append(values[index])
        if len(self.history) > calls:
            self.idle, self.vain = 0, vain
        else:
            self.idle += 1
            self.vain = {reason: n + vain[reason] for reason, n in self.vain.items()}
        return values

    def elsewhere(self, rng: np.random.Generator) -> Floats:
        """Code of one of the molecules so far, each as likely as the others: where to start again."""
        return list(self.places.values())[rng.integers(len(self.places))]

    def reach(self, rng: np.random.Generator, n: int) -> Floats:
        """Factors (n, 1) for the lengths of steps: 1, but smaller and larger ones the longer nothing new was found."""
        return np.exp(math.log(1 + self.idle) * rng.uniform(-1.0, 1.0, (n, 1)))

    def _call(self, name: str, mol: Chem.Mol, near: float, code: Floats) -> None:
        score = float(self.evaluate(mol))
        value = float(self.better(score)) if math.isfinite(score) else -math.inf
        self.known[name] = mol, value
        self.places[name] = code
        if value > self.best_value:
            self.best, self.best_value, self.best_code = name, value, code
        best = next((call.score for call in self.history if call.smiles == self.best), score)
        self.history.append(Call(name, score, near, best))
        if self.bar is not None:
            self.bar.update()
            self.bar.set_postfix_str(f"best {best:.4g}")

    def result(self) -> Optimization:
        begin = self.known[self.history[0].smiles][1]
        good = sorted(
            (call for call in self.history[1:] if self.known[call.smiles][1] > begin),
            key=lambda call: (-self.known[call.smiles][1], call.smiles),
        )
        shown = [self.history[0], *good]
        found = MoleculeList(
            [self.known[call.smiles][0] for call in shown],
            {"score": [call.score for call in shown], "similarity": [call.similarity for call in shown]},
            highlight=[0],
            title="Optimisation",
            note=f"{len(self.history)} molecules evaluated, {len(good)} better than the start." + self._why(),
        )
        best = next(call for call in self.history if call.smiles == self.best)
        return Optimization(self.known[self.best][0], best.score, self.start_score, found, self.history)

    def _why(self) -> str:
        if self.idle < MOST_IDLE:
            return ""
        n = sum(self.vain.values())
        shares = {reason: f"{count / n:.0%}" for reason, count in self.vain.items()}
        return (
            f" Stopped early: {n} points in a row gave no new molecule; {shares['no molecule']} of them were none, "
            f"{shares['not similar']} less similar to the start than {self.similarity:g}, {shares['known']} known."
        )


def _sphere(rng: np.random.Generator, n: int, spread: Floats) -> Floats:
    """Steps as long as those of the posterior, in directions that it allows."""
    return np.asarray(rng.normal(size=(n, spread.shape[-1])) * spread)


def _climber(vae: Any, score: object, better: Callable[[Any], Any]) -> Callable[[Floats], Floats]:
    """Gradient of the predicted score, as a direction of unit length, for codes (n, n_latent)."""
    names = list(getattr(vae, "properties", ()))
    if not isinstance(score, str) or score not in names:
        raise ValueError(
            f"method 'gradient' needs a score that the model predicts, {', '.join(names) or 'which is none'}; got "
            f"{score if isinstance(score, str) else 'a function'}; choose method 'bayesian' or 'cma'"
        )
    column = names.index(score)

    def climb(codes: Floats) -> Floats:
        with torch.enable_grad():
            z = torch.tensor(codes, dtype=torch.float32, requires_grad=True)
            predicted = vae.predictor(z)[:, column] * vae.property_std[column] + vae.property_mean[column]
            (gradient,) = torch.autograd.grad(better(predicted).sum(), z)
        steps = gradient.double().numpy()
        lengths = np.linalg.norm(steps, axis=1, keepdims=True)
        return np.divide(steps, lengths, out=np.zeros_like(steps), where=lengths > 0)

    return climb


def _gradient(search: _Search, climb: Callable[[Floats], Floats], spread: Floats, rng: np.random.Generator) -> None:
    """Ascent from the start and from the best so far, with noise as wide as the posterior, restarted when it ends."""
    length = float(np.linalg.norm(spread))
    n, steps = 16, 12
    while not search.over():
        for origin in (search.codes[0], search.best_code, search.elsewhere(rng)):
            reach = search.reach(rng, n)
            z = origin + 0.5 * reach * _sphere(rng, n, spread)
            z[0] = origin
            stride = reach * length * rng.uniform(0.1, 0.6, size=(n, 1))
            # some directions only, where all together would lead out of what the decoder knows
            used = rng.random(z.shape) < rng.uniform(0.2, 1.0, size=(n, 1))
            used[0] = True
            for _ in range(steps):
                step = climb(z) * used
                z = z + stride * step / np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1e-9)
                search.try_codes(z)
                if search.over():
                    return


def _bayesian(search: _Search, spread: Floats, rng: np.random.Generator) -> None:
    """Gaussian process on the codes, expected improvement among points of a trust region that grows and shrinks."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    n_first, n_each = max(8, min(20, search.budget // 10)), 8
    search.try_codes(search.codes[0] + _sphere(rng, n_first, spread))
    scale, failures = 1.0, 0
    length = float(np.linalg.norm(spread))
    kernel = ConstantKernel(1.0, (1e-2, 1e2)) * Matern(length, (0.1 * length, 20 * length), nu=2.5)
    kernel = kernel + WhiteKernel(1e-2, (1e-4, 1.0))
    turn = -1
    while not search.over():
        codes, values = np.array(search.codes), np.array(search.values)
        finite, unfit = np.flatnonzero(np.isfinite(values)), np.flatnonzero(~np.isfinite(values))
        if search.idle:
            # the last points were in vain: from anywhere, whatever is expected
            origins = np.array([search.elsewhere(rng) for _ in range(SCREENED * n_each)])
            tried = _around(origins, scale * search.reach(rng, len(origins)) * spread, rng)
        else:
            turn += 1
            ranked = finite[np.argsort(-values[finite])]
            # the best and the latest tell most of where to go
            fit = np.unique(np.concatenate([ranked[: MOST_MODELLED // 3], finite[-MOST_MODELLED // 3 :]]))
            mean, std = values[fit].mean(), values[fit].std() or 1.0
            # what will not do counts as worse than all that does, so that the search keeps away from it
            chosen = np.concatenate([fit, unfit[-MOST_MODELLED // 3 :]])
            targets = np.where(np.isfinite(values), values, values[finite].min() - std)[chosen]
            optimizer = "fmin_l_bfgs_b" if turn % 5 == 0 else None
            process = GaussianProcessRegressor(kernel, optimizer=optimizer, random_state=0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                process.fit(codes[chosen], (targets - mean) / std)
            kernel = process.kernel_
            # from the best and a few of the next best
            candidates = _around(codes[rng.choice(ranked[:5], size=CANDIDATES)], scale * spread, rng)
            expected, deviation = process.predict(candidates, return_std=True)
            gain = _expected_improvement(expected, deviation, (search.best_value - mean) / std)
            tried = candidates[np.argsort(-gain, kind="stable")[: SCREENED * n_each]]
        before = search.best_value
        found = search.try_codes(tried, n_each)
        failures = 0 if search.best_value > before else failures + 1
        if search.best_value > before:
            scale *= 1.4
        elif search.idle:
            # too near where most are known, too far where most will not do
            scale *= 1.2 if np.isfinite(found).mean() > 0.5 else 1 / 1.2
        elif failures >= 4:
            scale, failures = (scale / 1.5 if scale > 0.3 else 2.0), 0


def _around(origins: Floats, spread: Floats, rng: np.random.Generator) -> Floats:
    """A point around each, up to twice as far as `spread`; most coordinates stay, so that not all have one distance."""
    moved = rng.random((len(origins), 1)) * (rng.random(origins.shape) < rng.uniform(0.2, 1.0, (len(origins), 1)))
    return np.asarray(origins + 2 * moved * _sphere(rng, len(origins), spread))


def _expected_improvement(mean: Floats, std: Floats, best: float) -> Floats:
    from scipy.special import ndtr

    std = np.maximum(std, 1e-9)
    u = (mean - best) / std
    return np.asarray(std * (u * ndtr(u) + np.exp(-0.5 * u * u) / math.sqrt(2 * math.pi)))


def _cma(search: _Search, spread: Floats, rng: np.random.Generator) -> None:
    """Separable CMA-ES; what is no molecule or not similar enough ranks last."""
    n = len(spread)
    size = 4 + int(3 * math.log(n))
    kept = size // 2
    weights = math.log(kept + 0.5) - np.log(np.arange(1, kept + 1))
    weights /= weights.sum()
    effective = 1 / float(weights @ weights)
    c_sigma = (effective + 2) / (n + effective + 5)
    damping = 1 + 2 * max(0.0, math.sqrt((effective - 1) / (n + 1)) - 1) + c_sigma
    c_path = (4 + effective / n) / (n + 4 + 2 * effective / n)
    c_one = 2 / ((n + 1.3) ** 2 + effective)
    c_kept = min(1 - c_one, 2 * (effective - 2 + 1 / effective) / ((n + 2) ** 2 + effective))
    # a diagonal has n times fewer numbers to learn
    c_one, c_kept = min(1.0, c_one * (n + 2) / 3), min(1.0, c_kept * (n + 2) / 3)
    if c_one + c_kept > 1:
        c_one, c_kept = c_one / (c_one + c_kept), c_kept / (c_one + c_kept)
    expected_length = math.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n * n))
    mean, sigma, variance = search.codes[0].copy(), 1.0, spread**2
    path_sigma, path = np.zeros(n), np.zeros(n)
    turn = 0
    while not search.over():
        turn += 1
        steps = rng.normal(size=(size, n)) * np.sqrt(variance)
        values = search.try_codes(mean + sigma * steps)
        if search.idle and search.idle % 3 == 0:
            # nothing new: from anywhere, with other steps
            mean, sigma, variance = search.elsewhere(rng), float(search.reach(rng, 1)[0, 0]), spread**2
            path_sigma, path = np.zeros(n), np.zeros(n)
            continue
        if not np.isfinite(values).any():
            # too far out: back to the best, with smaller steps
            mean, sigma = search.best_code.copy(), 0.5 * sigma if sigma > 0.05 else 1.0
            path_sigma, path = np.zeros(n), np.zeros(n)
            continue
        order = np.argsort(-values, kind="stable")[:kept]
        step = weights @ steps[order]
        mean = mean + sigma * step
        path_sigma = (1 - c_sigma) * path_sigma + math.sqrt(c_sigma * (2 - c_sigma) * effective) * step / np.sqrt(
            variance
        )
        norm = float(np.linalg.norm(path_sigma))
        going = norm / math.sqrt(1 - (1 - c_sigma) ** (2 * turn)) < (1.4 + 2 / (n + 1)) * expected_length
        path = (1 - c_path) * path + going * math.sqrt(c_path * (2 - c_path) * effective) * step
        variance = (1 - c_one - c_kept) * variance + c_one * path**2 + c_kept * weights @ steps[order] ** 2
        sigma = float(np.clip(sigma * math.exp(c_sigma / damping * (norm / expected_length - 1)), 0.05, 5.0))
