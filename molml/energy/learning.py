"""Active learning: simulate until a committee is unsure, ask an oracle, fit again (query by committee)."""

from __future__ import annotations

import bisect
import importlib
import io
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import ase.io
import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator as AseCalculator
from ase.calculators.calculator import CalculatorError
from ase.calculators.singlepoint import SinglePointCalculator
from numpy.typing import NDArray
from tqdm import tqdm

from molml.energy.data import StructureDataset, check_structure
from molml.energy.dynamics import run_dynamics
from molml.energy.fitting import fit
from molml.energy.metrics import evaluate
from molml.energy.model import Committee
from molml.energy.plots import plot_active_learning
from molml.energy.report import read_history
from molml.io import load_container, write_atomic
from molml.training.cluster import calls

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Learning", "force_uncertainty", "learn", "oracle_of"]

LABELS, MODEL, ROUNDS, SETTINGS = "labels.xyz", "model.molml", "metrics.jsonl", "learning.json"
SUMMARY, FIGURE = "metrics.json", "active_learning.png"
FILES = (LABELS, MODEL, ROUNDS, SETTINGS, SUMMARY, FIGURE)
"""What active learning writes into its folder."""

SURE = "no simulation came to a structure that the committee was unsure of"

LEAST_START = 10
"""Structures that a committee needs to begin with."""

DISPLACEMENT, MOST_DISPLACEMENT = 0.03, 0.3
"""Å, standard deviations of the displacements that make the first structures where there are too few: of the first one,
from which that of the others follows, and the most."""

TOLERANCE, DANGER = 0.05, 0.5
"""Uncertainties at which a structure is worth a label, and at which a simulation ends, in units of the root mean square
force on an atom of the labelled structures."""

INTERVAL = 5
"""Steps between two looks at the uncertainty."""

DECIMALS = 8
"""Of positions in an extended XYZ file: what is labelled must be what is read back."""


class Learning(NamedTuple):
    """Outcome of active learning.

    Attributes
    ----------
    potential : Committee
        Fitted to all labels.
    rounds : list of dict
        One per round, as in ``metrics.jsonl``; see `learn`.
    reason : str
        Why it ended.
    """

    potential: Committee
    rounds: list[dict[str, Any]]
    reason: str


def force_uncertainty(forces_std: NDArray[np.float64]) -> float:
    """Uncertainty of a structure: that of its least certain atom.

    Parameters
    ----------
    forces_std : ndarray, shape (n_atoms, 3), eV/Å
        Standard deviations among the members of a committee.

    Returns
    -------
    float, eV/Å
    """
    return float(np.sqrt((forces_std**2).sum(axis=1).max()))


def oracle_of(name: str) -> AseCalculator:
    """The ASE calculator of a name.

    Parameters
    ----------
    name : str
        "emt" (effective medium theory: Al, Cu, Ag, Au, Ni, Pd, Pt), "lj" (Lennard-Jones argon), "tblite:METHOD" (such
        as "tblite:GFN2-xTB"), or "MODULE:FACTORY", a function without arguments that returns a calculator, in a module
        that can be imported or lies in the working folder.

    Raises
    ------
    ValueError
        For another name, or where a factory returns no calculator.
    ImportError
        If the package or module is missing.
    """
    module, _, rest = name.partition(":")
    if name == "emt":
        from ase.calculators.emt import EMT

        return EMT()
    if name == "lj":
        from ase.calculators.lj import LennardJones

        # argon (Rahman, Phys. Rev. 136, A405 (1964)), smooth at the cutoff
        return LennardJones(sigma=3.4, epsilon=0.01034, rc=8.5, ro=7.0, smooth=True)
    if module == "tblite":
        try:
            from tblite.ase import TBLite
        except ImportError as error:
            raise ImportError(f"oracle {name} needs the package tblite: pip install tblite") from error
        return TBLite(method=rest or "GFN2-xTB", verbosity=0)
    if not rest:
        raise ValueError(f"oracle must be emt, lj, tblite:METHOD or MODULE:FACTORY, got {name!r}")
    sys.path.insert(0, os.getcwd())
    try:
        factory = getattr(importlib.import_module(module), rest, None)
    finally:
        sys.path.pop(0)
    calculator = factory() if callable(factory) else None
    if not hasattr(calculator, "get_forces"):
        raise ValueError(f"oracle {name}: {rest} in {module} must be a function that returns an ASE calculator")
    return cast(AseCalculator, calculator)


def learn(
    start: Sequence[Atoms],
    oracle: AseCalculator | str,
    directory: str | os.PathLike[str],
    *,
    rounds: int = 10,
    labels: int = 10,
    minutes: float | None = None,
    temperature: Sequence[float] = (300.0,),
    timestep: float | None = None,
    steps: int = 2000,
    threshold: float | None = None,
    test: StructureDataset | None = None,
    model: Literal["linear", "network"] = "linear",
    members: int = 5,
    cutoff: float | None = None,
    n_functions: int | None = None,
    epochs: int | None = None,
    seed: int = 0,
    resume: bool = False,
    executor: Executor | None = None,
    report: Callable[[dict[str, Any]], None] | None = None,
) -> Learning:
    """Make a potential from as few labels as possible.

    In every round a committee is fitted to all labels so far, and simulations with it begin at labelled structures,
    with new velocities. Of each one the oracle labels the structure whose uncertainty (:func:`force_uncertainty`) is
    largest, if it is above the threshold; a simulation that becomes so unsure that its forces are worth nothing ends
    there. It is done after so many rounds, when the time is over, or when no simulation has passed the threshold.

    ``directory`` then holds ``labels.xyz`` (all labels, each written as soon as it is there), ``model.molml`` (the
    committee), ``metrics.jsonl``, ``metrics.json`` and ``active_learning.png``. Whenever it is interrupted, it can be
    resumed without losing a label, and comes to what it would have come to.

    Parameters
    ----------
    start : sequence of ase.Atoms
        Structures to begin with. Those whose calculator holds energy and forces are taken to be labelled; where there
        are fewer than ten, copies with random displacements of about the temperature are added.
    oracle : ASE calculator, or str
        Gives energies and forces, and stresses if it can; or its name (:func:`oracle_of`), by which other processes
        make it themselves.
    directory : path-like
    rounds : int
        Most rounds.
    labels : int
        Simulations, and so most labels, in a round.
    minutes : float, optional
        Most wall-clock time.
    temperature : sequence of float, K
        Of the simulations, which take them in turn.
    timestep : float, fs, optional
        By default 0.5 with hydrogen and 2 without.
    steps : int
        Most steps of a simulation.
    threshold : float, eV/Å, optional
        By default a twentieth of the root mean square force on an atom of the labelled structures. Simulations end at
        half of it, or at the threshold if that is more.
    test : StructureDataset, optional
        Errors on it are reported. It decides nothing.
    model, members, cutoff, n_functions, epochs
        Of the committee; see :func:`molml.energy.fit`. Symmetry functions are chosen anew when the labels have doubled.
    seed : int
    resume : bool
        Go on with what ``directory`` holds.
    executor : concurrent.futures.Executor, optional
        Simulations, labels and members of the committee are computed by it, each by itself: by processes of this
        machine (``ProcessPoolExecutor``), a Dask cluster (``distributed.Client(address).get_executor()``) or a queue
        with this interface. The outcome is the same. Threads would share an oracle that is not given by its name.
    report : callable, optional
        Called with every round's figures: `round`, `n_labels` (that its committee knows), `threshold` (eV/Å),
        `n_walkers` (simulations), `n_taken` and `n_failed` (structures that were labelled, or failed in the oracle),
        `time` (fs of simulation until they were found, mean), `new_energy_rmse` and `new_forces_rmse` (eV/atom and
        eV/Å, on these structures, before they were learnt), and `test_energy_rmse`, `test_forces_rmse`. Of the last
        committee, which is not asked to simulate, only the errors.

    Returns
    -------
    Learning

    Raises
    ------
    ValueError
        For settings out of range, structures that make no sense, an oracle that fails on the first structures or cannot
        be sent to other processes, or a run in ``directory`` that was made with other settings or that is there without
        ``resume``.

    References
    ----------
    Seung, Opper, Sompolinsky, COLT 1992; Schran, Brezina, Marsalek, J. Chem. Phys. 153, 104105 (2020).
    """
    started = time.monotonic()
    _check(rounds, labels, minutes, temperature, steps, threshold, members)
    if not start:
        raise ValueError("start must hold at least one structure, got none")
    for number, atoms in enumerate(start):
        check_structure(atoms, f"start:{number}")
    if timestep is None:
        timestep = 0.5 if any((atoms.numbers == 1).any() for atoms in start) else 2.0
    if executor is None:
        oracle = _made(oracle)
    else:
        _check_travels(executor, oracle)
    settings = {
        "oracle": _name(oracle),
        "start": StructureDataset([_bare(atoms) for atoms in start], energy_key=None, forces_key=None).hash,
        "labels": labels,
        "temperature": [float(kelvin) for kelvin in temperature],
        "timestep": float(timestep),
        "steps": steps,
        "threshold": threshold,
        "model": model,
        "members": members,
        "cutoff": cutoff,
        "n_functions": n_functions,
        "epochs": epochs,
        "seed": seed,
    }
    run = _Run(Path(directory), settings, resume)
    total = max(len(start), LEAST_START)
    # how far later copies are displaced follows from the first one
    for numbers in (range(min(len(start) + 1, total)), range(total)):
        missing = run.missing(0, numbers)
        arguments = [
            (start[k] if k < len(start) else _displaced(start, run.frames, k, settings), oracle) for k in missing
        ]
        for place, result in calls(executor, _labelled, arguments):
            run.add(result(), {"round": 0, "walker": missing[place]})
    deadline = math.inf if minutes is None else started + 60.0 * minutes
    current, reason = run.first_round(), None
    while True:
        potential = run.committee(current, executor)
        row: dict[str, Any] = {"round": current, "n_labels": len(run.of_rounds(range(current)))}
        if test is not None:
            row |= _errors("test", potential, test)
        if time.monotonic() > deadline:
            reason = f"{minutes:g} minutes are over"
        elif current > rounds:
            reason = f"{rounds} rounds are done"
        else:
            row |= _round(run, potential, oracle, current, deadline, executor)
        run.add_round(row)
        if report is not None:
            report(row)
        if row.get("n_walkers") == labels and not row["n_taken"]:
            reason = f"the oracle failed on what round {current} found" if row["n_failed"] else SURE
        if reason:
            break
        current += 1
    run.finish(reason)
    return Learning(potential, run.rows, reason)


def _check(
    rounds: int,
    labels: int,
    minutes: float | None,
    temperature: Sequence[float],
    steps: int,
    threshold: float | None,
    members: int,
) -> None:
    for name, value, least in (("rounds", rounds, 0), ("labels", labels, 1), ("steps", steps, 1)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if members < 2:
        raise ValueError(f"members must be at least 2, for they are to disagree, got {members}")
    for name, positive in (("minutes", minutes), ("threshold", threshold)):
        if positive is not None and not (positive > 0 and math.isfinite(positive)):
            raise ValueError(f"{name} must be positive, got {positive}")
    if not temperature or not all(kelvin > 0 and math.isfinite(kelvin) for kelvin in temperature):
        raise ValueError(f"temperature must be one or more positive numbers of K, got {list(temperature)}")


def _made(oracle: AseCalculator | str) -> AseCalculator:
    return oracle_of(oracle) if isinstance(oracle, str) else oracle


def _name(oracle: AseCalculator | str) -> str:
    return type(_made(oracle)).__name__


def _check_travels(executor: Executor, oracle: AseCalculator | str) -> None:
    try:
        executor.submit(_name, oracle).result()
    except Exception as error:  # what the object, the executor or the other process raises
        name = repr(oracle) if isinstance(oracle, str) else type(oracle).__name__
        raise ValueError(
            f"the oracle {name} cannot be had in other processes ({error}); give the name of one, or of a function "
            'there that makes it, "MODULE:FACTORY"'
        ) from error


def _round(
    run: _Run,
    potential: Committee,
    oracle: AseCalculator | str,
    number: int,
    deadline: float,
    executor: Executor | None,
) -> dict[str, Any]:
    """Simulate and label; the round's figures."""
    settings = run.settings
    starts = run.of_rounds(range(number))
    scale = _force_scale(starts)
    threshold = settings["threshold"] or TOLERANCE * scale
    limits = threshold, max(threshold, DANGER * scale)
    walkers = run.missing(number, range(settings["labels"]))
    done, failed = settings["labels"] - len(walkers), 0
    arguments, kelvins = [], []
    for walker in walkers:
        rng = np.random.default_rng([settings["seed"], number, walker])
        atoms = _bare(starts[int(rng.integers(len(starts)))])
        kelvins.append(settings["temperature"][walker % len(settings["temperature"])])
        arguments.append((oracle, atoms, potential, limits, kelvins[-1], settings, int(rng.integers(2**32))))
    show = sys.stderr.isatty()
    bar = tqdm(total=len(walkers), desc=f"round {number}", leave=False, delay=2.0, disable=not show)
    for place, result in calls(executor, _walk_and_label, arguments):
        if time.monotonic() > deadline:
            break
        try:
            labelled = result()
        except ValueError as error:
            failed += 1
            warnings.warn(f"round {number}, simulation {walkers[place]}: {error}; it is left out", stacklevel=3)
        else:
            if labelled is not None:
                run.add(labelled, {"round": number, "walker": walkers[place], "temperature": kelvins[place]})
        done += 1
        bar.update()
    bar.close()
    taken = run.of_rounds([number])
    row = {"threshold": threshold, "n_walkers": done, "n_taken": len(taken), "n_failed": failed}
    if taken:
        row["time"] = float(np.mean([atoms.info["time"] for atoms in taken]))
        row |= _errors("new", potential, StructureDataset(taken))
    return row


def _walk_and_label(oracle: AseCalculator | str, *walk: Any) -> Atoms | None:
    """The structure that :func:`_walk` comes to with its own arguments, with labels."""
    found = _walk(*walk)
    if found is None:
        return None
    labelled = _labelled(found, oracle)
    labelled.info |= found.info
    return labelled


def _walk(
    atoms: Atoms,
    potential: Committee,
    limits: tuple[float, float],
    kelvin: float,
    settings: dict[str, Any],
    seed: int,
) -> Atoms | None:
    """Simulate; the least certain structure, if it is beyond the first limit, with `time` (fs) and `uncertainty`
    (eV/Å)."""
    worst, looks = None, 0

    def lost(moving: Atoms) -> bool:
        nonlocal worst, looks
        uncertainty = force_uncertainty(moving.calc.results["forces_std"])
        # it begins at a structure that is labelled
        if looks and uncertainty > (limits[0] if worst is None else worst.info["uncertainty"]):
            worst = _bare(moving)
            worst.info |= {"time": looks * INTERVAL * settings["timestep"], "uncertainty": uncertainty}
        looks += 1
        return looks > 1 and uncertainty > limits[1]

    atoms.calc = potential.calculator(on_extrapolation="ignore")
    try:
        run_dynamics(
            atoms,
            temperature=kelvin,
            steps=settings["steps"],
            timestep=settings["timestep"],
            interval=INTERVAL,
            seed=seed,
            until=lost,
        )
    except ArithmeticError:
        # an explosion between two looks; what was seen before it is what there is to learn from
        pass
    return worst


def _force_scale(frames: Sequence[Atoms]) -> float:
    """Root mean square force on an atom, eV/Å."""
    squares = np.concatenate([(atoms.get_forces() ** 2).sum(axis=1) for atoms in frames])
    return float(np.sqrt(squares.mean()))


def _errors(name: str, potential: Committee, dataset: StructureDataset) -> dict[str, float]:
    metrics = evaluate(potential, dataset, n_worst=0).metrics
    kinds = [kind for kind in ("energy_rmse", "forces_rmse") if kind in metrics]
    return {f"{name}_{kind}": float(metrics[kind]) for kind in kinds}


def _bare(atoms: Atoms) -> Atoms:
    """A structure as a file holds it, without labels."""
    positions = atoms.positions.round(DECIMALS)
    return Atoms(numbers=atoms.numbers, positions=positions, cell=atoms.cell.array.round(DECIMALS), pbc=atoms.pbc)


def _displaced(start: Sequence[Atoms], known: Sequence[Atoms], number: int, settings: dict[str, Any]) -> Atoms:
    """A copy of a first structure, its atoms displaced at random by about as much as at the temperature.

    The energy by which the first copy lies above what it is a copy of tells how stiff the structure is.
    """
    n = len(start)
    rng = np.random.default_rng([settings["seed"], 0, number])
    size = DISPLACEMENT
    if number > n:
        rise = (known[n].get_potential_energy() - known[0].get_potential_energy()) / (3 * len(start[0]))
        kelvin = settings["temperature"][number % len(settings["temperature"])]
        # a structure that lies high itself may gain nothing
        size *= math.sqrt(0.5 * units.kB * kelvin / rise) if rise > 0 else 1.0
    copy = _bare(start[number % n])
    copy.positions += rng.normal(scale=min(size, MOST_DISPLACEMENT), size=copy.positions.shape)
    return copy


def _labelled(atoms: Atoms, oracle: AseCalculator | str) -> Atoms:
    """The structure with labels: its own, where it has energy and forces, or the oracle's."""
    bare = _bare(atoms)
    known = getattr(atoms.calc, "results", {})
    if "energy" not in known or "forces" not in known:
        known = _calculated(bare, _made(oracle))
    wanted = {name: known[name] for name in ("energy", "forces", "stress") if name in known}
    bare.calc = SinglePointCalculator(bare, **wanted)
    return bare


def _calculated(atoms: Atoms, oracle: AseCalculator) -> dict[str, Any]:
    """Energy, forces and, if there, stress of the oracle."""
    name = f"the oracle {type(oracle).__name__} failed on {atoms.get_chemical_formula()}"
    working = atoms.copy()
    working.calc = oracle
    # where electrons are smeared, forces are derivatives of the free energy
    consistent = "free_energy" in oracle.implemented_properties
    try:
        check_structure(atoms)
        if hasattr(oracle, "reset"):
            # a label must not depend on what was labelled before, in its last digits neither
            oracle.reset()
        results = {"energy": working.get_potential_energy(force_consistent=consistent), "forces": working.get_forces()}
        if "stress" in oracle.implemented_properties and atoms.pbc.all():
            results["stress"] = working.get_stress()
    except (CalculatorError, NotImplementedError, ValueError, ArithmeticError) as error:
        raise ValueError(f"{name}: {str(error) or type(error).__name__}") from error
    if not all(np.isfinite(value).all() for value in results.values()):
        raise ValueError(f"{name}: energies, forces and stresses must be finite numbers, got others")
    return results


def _order(atoms: Atoms) -> tuple[int, int]:
    return atoms.info["round"], atoms.info["walker"]


def _frames_of(text: str) -> list[str]:
    """Parts of an extended XYZ file, one per structure."""
    lines, parts = text.splitlines(keepends=True), []
    while lines:
        n = int(lines[0]) + 2
        parts.append("".join(lines[:n]))
        lines = lines[n:]
    return parts


class _Run:
    """The folder of a run: whatever is added is on the disk before the call returns."""

    def __init__(self, folder: Path, settings: dict[str, Any], resume: bool) -> None:
        self.folder, self.settings = folder, settings
        self.frames: list[Atoms] = []
        self.rows: list[dict[str, Any]] = []
        self._texts: list[str] = []
        folder.mkdir(parents=True, exist_ok=True)
        there = folder / SETTINGS
        if not there.exists():
            write_atomic(there, (json.dumps(settings, indent=2) + "\n").encode())
        elif not resume:
            raise ValueError(f"{folder} already holds active learning; go on with it (resume) or take another folder")
        else:
            before = json.loads(there.read_text(encoding="utf-8"))
            changed = [name for name, value in settings.items() if before.get(name) != value]
            if changed:
                pairs = ", ".join(f"{name} was {before.get(name)!r} and is {settings[name]!r}" for name in changed)
                raise ValueError(f"the run in {folder} was made with other settings: {pairs}; use those")
        if (folder / LABELS).exists():
            self._texts = _frames_of((folder / LABELS).read_text(encoding="utf-8"))
            self.frames = cast(list[Atoms], ase.io.read(folder / LABELS, ":", format="extxyz"))
        if (folder / ROUNDS).exists():
            self.rows = read_history(folder / ROUNDS)

    def add(self, atoms: Atoms, facts: dict[str, Any]) -> None:
        """Save a label; in the file they are in order, whatever the order in which they come."""
        # the facts first, so that lines do not depend on where the structure was found
        atoms.info = {**facts, **atoms.info}
        text = io.StringIO()
        ase.io.write(text, atoms, format="extxyz")
        # what is in memory is what a resumed run would read
        frame = cast(Atoms, ase.io.read(io.StringIO(text.getvalue()), format="extxyz"))
        place = bisect.bisect([_order(other) for other in self.frames], _order(frame))
        texts = [*self._texts[:place], text.getvalue(), *self._texts[place:]]
        write_atomic(self.folder / LABELS, "".join(texts).encode())
        self._texts = texts
        self.frames.insert(place, frame)

    def of_rounds(self, numbers: Sequence[int]) -> list[Atoms]:
        """Labelled structures of some rounds."""
        return [atoms for atoms in self.frames if atoms.info["round"] in numbers]

    def dataset(self, number: int) -> StructureDataset:
        """All labels that a round's committee knows."""
        return StructureDataset(self.of_rounds(range(number)), cutoff=self.settings["cutoff"])

    def missing(self, number: int, walkers: Sequence[int]) -> list[int]:
        """Those of a round that have no label."""
        known = {atoms.info["walker"] for atoms in self.of_rounds([number])}
        return [walker for walker in walkers if walker not in known]

    def committee(self, number: int, executor: Executor | None) -> Committee:
        """Potential fitted to the labels of all rounds before, and saved."""
        path, functions, chosen_at = self.folder / MODEL, None, 0
        data = self.dataset(number)
        if path.exists():
            before = Committee.from_container(load_container(path))
            if before.metadata["learning"]["round"] == number:
                return before
            if len(data) < 2 * before.metadata["learning"]["functions_from"]:
                functions, chosen_at = before.features, before.metadata["learning"]["functions_from"]
        fitted = fit(
            data,
            model=self.settings["model"],
            members=self.settings["members"],
            functions=functions,
            n_functions=self.settings["n_functions"],
            epochs=self.settings["epochs"],
            seed=self.settings["seed"],
            executor=executor,
        )
        potential = cast(Committee, fitted)
        potential.metadata["learning"] = {"round": number, "functions_from": chosen_at or len(data)}
        potential.save(path)
        return potential

    def first_round(self) -> int:
        """The round that was under way."""
        rounds = [atoms.info["round"] for atoms in self.frames]
        if (self.folder / MODEL).exists():
            rounds.append(load_container(self.folder / MODEL).metadata["learning"]["round"])
        return max(1, *rounds)

    def add_round(self, row: dict[str, Any]) -> None:
        """Save the figures of a round."""
        self.rows = [other for other in self.rows if other["round"] < row["round"]] + [row]
        lines = "".join(json.dumps(other, allow_nan=False) + "\n" for other in self.rows)
        write_atomic(self.folder / ROUNDS, lines.encode())

    def finish(self, reason: str) -> None:
        """Save summary and figure."""
        summary = {"reason": reason, "n_labels": len(self.frames), "rounds": self.rows}
        write_atomic(self.folder / SUMMARY, (json.dumps(summary, indent=2, allow_nan=False) + "\n").encode())
        if any("threshold" in row or "test_forces_rmse" in row for row in self.rows):
            picture = io.BytesIO()
            cast("Figure", plot_active_learning(self.rows).figure).savefig(picture, format="png")
            write_atomic(self.folder / FIGURE, picture.getvalue())
