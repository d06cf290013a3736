"""Time of features, energies and forces per atom, on a box of 1,080 water atoms and two crystals; one thread, float64.

    python benchmarks/energy/speed.py PATH_TO_n2p2_POTENTIAL_FOLDER

The folder holds n2p2's input.nn and input.data(.xz) of its RPBE-D3 water potential. Times are CPU seconds, the least of
several rounds, neighbour list included where named. Lines on operations compare the functions that need no pairs of
neighbours with the machine: how many floating-point operations they take, and how many it does in registers alone.
Where TorchANI is installed (`pip install --no-deps torchani`), it computes the same box last: its 384 functions of the
ANI-1x kind, float32, energy and forces with its cell list, the same small networks.
"""

from __future__ import annotations

import lzma
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.units import Bohr

from molml.energy.cutoffs import jit
from molml.energy.data import Structures, atoms_to_structures, pair_vectors
from molml.energy.features import G2, G4, Function, SymmetryFunctions
from molml.energy.kernels import FeatureKernel, neighbourhood
from molml.energy.lanes import LANES, across, spread
from molml.energy.model import BehlerParrinello, feature_statistics
from molml.energy.selection import candidates
from molml.nn import MLP


def read_box(folder: Path) -> Atoms:
    """The box of n2p2's input.data, in Å."""
    path = next(p for p in (folder / "input.data", folder / "input.data.xz") if p.exists())
    text = lzma.open(path, "rt").read() if path.suffix == ".xz" else path.read_text()
    cell, positions, symbols = [], [], []
    for line in text.splitlines():
        word, *rest = line.split()
        if word == "lattice":
            cell.append([float(x) for x in rest[:3]])
        elif word == "atom":
            positions.append([float(x) for x in rest[:3]])
            symbols.append(rest[3])
        elif word == "end":
            break
    return Atoms(symbols, np.array(positions) * Bohr, cell=np.array(cell) * Bohr, pbc=True)


def read_functions(folder: Path) -> tuple[dict[str, list[Function]], float]:
    """Types 2 and 3 of n2p2's input.nn, and the cutoff, in Å."""
    functions: dict[str, list[Function]] = {}
    cutoff = 0.0
    for line in (folder / "input.nn").read_text().splitlines():
        words = line.split()
        if words[:1] != ["symfunction_short"]:
            continue
        centre, kind = words[1], words[2]
        if kind == "2":
            eta, shift, cutoff = (float(x) for x in words[4:7])
            function: Function = G2(words[3], eta / Bohr**2, shift * Bohr)
        else:
            eta, lambda_, zeta, cutoff = (float(x) for x in words[5:9])
            function = G4((words[3], words[4]), eta / Bohr**2, zeta, lambda_)
        functions.setdefault(centre, []).append(function)
    return functions, cutoff * Bohr


def least(work: Callable[[], object], rounds: int = 5) -> float:
    """CPU seconds of the fastest round."""
    times = []
    for _ in range(rounds):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


@jit
def multiply_add(n: int) -> float:
    """``n`` rounds of 8 multiplications and additions of LANES numbers, none of which waits for another."""
    # squares, because the compiler would sum up what is linear
    y = spread(-0.7)
    a, b, c, d = spread(0.1), spread(0.2), spread(0.3), spread(0.4)
    e, f, g, h = spread(0.5), spread(0.6), spread(0.7), spread(0.8)
    for _ in range(n):
        a, b, c, d, e, f, g, h = a * a + y, b * b + y, c * c + y, d * d + y, e * e + y, f * f + y, g * g + y, h * h + y
    return across(a + b + c + d + e + f + g + h)


def peak() -> float:
    """Operations per second of one core in float64, an addition and a multiplication counted as two."""
    n = 1_000_000
    multiply_add(1)
    return 2 * 8 * LANES * n / least(lambda: multiply_add(n))


def operations(functions: SymmetryFunctions) -> float:
    """Operations per pair that values and derivatives take at least, for functions made of moments."""
    basis = functions.tables.basis
    width, degree = (basis.degree + 1) ** 2, basis.degree
    # per element of the neighbour, because a moment mostly is of one
    tensors, scalars = ((weight != 0.0).sum(0).mean() for weight in (basis.tensor_weight, basis.scalar_weight))
    # the exponential with its Gaussian and their slope: 40; twice, because nothing is kept between the two passes
    radial = 2 * 40 * len(basis.radial_form)
    harmonics = 2 * 4 * width + 2 * 6 * degree
    values = 2 * width * tensors + scalars
    derivatives = 2 * 2 * width * tensors + 2 * scalars + 15 * width
    return float(radial + harmonics + values + derivatives)


def measure(name: str, functions: SymmetryFunctions, atoms: Atoms) -> None:
    """Print µs per atom of the parts and of the whole."""
    batch: Structures = atoms_to_structures(atoms, functions.cutoff)
    kernel = FeatureKernel(functions)
    near = neighbourhood(kernel.elements, batch.numbers, batch.first, batch.second, pair_vectors(batch))
    moments = kernel.moments(near)
    values = kernel.values(near, moments)
    statistics = feature_statistics([values])
    model = BehlerParrinello(functions, statistics, [0.0] * len(functions.elements), hidden=(25, 25), activation="tanh")
    weights = [np.ones_like(block) for block in values]
    scale = 1e6 / len(atoms)
    parts = {
        "neighbour list": least(lambda: atoms_to_structures(atoms, functions.cutoff)) * scale,
        "features": least(lambda: kernel.values(near, kernel.moments(near))) * scale,
        "their derivatives": least(lambda: kernel.vjp(near, moments, weights)) * scale,
        "energy + forces + stress, all included": least(
            lambda: model.predict(atoms_to_structures(atoms, functions.cutoff))
        )
        * scale,
    }
    n_functions = ", ".join(f"{len(chosen)} {symbol}" for symbol, chosen in functions.functions.items())
    neighbours = len(batch.first) / len(atoms)
    print(f"\n{name}: {n_functions} functions, cutoff {functions.cutoff:.2f} Å, {neighbours:.0f} neighbours")
    for part, micro in parts.items():
        print(f"  {part:<40} {micro:8.1f} µs/atom")
    if not any(len(centre.triple.bump) for centre in functions.tables.centres):
        per_pair, rate = operations(functions), peak()
        took = (parts["features"] + parts["their derivatives"]) * 1e-6
        share = per_pair * neighbours / took / rate
        print(f"  {per_pair:.0f} operations per pair; {100 * share:.0f} % of the {rate / 1e9:.0f} Gflop/s of a core")


def measure_torchani(atoms: Atoms) -> None:
    """Print µs per atom of energy and forces by TorchANI."""
    try:
        from torchani.aev import AEVComputer
    except ImportError:
        print("\nTorchANI: skipped, not installed")
        return
    functions = AEVComputer.like_1x(neighborlist="cell_list")
    places = {1: 0, 6: 1, 7: 2, 8: 3}
    species = torch.tensor([[places[z] for z in atoms.numbers]])
    networks = [MLP(384, (25, 25), 1, activation="tanh", seed=0, dtype=torch.float32) for _ in places]
    cell = torch.tensor(atoms.cell.array, dtype=torch.float32)

    def work() -> None:
        positions = torch.tensor(atoms.get_positions(wrap=True)[None], dtype=torch.float32, requires_grad=True)
        values = functions(species, positions, cell, torch.tensor(atoms.pbc))[0]
        energy = torch.stack([network(values[species[0] == e]).sum() for e, network in enumerate(networks)]).sum()
        torch.autograd.grad(energy, positions)

    print(f"\nTorchANI: 384 functions, cutoffs 5.2 and 3.5 Å, float32\n  {'energy + forces':<40} ", end="")
    print(f"{1e6 / len(atoms) * least(work):8.1f} µs/atom")


def main() -> None:
    """Measure n2p2's functions and molml's default kind on the same box."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    atoms = read_box(folder)
    chosen, cutoff = read_functions(folder)
    measure("n2p2's functions (narrow angular ones: every pair of neighbours)", SymmetryFunctions(
        chosen, cutoff=cutoff, cutoff_function="cosine"), atoms)  # fmt: skip
    radial, angular = np.geomspace(0.05, 4.0, 10), (0.01, 0.03, 0.07, 0.15, 0.3)
    for symbol, crystal in (("Cu", bulk("Cu", cubic=True) * 5), ("Si", bulk("Si", cubic=True) * 4)):
        crystal.rattle(0.05, seed=0)
        some_functions: list[Function] = [G2(symbol, eta) for eta in radial]
        some_functions += [
            G4((symbol, symbol), eta, zeta, sign) for eta in angular for zeta in (1, 4) for sign in (1, -1)
        ]
        name = f"{len(crystal)} atoms of {symbol}, 10 radial and 20 narrow angular"
        measure(name, SymmetryFunctions({symbol: some_functions}, cutoff=5.0, cutoff_function="cosine"), crystal)
    grid = candidates([1, 8], 0.9, cutoff)
    rng = np.random.default_rng(0)
    for n, radius in ((60, cutoff), (300, 5.5)):
        some = [grid[i] for i in sorted(rng.permutation(len(grid))[:n])]
        measure(f"molml's kind, {n} of the default grid", SymmetryFunctions(
            {"H": some, "O": some}, cutoff=radius), atoms)  # fmt: skip
    measure_torchani(atoms)


if __name__ == "__main__":
    main()
