"""CPU time of one call for the forces of a small molecule, by parts, and steps of molecular dynamics per second.

    python benchmarks/energy/calls.py PATH_TO_rmd17_aspirin_01.npz [--structures 100] [--members 1] [--functions N]

A network potential is fitted as `molml energy fit` does, for one epoch, and moved atoms are given to its calculator;
one thread. The kernels of the symmetry functions and the networks are the arithmetic, the rest is overhead. The least
of many short rounds is printed: the others tell what else the machine does.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet
from threadpoolctl import threadpool_limits

from molml.energy import Committee, StructureDataset, fit
from molml.energy.data import Structures, atoms_to_structures, pair_vectors
from molml.energy.dynamics import run_dynamics
from molml.energy.extrapolation import ExtrapolationWarning, ExtrapolationWatch
from molml.energy.inference import energies_with_gradient
from molml.energy.kernels import neighbourhood
from molml.energy.model import BehlerParrinello, LinearPotential, Potential

N_CALLS, N_ROUNDS = 20, 40
N_STEPS, N_RUNS = 50, 20


def least(work: Callable[[], object], calls: int = N_CALLS, rounds: int = N_ROUNDS) -> float:
    """CPU time of a call in the fastest round, µs."""
    work()
    times = []
    for _ in range(rounds):
        started = time.process_time()
        for _ in range(calls):
            work()
        times.append((time.process_time() - started) / calls)
    return min(times) * 1e6


def parts(potential: Potential, atoms: Atoms) -> dict[str, float]:
    """Time of each part of a call, µs."""
    members = list(potential.members) if isinstance(potential, Committee) else [potential]
    first = members[0]
    assert isinstance(first, BehlerParrinello | LinearPotential)
    kernel, guard = first.kernel, first.guard
    batch: Structures = atoms_to_structures(atoms, potential.cutoff)
    vectors = pair_vectors(batch)

    def near():
        return neighbourhood(kernel.elements, batch.numbers, batch.first, batch.second, vectors)

    around = near()
    moments = kernel.moments(around)
    values = kernel.values(around, moments)
    networks = [network for member in members for network in zip(member.atom_networks(), values, strict=True)]
    gradients = [energies_with_gradient(network, block)[1] for network, block in networks[: len(values)]]
    prediction = potential.predict(batch)
    calculator = potential.calculator()
    watch = ExtrapolationWatch(potential, "warn")
    atoms.calc = calculator
    atoms.get_forces()
    places = atoms.positions, atoms.cell.array, atoms.pbc
    return {
        "moments": least(lambda: kernel.moments(around)),
        "functions": least(lambda: kernel.values(around, moments)),
        "networks": least(lambda: [energies_with_gradient(*network) for network in networks]),
        "derivatives": len(members) * least(lambda: kernel.vjp(around, moments, gradients)),
        "pairs from the Verlet list": least(lambda: calculator.neighbours.pairs(*places)),
        "arranging them": least(near),
        "guard": 0.0 if guard is None else least(lambda: guard.pair_terms(batch, vectors)),
        "extrapolation": least(lambda: watch.look(batch, prediction)),
        "prediction, all included": least(lambda: potential.predict(batch, stress=False)),
        "calculation, all included": least(lambda: calculator.calculate(atoms, ["forces"])),
    }


def main() -> None:
    """Fit, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--structures", type=int, default=100)
    parser.add_argument("--members", type=int, default=1)
    parser.add_argument("--functions", type=int, help="most functions per element")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    threadpool_limits(1)
    warnings.simplefilter("ignore", ExtrapolationWarning)
    data = StructureDataset(arguments.data).subset(range(arguments.structures))
    potential = fit(data, epochs=1, members=arguments.members, n_functions=arguments.functions, progress=False)
    print(potential)
    atoms = data.atoms[0]
    found = parts(potential, atoms)
    for name, micro in found.items():
        print(f"  {name:<28} {micro:8.1f} µs")
    rng = np.random.default_rng(0)
    moved = [atoms.positions + rng.normal(0.0, 0.01, atoms.positions.shape) for _ in range(N_CALLS)]
    at = iter(range(10**9))

    def call() -> None:
        atoms.positions = moved[next(at) % N_CALLS]
        atoms.get_forces()

    whole = least(call)
    arithmetic = sum(found[name] for name in ("moments", "functions", "networks", "derivatives"))
    print(f"  {'get_forces of moved atoms':<28} {whole:8.1f} µs: {whole - arithmetic:.1f} beyond the arithmetic")
    atoms.positions = data.atoms[0].positions
    run_dynamics(atoms, steps=1)  # velocities
    dynamics = VelocityVerlet(atoms, timestep=0.5 * units.fs)
    step = least(lambda: dynamics.run(N_STEPS), calls=1, rounds=N_RUNS) / N_STEPS
    print(f"  {'velocity Verlet':<28} {step:8.1f} µs a step: {1e6 / step:.0f} steps/s")


if __name__ == "__main__":
    main()
