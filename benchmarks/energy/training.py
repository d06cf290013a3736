"""CPU time of an epoch of training, with the derivatives of the symmetry functions computed anew and kept; one thread.

    python benchmarks/energy/training.py DATA_FOLDER

The folder holds mlearn/Si_train.xyz.xz, rmd17/rmd17_ethanol_01.npz, water_pbe0ts/deepmd_water_pbe0ts.xyz.xz and n2p2's
water potential in n2p2/pot_H2O_RPBE-D3; what is not there is left out. Functions are drawn from the default grid, as
many as the recipe would choose, or n2p2's own (narrow angular ones, every pair of neighbours).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from ase.data import chemical_symbols
from speed import read_functions
from threadpoolctl import threadpool_limits

from molml.energy import BehlerParrinello, EnergyForceLoss, StructureDataset, SymmetryFunctions
from molml.energy.kernels import FeatureKernel
from molml.energy.loss import FeaturisedDataset
from molml.energy.model import feature_statistics
from molml.energy.selection import candidates

N_EPOCHS = 3


def drawn(elements: list[int], cutoff: float, n: int) -> SymmetryFunctions:
    """``n`` functions of the default grid for each element."""
    grid = candidates(elements, 0.9 if 1 in elements else 1.8, cutoff)
    some = [grid[i] for i in sorted(np.random.default_rng(0).permutation(len(grid))[:n])]
    return SymmetryFunctions({chemical_symbols[z]: some for z in elements}, cutoff=cutoff)


def cases(folder: Path) -> Iterator[tuple[str, StructureDataset, SymmetryFunctions, int]]:
    """Name, structures, functions and batch size."""
    path = folder / "mlearn" / "Si_train.xyz.xz"
    if path.exists():
        yield "Si, 300 functions, 5.5 Å", StructureDataset(path, cutoff=5.5), drawn([14], 5.5, 300), 2
    path = folder / "rmd17" / "rmd17_ethanol_01.npz"
    if path.exists():
        data = StructureDataset(path, cutoff=4.0).subset(range(300))
        yield "ethanol, 1,000 functions, 4 Å", data, drawn([1, 6, 8], 4.0, 1000), 8
    path = folder / "water_pbe0ts" / "deepmd_water_pbe0ts.xyz.xz"
    own = folder / "n2p2" / "pot_H2O_RPBE-D3"
    if path.exists():
        data = StructureDataset(path, cutoff=5.5, index=slice(0, 10))
        yield "water, 300 functions, 5.5 Å", data, drawn([1, 8], 5.5, 300), 2
        if own.exists():
            chosen, cutoff = read_functions(own)
            functions = SymmetryFunctions(chosen, cutoff=cutoff, cutoff_function="cosine")
            yield "water, n2p2's 57 functions, 6.35 Å", data.with_cutoff(cutoff), functions, 2


def measure(name: str, data: StructureDataset, functions: SymmetryFunctions, batch_size: int) -> None:
    """Print µs per atom and epoch, and of the first look at a structure."""
    n_atoms = sum(len(data[i].numbers) for i in range(len(data)))
    print(f"\n{name}: {len(data)} structures, {n_atoms} atoms")
    gradients = []
    for derivatives in ("compute", "keep", "auto"):
        featurised = FeaturisedDataset(data, FeatureKernel(functions), memory=8.0, derivatives=derivatives)
        started = time.process_time()
        items = [featurised[i] for i in range(len(featurised))]
        first = time.process_time() - started
        model = BehlerParrinello(
            functions, feature_statistics([item.features for item in items]), [0.0] * len(functions.elements)
        ).train()
        loss, times = EnergyForceLoss(), []
        for _ in range(N_EPOCHS):
            started = time.process_time()
            for at in range(0, len(items), batch_size):
                model.zero_grad()
                terms = loss(model, featurised.collate(items[at : at + batch_size]))
                sum(term.total for term in terms.values()).backward()
            times.append(time.process_time() - started)
        gradients.append(torch.cat([p.grad.ravel() for p in model.parameters() if p.grad is not None]))
        off = float((gradients[-1] - gradients[0]).abs().max() / gradients[0].abs().max())
        epoch, first = 1e6 / n_atoms * min(times), 1e6 / n_atoms * first
        print(
            f"  {derivatives:<8} {epoch:7.1f} µs/atom an epoch, first look {first:7.1f}; derivatives of "
            f"{featurised.n_derivatives} structures kept, gradient off by {off:.1e}",
            flush=True,
        )


def main() -> None:
    """Measure what is there."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    torch.set_num_threads(1)
    threadpool_limits(1)
    for case in cases(Path(sys.argv[1])):
        measure(*case)


if __name__ == "__main__":
    main()
