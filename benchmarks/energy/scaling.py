"""Time and memory per atom of energies, forces and stress from 100 to 100,000 atoms, and what a second thread gives.

    python benchmarks/energy/scaling.py [--threads 2]

Boxes of copper with 60 functions of the default grid and a network, neighbour list included. Every box is a process of
its own, so that the memory is its own: the greatest that was resident, less that of the process before the first call.
Wall-clock times, the least of several rounds, since threads are there to shorten those; an idle machine is needed.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

REPEATS = (3, 7, 14, 29)  # of the cubic cell of four atoms
CUTOFF = 5.5


def box(repeat: int, n_threads: int) -> tuple[int, float, float]:
    """Atoms, µs per atom, kB per atom."""
    import numpy as np
    import torch
    from ase.build import bulk

    from molml.energy import BehlerParrinello, SymmetryFunctions
    from molml.energy.data import atoms_to_structures, pair_vectors
    from molml.energy.kernels import FeatureKernel, neighbourhood
    from molml.energy.model import feature_statistics
    from molml.energy.selection import candidates

    torch.set_num_threads(n_threads)
    grid = candidates([29], 1.8, CUTOFF)
    some = [grid[i] for i in sorted(np.random.default_rng(0).permutation(len(grid))[:60])]
    functions = SymmetryFunctions({"Cu": some}, cutoff=CUTOFF)
    kernel = FeatureKernel(functions)
    small = bulk("Cu", cubic=True) * 3
    small.rattle(0.05, seed=0)
    batch = atoms_to_structures(small, CUTOFF)
    near = neighbourhood(kernel.elements, batch.numbers, batch.first, batch.second, pair_vectors(batch))
    statistics = feature_statistics([kernel.values(near, kernel.moments(near))])
    model = BehlerParrinello(functions, statistics, [0.0], hidden=(25, 25), activation="tanh")
    model.predict(batch)
    atoms = bulk("Cu", cubic=True) * repeat
    atoms.rattle(0.05, seed=0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(max(3, min(50, 20_000 // len(atoms)))):
        started = time.perf_counter()
        model.predict(atoms_to_structures(atoms, CUTOFF))
        times.append(time.perf_counter() - started)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return len(atoms), 1e6 * min(times) / len(atoms), memory / len(atoms)


def main() -> None:
    """A row per box."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="beside one")
    parser.add_argument("--box", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.box:
        print(*box(*arguments.box))
        return
    many = f"{arguments.threads} threads"
    print(f"{'atoms':>8}{'one thread':>14}{'memory':>12}{many:>14}{'ratio':>8}")
    for repeat in REPEATS:
        rows = []
        for n_threads in (1, arguments.threads):
            command = [sys.executable, __file__, "--box", str(repeat), str(n_threads)]
            answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            rows.append([float(word) for word in answer.split()])
        (n, alone, memory), (_, together, _) = rows
        print(f"{n:8.0f}{alone:9.1f} µs/at{memory:7.1f} kB/at{together:9.1f} µs/at{alone / together:7.2f}x", flush=True)


if __name__ == "__main__":
    main()
