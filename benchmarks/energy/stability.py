"""Whether molecules stay whole: 100 ps at 300 K with a potential fitted by the defaults, from ten seeds.

    python benchmarks/energy/stability.py DATA_FOLDER OUTPUT [--systems ethanol water] [--seeds 10] [--picoseconds 100]

The folder holds rmd17/rmd17_ethanol_01.npz and water_pbe0ts/deepmd_water_pbe0ts.xyz.xz; what is not there is skipped by
name. A run is stable if it comes to its end and every bond that it began with stays below 1.5 times the sum of the
covalent radii, looked at every 10 fs. OUTPUT keeps potentials and rows; what is there is not computed again. One
thread.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list
from threadpoolctl import threadpool_limits

import molml
from molml.energy import StructureDataset, fit
from molml.energy.dynamics import run_dynamics
from molml.energy.extrapolation import ExtrapolationWarning

KELVIN = 300.0
TIMESTEPS = {"ethanol": 0.5, "water": 1.0}  # fs
INTERVAL = 10.0  # fs
BONDED, BROKEN = 1.2, 1.5  # of the sum of covalent radii


def data(folder: Path, system: str) -> tuple[StructureDataset, StructureDataset | None] | None:
    """Structures to fit to, and those that judge."""
    path = {
        "ethanol": folder / "rmd17" / "rmd17_ethanol_01.npz",
        "water": folder / "water_pbe0ts" / "deepmd_water_pbe0ts.xyz.xz",
    }[system]
    if not path.exists():
        return None
    if system == "ethanol":
        whole = StructureDataset(path)
        return whole.subset(range(950)), whole.subset(range(950, 1000))
    return StructureDataset(path, index=slice(0, 320)), None


def bonds(atoms: Atoms) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bonded pairs, once each, and the sum of their covalent radii."""
    radii = covalent_radii[atoms.numbers]
    first, second = neighbor_list("ij", atoms, BONDED * radii)
    once = first < second
    first, second = first[once], second[once]
    return first, second, radii[first] + radii[second]


def simulate(atoms: Atoms, timestep: float, picoseconds: float, seed: int) -> dict[str, object]:
    """A row: how far it came, and what was seen on the way."""
    first, second, radii = bonds(atoms)
    longest = 0.0

    def broken(moving: Atoms) -> bool:
        nonlocal longest
        vectors = moving.positions[second] - moving.positions[first]
        if moving.pbc.any():
            vectors -= np.round(vectors @ np.linalg.inv(moving.cell.array)) @ moving.cell.array
        longest = max(longest, float((np.linalg.norm(vectors, axis=1) / radii).max()))
        return longest > BROKEN

    steps, started, end = round(1000 * picoseconds / timestep), time.process_time(), "whole"
    came, kelvin = 0.0, float("nan")
    try:
        seen = run_dynamics(
            atoms,
            temperature=KELVIN,
            steps=steps,
            timestep=timestep,
            interval=round(INTERVAL / timestep),
            seed=seed,
            until=broken,
        )
        came, kelvin = float(seen.time[-1]) / 1000, float(seen.temperature[len(seen.temperature) // 10 :].mean())
        end = "a bond broke" if longest > BROKEN else end
    except ArithmeticError as error:
        end = str(error)
    return {
        "seed": seed,
        "end": end,
        "picoseconds": came,
        "kelvin": kelvin,
        "longest_bond": longest,
        "cpu_s": time.process_time() - started,
    }


def main() -> None:
    """Fit, simulate, print a row per seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--systems", nargs="+", default=list(TIMESTEPS), choices=list(TIMESTEPS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--picoseconds", type=float, default=100.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    threadpool_limits(1)
    warnings.simplefilter("ignore", ExtrapolationWarning)
    arguments.output.mkdir(parents=True, exist_ok=True)
    for system in arguments.systems:
        found = data(arguments.folder, system)
        if found is None:
            print(f"{system}: skipped, no data in {arguments.folder}")
            continue
        path = arguments.output / f"{system}.molml"
        if not path.exists():
            fit(*found, minutes=10).save(path)
        rows = []
        for seed in range(arguments.seeds):
            kept = arguments.output / f"{system}-{seed}-{arguments.picoseconds:g}ps.json"
            if not kept.exists():
                # ten places far from each other in the data to begin at
                atoms = found[0].atoms[seed * (len(found[0]) // arguments.seeds)].copy()
                atoms.calc = molml.load(path).calculator()
                row = simulate(atoms, TIMESTEPS[system], arguments.picoseconds, seed)
                kept.write_text(json.dumps(row))
            rows.append(json.loads(kept.read_text()))
            shown = {name: round(value, 3) if isinstance(value, float) else value for name, value in rows[-1].items()}
            print(f"{system}: {shown}", flush=True)
        print(f"{system}: {sum(row['end'] == 'whole' for row in rows)} of {len(rows)} stable")


if __name__ == "__main__":
    main()
