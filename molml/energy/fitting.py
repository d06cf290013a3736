"""The recipe: from structures to a potential, the same for metals, semiconductors, liquids and molecules."""

from __future__ import annotations

import copy
import os
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from molml.energy.components import ComponentKernel, Components, principal_components, smoothness, standardised
from molml.energy.data import StructureDataset
from molml.energy.features import SymmetryFunctions
from molml.energy.guard import fit_guard
from molml.energy.kernels import FeatureKernel
from molml.energy.linear import (
    ERROR_LIMIT,
    LABELS,
    LeastSquares,
    NormalEquations,
    check_columns,
    folds,
    limit_force_errors,
    linear_forces,
    normal_equations,
    reference_energies,
    solve,
    weighted_gram,
)
from molml.energy.loss import EnergyForceLoss, FeaturisedDataset
from molml.energy.metrics import evaluate
from molml.energy.model import (
    BehlerParrinello,
    Committee,
    FeatureStatistics,
    LinearPotential,
    Potential,
    QuadraticForm,
    feature_statistics,
)
from molml.energy.prior import distorted, prior
from molml.energy.quadratic import fit_quadratic
from molml.energy.selection import automatic_functions
from molml.io import load_container, save_container
from molml.nn import MLP
from molml.training import Trainer, cosine, processes
from molml.training.cluster import calls

# isolated molecules have few neighbours and need fine angular detail: a shorter cutoff and many functions
CUTOFF = 5.5  # Å
MOLECULE_CUTOFF = 5.0  # Å
N_FUNCTIONS = 300
MOLECULE_N_FUNCTIONS = 1000
_LABELS_PER_FUNCTION = 8
_LEAST_FUNCTIONS = 20
_MOST_FUNCTIONS = 3000  # of all elements together: the normal matrix is of this size
_MATRICES = 4e9  # bytes of the normal matrices of all folds
HIDDEN = (64, 64)
LEARNING_RATE = 1e-3
VALID_FRACTION = 0.1
START = "start.molml"
_ATOM_EPOCHS = 2e5  # atoms times epochs; with more, networks fit their training forces ever better and others worse
# of the weights: a few dozen structures of validation cannot tell the good among weights that jump from step to step,
# nor among epochs: one odd structure can make their squared errors least at the first, with energies far from learnt
_AVERAGE_EPOCHS = 4.0
# errors squared on the validation structures, to those of the linear start: a smaller rise may be that of one structure
_FAILED = 1.5
# beside a quadratic part networks add little, where they add anything: without them calls are faster
_USELESS = 1.0
# energies enter gently and count in full at the end: forces say more of the form, energies of the level
_ENERGY_FIRST = 1.0 / 15.0
_TRUSTED_RATIO = 5.0
# least change of a network's linear part: what energies count against forces, and the ridge
_ENERGY_WEIGHT, _RIDGE = 30.0, 1e-10
_CORRECTED = 1.1
# what the networks are trained on: leading components, divided by their variances to this power. Equal variances (1/2)
# make the finest differences as loud as the coarsest, and errors off the training data up to 40 % larger (ethanol)
_N_COMPONENTS, _WHITENING = 300, 0.2
# a smooth start stays smooth: of the weights, and of the output against what least squares leaves over
_START_WEIGHTS, _START_SCALE, _START_OUTPUT = 0.5, 0.25, 0.1
_FEW_ATOMS = 1000  # a batch smaller than this is trained faster by one thread than by several


class _Start(NamedTuple):
    """Everything before the training: what both kinds of potential are made from."""

    functions: SymmetryFunctions
    statistics: FeatureStatistics
    solutions: np.ndarray  # (n_members, n_columns); coefficients of the functions, then energies of the elements
    rmse: dict[str, float]  # cross-validated: energy (eV per atom), forces (eV/Å), stress (eV/Å³)
    components: list[Components]  # of every element; none where the potential is linear
    quadratic: list[list[QuadraticForm]]  # of every member and element; none without such a part


class _Options(NamedTuple):
    """What the user chose, as every stage needs it."""

    members: int
    epochs: int | None
    n_functions: int
    quadratic: bool
    hidden: tuple[int, ...]
    activation: str
    memory: float
    derivatives: Literal["auto", "keep", "compute"]
    seed: int
    config: dict[str, Any]
    folder: Path | None
    resume: bool
    progress: bool | None
    executor: Executor | None


def fit(
    train: StructureDataset,
    valid: StructureDataset | None = None,
    *,
    model: Literal["network", "linear"] = "network",
    members: int = 1,
    minutes: float | None = None,
    epochs: int | None = None,
    functions: SymmetryFunctions | None = None,
    n_functions: int | None = None,
    hidden: tuple[int, ...] = HIDDEN,
    activation: str = "silu",
    quadratic: bool = True,
    memory: float = 4.0,
    derivatives: Literal["auto", "keep", "compute"] = "auto",
    guard: bool = True,
    seed: int = 0,
    directory: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool | None = None,
    executor: Executor | None = None,
) -> Potential:
    """Fit a potential.

    Symmetry functions are chosen on the training data, a linear potential is solved for by cross-validated least
    squares, and, for ``model="network"``, a quadratic form of the functions' principal components with it
    (:mod:`molml.energy.quadratic`), and one network per element learns what that leaves over. Where single force
    components of the training structures are left with errors beyond eight times their root mean square, the linear
    part is changed as little as brings them back (:func:`molml.energy.linear.limit_force_errors`). Of structures
    unlike the data, forces are assumed to be small (:mod:`molml.energy.prior`), lest simulations fall into holes there.

    Parameters
    ----------
    train : StructureDataset
        Structures with energies, forces or both. Its cutoff is used; where it has none, 5.5 Å, or 5 Å if no structure
        is periodic.
    valid : StructureDataset, optional
        Tells whether the networks have learnt anything of use, without which the potential stays linear, and scales the
        deviations of committees; without it a tenth of ``train`` is kept aside.
    model : {"network", "linear"}
    members : int
        More than one gives a committee, each member without a different part of the training data. Their standard
        deviations are scaled to the errors of the validation structures, where there are such.
    minutes : float, optional
        Most wall-clock time for everything. Where it ends the training, runs differ in the last digits.
    epochs : int, optional
        Passes over the data per network; by default so many that 200,000 atoms are seen (30 to 300 passes).
    functions : SymmetryFunctions, optional
        Use these instead of choosing.
    n_functions : int, optional
        Most functions per element when they are chosen; by default one for eight labels (energies and force components)
        up to 300, or up to 1,000 if no structure is periodic, and up to 3,000 for all elements together.
    hidden : tuple of int
        Widths of the networks' hidden layers.
    activation : str
        As in :class:`molml.energy.BehlerParrinello`. With "softplus", and functions that n2p2 has, the potential can be
        written for n2p2 (:func:`molml.energy.n2p2.write_n2p2`), which has no "silu"; with ``quadratic=False``.
    quadratic : bool
        Whether a network potential has a quadratic part, if cross-validation finds that it lowers errors.
    memory : float, GB
        How much is kept of what training reads of the structures in every epoch: first moments and components of the
        functions, then, as far as there is room, derivatives. The rest is computed anew every time. The least squares
        before it take up to 9 GB where functions and labels are many.
    derivatives : {"auto", "keep", "compute"}
        Whether derivatives of the components by the positions, 24 bytes for every component of every neighbour, are
        kept or their products computed anew, with the same result to rounding. "auto" keeps them where that is faster
        in a run of usual length: for functions that visit every pair of neighbours (G4, G5 with a fractional zeta), and
        for molecules, where many functions see few neighbours.
    guard : bool
        Add a repulsion below the shortest distances of the data, where it is exactly zero
        (:func:`molml.energy.guard.fit_guard`).
    seed : int
    directory : path-like, optional
        For checkpoints and ``metrics.jsonl``.
    resume : bool
        Go on with the run in ``directory``.
    progress : bool, optional
        Show progress bars; by default if stderr is a terminal.
    executor : concurrent.futures.Executor, optional
        Members of a committee are computed by it, each by itself, with the same result: by processes of this machine
        (``ProcessPoolExecutor``), a Dask cluster (``distributed.Client(address).get_executor()``) or a queue with this
        interface. What is written to ``directory`` is written where they run.

    Returns
    -------
    BehlerParrinello, LinearPotential or, for several members, Committee

    Raises
    ------
    ValueError
        For settings out of range, more than 12,000 functions, a validation set of other elements, or a run in
        ``directory`` made with other settings or data.
    molml.training.TrainingInterrupted
        After Ctrl-C; the run can be resumed.
    """
    started = time.monotonic()
    _check(model, members, minutes, epochs, n_functions)
    if not memory >= 0:
        raise ValueError(f"memory must be zero or more GB, got {memory:g}")
    if derivatives not in ("auto", "keep", "compute"):
        raise ValueError(f"derivatives must be 'auto', 'keep' or 'compute', got {derivatives!r}")
    MLP(1, hidden, 1, activation=activation)  # what it refuses is refused before the long work
    if members > 1 and len(train) < 10:
        raise ValueError(f"a committee needs at least 10 training structures, got {len(train)}; use members=1")
    if functions is not None and sorted(functions.elements) != sorted(set(functions.elements) | set(train.elements)):
        raise ValueError(f"functions must cover the elements {train.elements} of the data, got {functions.elements}")
    periodic = any(atoms.pbc.any() for atoms in train.atoms)
    cutoff = functions.cutoff if functions is not None else train.cutoff or (CUTOFF if periodic else MOLECULE_CUTOFF)
    train = train.with_cutoff(cutoff)
    if n_functions is None:
        n_functions = _affordable(train, N_FUNCTIONS if periodic else MOLECULE_N_FUNCTIONS)
    if functions is not None:
        check_columns(sum(functions.n_functions(symbol) for symbol in functions.functions))
    else:
        check_columns(n_functions * len(train.elements))
    if valid is None and len(train) >= 10 and model == "network":
        train, valid = train.split(VALID_FRACTION, seed)
    if valid is not None:
        valid = valid.with_cutoff(cutoff)
        unknown = set(valid.elements) - set(train.elements)
        if unknown:
            raise ValueError(f"validation structures hold elements (atomic numbers {sorted(unknown)}) that no training "
                             "structure has; leave them out or add training structures")  # fmt: skip
    config = {
        "model": model,
        "members": members,
        "functions": None if functions is None else functions.config,
        "n_functions": n_functions,
        "hidden": list(hidden),
        "activation": activation,
        "quadratic": quadratic and model == "network",
        "cutoff": cutoff,
        "seed": seed,
    }
    folder = None if directory is None else Path(directory)
    options = _Options(
        members,
        epochs,
        n_functions,
        quadratic and model == "network",
        tuple(hidden),
        activation,
        memory,
        derivatives,
        seed,
        config,
        folder,
        resume,
        progress,
        executor,
    )
    start = _prepare(train, functions, options)
    metadata = {
        "data_hash": train.hash,
        "n_structures": len(train),
        "recipe": config,
        "cross_validation": start.rmse,
    }
    linear = [_linear_potential(start, i, metadata) for i in range(members)]
    fitted: list[LinearPotential] | list[BehlerParrinello] = linear
    if model == "network":
        fitted = _networks(linear, start, train, valid, minutes, started, options)
    potential: Potential = fitted[0] if members == 1 else Committee(fitted)
    if guard:
        found = fit_guard(potential, *(data for data in (train, valid) if data is not None))
        for member in fitted:
            member.guard = found
    if isinstance(potential, Committee) and valid is not None:
        potential.std_scale = _std_scale(potential, valid)
    return potential


def _std_scale(committee: Committee, valid: StructureDataset) -> tuple[float, float]:
    """Factors that make the mean variances those of the errors: members that share most of their data agree too well.

    1 where there are no labels, or no disagreement.
    """
    seen = evaluate(committee, valid, n_worst=0, progress=False)
    scale = []
    for error, deviation in (
        (seen.energy - seen.energy_reference, seen.energy_std),
        (seen.forces - seen.forces_reference, seen.forces_std),
    ):
        spread = 0.0 if deviation is None or not deviation.size else float(np.mean(deviation**2))
        squares = float(np.mean(error**2)) if error.size else 0.0
        scale.append(float(np.sqrt(squares / spread)) if spread > 0 and squares > 0 else 1.0)
    return scale[0], scale[1]


def _networks(
    linear: list[LinearPotential],
    start: _Start,
    train: StructureDataset,
    valid: StructureDataset | None,
    minutes: float | None,
    started: float,
    options: _Options,
) -> list[BehlerParrinello]:
    """One after the other, each with its share of what time is left, or all at a time."""

    def left(i: int) -> float | None:
        if minutes is None:
            return None
        rest, at_once = minutes - (time.monotonic() - started) / 60.0, options.executor is not None
        return max(rest if at_once else rest / (len(linear) - i), 0.02)

    alone = options._replace(executor=None)  # it cannot be sent
    work = ((base, start, train, valid, i, left(i), alone) for i, base in enumerate(linear))
    networks: dict[int, BehlerParrinello] = {i: result() for i, result in calls(options.executor, _train, work)}
    return [networks[i] for i in range(len(linear))]


def _check(model: str, members: int, minutes: float | None, epochs: int | None, n_functions: int | None) -> None:
    if model not in ("network", "linear"):
        raise ValueError(f"model must be 'network' or 'linear', got {model!r}")
    for name, value in (("members", members), ("epochs", epochs), ("n_functions", n_functions)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if minutes is not None and not minutes > 0:
        raise ValueError(f"minutes must be positive, got {minutes}")


def _affordable(train: StructureDataset, most: int) -> int:
    """Functions per element that the labels say something of."""
    n_labels = sum(int(train[i].has_energy.sum() + 3 * train[i].has_forces.sum()) for i in range(len(train)))
    n_elements = len(train.elements)
    most = min(most, _MOST_FUNCTIONS // n_elements)
    return int(np.clip(n_labels / (_LABELS_PER_FUNCTION * n_elements), _LEAST_FUNCTIONS, most))


def _prepare(train: StructureDataset, functions: SymmetryFunctions | None, options: _Options) -> _Start:
    """Functions, statistics and least squares; done by one process, kept in the folder."""
    team = processes()
    start = None
    if team.rank == 0:
        path = None if options.folder is None else options.folder / START
        if options.resume and path is not None and path.is_file():
            start = _read_start(path, options.config, train.hash)
        else:
            start = _make_start(train, functions, options)
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                _write_start(path, start, options.config, train.hash)
    return _shared(start)


def _make_start(train: StructureDataset, functions: SymmetryFunctions | None, options: _Options) -> _Start:
    members, seed = options.members, options.seed
    show = _shown(options.progress)
    if functions is None:
        functions = automatic_functions(train, n_functions=options.n_functions, seed=seed, progress=show)
    kernel = FeatureKernel(functions)
    reference = reference_energies(train, functions.elements)
    width = sum(centre.n_functions for centre in kernel.tables.centres)
    equations = normal_equations(kernel, train, reference, n_folds=_folds(members, width), seed=seed, progress=show)
    best = solve(equations)
    assumed, by_prior = None, np.zeros((1, 1))
    if best.rmse[1]:
        beside = distorted(train, seed)
        forces = np.concatenate(list(linear_forces(kernel, beside.structures, best.coefficients).values()))
        assumed = prior(kernel, beside, forces, float(best.train_rmse[1]), progress=show)
        by_prior = assumed.gram
        best = solve(equations, energy_weights=(best.energy_weight,), ridges=(best.ridge,), prior=by_prior)
    statistics = _statistics(train, kernel)
    means = [own.numpy() for own in statistics.mean]
    components = []
    if options.config["model"] == "network":
        components = principal_components(kernel, train, means, standardised(statistics))
    more = None
    if options.quadratic:
        factors = smoothness(functions)
        more = fit_quadratic(
            kernel,
            train,
            principal_components(kernel, train, means, factors),
            reference,
            energy_weight=best.energy_weight,
            factors=factors,
            prior=assumed,
            members=members,
            seed=seed,
            progress=show,
        )
    if more is not None:
        # single large errors are looked for once the networks are trained
        solutions = list(more.solutions)
    elif members == 1:
        solutions = [_within_limit(kernel, train, equations, best, by_prior)]
    else:
        fold = folds(len(train), len(equations.gram), seed)
        work = (
            (functions, *_all_but(i % len(equations.gram), fold, train, equations), best, by_prior)
            for i in range(members)
        )
        found: dict[int, np.ndarray] = {i: result() for i, result in calls(options.executor, _member, work)}
        solutions = [found[i] for i in range(members)]
    for solution in solutions:
        solution[len(solution) - len(reference) :] += reference
    # a single odd structure, left out, can be predicted absurdly: the training error bounds what that may say
    judged = more or best
    rmse = np.minimum(judged.rmse, _TRUSTED_RATIO * np.maximum(judged.train_rmse, 1e-6))
    forms = more.forms if more is not None else []
    return _Start(functions, statistics, np.array(solutions), _per_atom(rmse, train), components, forms)


def _folds(members: int, width: int = 0) -> int:
    """How many parts the data are dealt into; every one holds a matrix of all functions squared for every label."""
    most = int(_MATRICES / (8 * len(LABELS) * max(width, 1) ** 2))
    return int(np.clip(members, min(5, max(most, 2)), 10))


def _all_but(
    left_out: int, fold: np.ndarray, train: StructureDataset, equations: NormalEquations
) -> tuple[StructureDataset, NormalEquations]:
    """The data of all folds but one."""
    others = [f for f in range(len(equations.gram)) if f != left_out]
    part = NormalEquations(
        equations.gram[others].sum(0, keepdims=True),
        equations.moment[others].sum(0, keepdims=True),
        equations.square[others].sum(0, keepdims=True),
        equations.n_rows[others].sum(0, keepdims=True),
        equations.n_elements,
    )
    return train.subset(np.flatnonzero(fold != left_out)), part


def _member(
    functions: SymmetryFunctions,
    train: StructureDataset,
    equations: NormalEquations,
    best: LeastSquares,
    by_prior: np.ndarray,
) -> np.ndarray:
    """Solution of a committee's member."""
    solution = solve(equations, energy_weights=(best.energy_weight,), ridges=(best.ridge,), prior=by_prior)
    return _within_limit(FeatureKernel(functions), train, equations, solution, by_prior)


def _within_limit(
    kernel: FeatureKernel,
    train: StructureDataset,
    equations: NormalEquations,
    best: LeastSquares,
    by_prior: np.ndarray,
) -> np.ndarray:
    """Coefficients that leave no single force error far beyond the others."""
    forces = linear_forces(kernel, train, best.coefficients)
    errors = {i: own - train[i].forces[train[i].has_forces].numpy().ravel() for i, own in forces.items()}
    gram = weighted_gram(equations, best.energy_weight) + by_prior
    return best.coefficients + limit_force_errors(kernel, train, gram, errors, ridge=best.ridge)


def _per_atom(row_rmse: np.ndarray, train: StructureDataset) -> dict[str, float]:
    """Errors of energies (eV per atom), forces and stress from those of the least-squares rows."""
    sizes = np.array([len(train[i].numbers) for i in range(len(train))], dtype=float)
    rmse = {"energy": float(row_rmse[0] * np.mean(sizes**-0.5)), "forces": float(row_rmse[1])}
    volumes = np.array([float(train[i].volume[0]) for i in range(len(train)) if bool(train[i].has_stress[0])])
    if len(volumes):
        with_stress = np.array([len(train[i].numbers) for i in range(len(train)) if bool(train[i].has_stress[0])])
        rmse["stress"] = float(row_rmse[2] * np.mean(with_stress**0.5 / volumes))
    return rmse


def _statistics(train: StructureDataset, kernel: FeatureKernel) -> FeatureStatistics:
    featurised = FeaturisedDataset(train, kernel, memory=0.0)
    return feature_statistics([featurised[i].features for i in range(len(featurised))])


def _linear_potential(start: _Start, member: int, metadata: dict[str, Any]) -> LinearPotential:
    n = [start.functions.n_functions(symbol) for symbol in start.functions.functions]
    bounds = np.cumsum([0, *n])
    solution = start.solutions[member]
    parts = [torch.from_numpy(solution[a:b].copy()) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
    return LinearPotential(start.functions, parts, solution[bounds[-1] :].tolist(), start.statistics, metadata).eval()


def _train(
    base: LinearPotential,
    start: _Start,
    train: StructureDataset,
    valid: StructureDataset | None,
    member: int,
    minutes: float | None,
    options: _Options,
) -> BehlerParrinello:
    """Networks on what the linear potential leaves over."""
    members, seed, folder, epochs = options.members, options.seed, options.folder, options.epochs
    if members > 1:
        # a different part is left out for each: together with the random start this spreads the committee
        train, _ = train.split(1.0 / _folds(members), seed + 1000 + member)
    potential = BehlerParrinello(
        start.functions,
        start.statistics,
        cast(Tensor, base.reference).tolist(),
        hidden=options.hidden,
        activation=options.activation,
        linear=[c.detach() for c in base.coefficients],
        quadratic=start.quadratic[member] if start.quadratic else None,
        energy_scale=_START_SCALE * max(start.rmse["forces"] or start.rmse["energy"], 1e-3),
        seed=seed + member,
        metadata=base.metadata,
    )
    _silence(potential.networks)
    projections = [own.scaled(_N_COMPONENTS, _WHITENING) for own in start.components]
    learner = _OnComponents(
        ComponentKernel(potential.kernel, projections, [own.mean for own in start.components]), potential, seed + member
    )
    loss, energy_weight = _loss(train, start.rmse)
    n_atoms, n_judged = _n_atoms(train), 0 if valid is None else _n_atoms(valid)
    # one limit for both sets
    share, kept = n_atoms / (n_atoms + n_judged), options.derivatives
    featurised = FeaturisedDataset(
        train, learner.kernel, base=potential, memory=share * options.memory, derivatives=kept
    )
    if epochs is None:
        epochs = int(np.clip(_ATOM_EPOCHS / n_atoms, 30, 300))
    trainer = Trainer(
        learner,
        loss,
        torch.optim.Adam(learner.parameters(), lr=LEARNING_RATE),
        batch_size=int(np.clip(round(100.0 * len(train) / n_atoms), 2, 8)),
        max_epochs=epochs,
        lr_schedule=cosine(),
        weight_schedule=(
            (lambda done: {"energy_mse": energy_weight * _ENERGY_FIRST ** (1.0 - done)})
            if loss.forces_weight and energy_weight
            else None
        ),
        average_epochs=_AVERAGE_EPOCHS,
        keep="last",
        minutes=minutes,
        seed=seed + member,
        directory=folder if folder is None or members == 1 else folder / f"member-{member + 1}",
        config=options.config,
        data_hash=train.hash,
        progress=options.progress,
        description="training" if members == 1 else f"member {member + 1} of {members}",
    )
    judge = featurised
    if valid is not None:
        rest = (1.0 - share) * options.memory
        judge = FeaturisedDataset(valid, learner.kernel, base=potential, memory=rest, derivatives=kept)
    threads = torch.get_num_threads()
    if trainer.batch_size * n_atoms < _FEW_ATOMS * len(train):
        torch.set_num_threads(1)
    try:
        before = _linear_objective(trainer, judge)
        trainer.fit(featurised, None if valid is None else judge, resume=options.resume)
        if trainer.evaluate(judge)["objective"] > (_USELESS if start.quadratic else _FAILED) * before:
            # the start is the better potential
            _silence(learner.networks)
    finally:
        torch.set_num_threads(threads)
    learner.copy_to(potential)
    _correct(potential, train, seed)
    return potential.eval()


def _correct(potential: BehlerParrinello, train: StructureDataset, seed: int) -> None:
    """Change the linear part where training has left single force errors far beyond the others."""
    errors = {}
    for i in range(len(train)):
        item = train[i]
        if float(item.weight[0]) and bool(item.has_forces.any()):
            error = cast(Tensor, potential.predict(item, stress=False).forces) - item.forces
            errors[i] = error[item.has_forces].numpy().ravel()
    if not errors:
        return
    every = np.concatenate(list(errors.values()))
    # what the correction aims at is below what it is called for
    if np.abs(every).max() <= max(_CORRECTED * ERROR_LIMIT * np.sqrt(np.mean(every**2)), 1e-3):
        return
    kernel, n_elements = potential.kernel, len(potential.elements)
    gram = weighted_gram(normal_equations(kernel, train, np.zeros(n_elements), n_folds=1), _ENERGY_WEIGHT)
    beside = distorted(train, seed)
    forces = np.concatenate([cast(Tensor, potential.predict(item, stress=False).forces) for item in beside.structures])
    gram += prior(kernel, beside, forces, float(np.mean(every**2)) ** 0.5).gram
    change = torch.from_numpy(limit_force_errors(kernel, train, gram, errors, ridge=_RIDGE))
    with torch.no_grad():
        start = 0
        for own in potential.linear:
            own += change[start : start + len(own)]
            start += len(own)
        cast(Tensor, potential.reference).add_(change[start:])


def _n_atoms(dataset: StructureDataset) -> int:
    return sum(len(dataset[i].numbers) for i in range(len(dataset)))


def _linear_objective(trainer: Trainer, judge: FeaturisedDataset) -> float:
    """Objective of the start alone."""
    learner = cast(_OnComponents, trainer.model)
    trained = copy.deepcopy(learner.state_dict())
    _silence(learner.networks)
    objective = trainer.evaluate(judge)["objective"]
    learner.load_state_dict(trained)
    return objective


class _OnComponents(nn.Module):
    """The networks of a potential while they are trained: on principal components, and without its frozen parts."""

    def __init__(self, kernel: ComponentKernel, potential: BehlerParrinello, seed: int) -> None:
        super().__init__()
        self.kernel, self.energy_scale = kernel, potential.energy_scale
        self.networks = nn.ModuleList()
        for e, projection in enumerate(kernel.projections):
            network = MLP(
                projection.shape[1],
                potential.hidden,
                1,
                activation=potential.activation,
                seed=seed + 7919 * e,
                dtype=torch.float64,
            )
            # training starts close to the frozen parts
            with torch.no_grad():
                for layer in network.modules():
                    if isinstance(layer, nn.Linear):
                        layer.weight.mul_(_START_WEIGHTS)
                last = _last_layer(network)
                last.weight.mul_(_START_OUTPUT)
                last.bias.mul_(_START_OUTPUT)
            self.networks.append(network)

    def atomic_energies(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Energy of every atom beside the frozen parts, eV."""
        return [self.energy_scale * network(x).squeeze(-1) for network, x in zip(self.networks, features, strict=True)]

    def copy_to(self, potential: BehlerParrinello) -> None:
        """Make these the networks of the potential, the first layers in terms of its standardised functions."""
        with torch.no_grad():
            for e, (own, other) in enumerate(zip(self.networks, potential.networks, strict=True)):
                weights = own.state_dict()
                first = next(name for name in weights if name.endswith("weight"))
                scale = potential.get_buffer(f"scale_{e}")
                unscaled = torch.where(scale > 0.0, 1.0 / torch.where(scale > 0.0, scale, 1.0), 0.0)
                weights[first] = weights[first] @ torch.from_numpy(self.kernel.projections[e]).T * unscaled
                other.load_state_dict(weights)


def _last_layer(network: nn.Module) -> nn.Linear:
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1]


def _silence(networks: Iterable[nn.Module]) -> None:
    """Make the networks' output zero, which leaves the frozen parts."""
    with torch.no_grad():
        for network in networks:
            last = _last_layer(network)
            last.weight.zero_()
            last.bias.zero_()


def _loss(train: StructureDataset, rmse: dict[str, float]) -> tuple[EnergyForceLoss, float]:
    """Weights that make energies, forces and stress matter alike where least squares has left them."""
    items = [train[i] for i in range(len(train))]
    if not any(bool(item.has_forces.any()) for item in items):
        return EnergyForceLoss(energy_weight=1.0, forces_weight=0.0), 1.0
    # errors at the level of rounding (one structure, data that the functions fit exactly) say nothing of the weights
    forces = max(rmse["forces"], 1e-3)
    energy_weight = (forces / max(rmse["energy"], 1e-5)) ** 2 if any(i.has_energy[0] for i in items) else 0.0
    stress_weight = 0.1 * (forces / max(rmse["stress"], 1e-5)) ** 2 if rmse.get("stress") else 0.0
    return EnergyForceLoss(energy_weight=energy_weight, stress_weight=stress_weight), energy_weight


def _write_start(path: Path, start: _Start, config: dict[str, Any], data_hash: str) -> None:
    tensors: dict[str, Tensor] = {"solutions": torch.from_numpy(start.solutions)}
    for name, parts in zip(FeatureStatistics._fields, start.statistics, strict=True):
        tensors |= {f"{name}_{e}": part for e, part in enumerate(parts)}
    for e, own in enumerate(start.components):
        tensors |= {f"component_{name}_{e}": torch.from_numpy(array) for name, array in own._asdict().items()}
    for i, forms in enumerate(start.quadratic):
        for e, form in enumerate(forms):
            for name, array in zip(QuadraticForm._fields, form, strict=True):
                tensors[f"{name}_{i}_{e}"] = torch.from_numpy(array)
    settings = {"features": start.functions.config, "recipe": config, "data_hash": data_hash, "rmse": start.rmse}
    save_container(path, "start", settings, tensors, {})


def _read_start(path: Path, config: dict[str, Any], data_hash: str) -> _Start:
    stored = load_container(path)
    changed = [key for key, value in config.items() if stored.config["recipe"].get(key) != value]
    if changed:
        pairs = ", ".join(f"{key} was {stored.config['recipe'].get(key)!r} and is {config[key]!r}" for key in changed)
        raise ValueError(f"the run in {path.parent} was made with other settings: {pairs}; use those, or a new folder")
    if stored.config["data_hash"] != data_hash:
        raise ValueError(f"the run in {path.parent} was made with other training data; use those, or a new folder")
    functions = SymmetryFunctions.from_config(stored.config["features"])
    n = len(functions.elements)
    statistics = FeatureStatistics(
        *([stored.tensors[f"{name}_{e}"] for e in range(n)] for name in FeatureStatistics._fields)
    )
    solutions = stored.tensors["solutions"].numpy()
    forms = [
        [
            QuadraticForm(*(stored.tensors[f"{name}_{i}_{e}"].numpy() for name in QuadraticForm._fields))
            for e in range(n)
        ]
        for i in range(len(solutions))
        if f"weights_{i}_0" in stored.tensors
    ]
    components = [
        Components(*(stored.tensors[f"component_{name}_{e}"].numpy() for name in Components._fields))
        for e in range(n)
        if f"component_mean_{e}" in stored.tensors
    ]
    return _Start(functions, statistics, solutions, stored.config["rmse"], components, forms)


def _shared(start: _Start | None) -> _Start:
    """Rank 0's result on every process."""
    team = processes()
    if team.size == 1 and start is not None:
        return start
    plain = None
    if start is not None:
        parts = [list(part) for part in start.statistics]
        forms = [[tuple(form) for form in member] for member in start.quadratic]
        own = [tuple(part) for part in start.components]
        plain = (start.functions.config, parts, start.solutions, start.rmse, own, forms)
    config, statistics, solutions, rmse, components, forms = cast(tuple, team.broadcast(plain))
    functions = SymmetryFunctions.from_config(config)
    quadratic = [[QuadraticForm(*form) for form in own] for own in forms]
    components = [Components(*own) for own in components]
    return _Start(functions, FeatureStatistics(*statistics), solutions, rmse, components, quadratic)


def _shown(progress: bool | None) -> bool:
    return sys.stderr.isatty() if progress is None else progress
