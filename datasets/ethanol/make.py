"""Recipe of the data set `ethanol`: one molecule, GFN2-xTB, Langevin dynamics at three temperatures.

Run it with `molml data make ethanol` or as a script: `python make.py --seed 0 --output DIR` (about five minutes).
"""

import argparse
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.units import Bohr, Hartree
from tblite.interface import Calculator, Result
from tqdm import tqdm

from molml.datasets.sampling import label, langevin, write_set

TEMPERATURES = (300, 500, 700)
# whole runs go to one part, so that no test frame is the neighbour in time of a training frame
RUNS = {"train": 5, "valid": 1, "test": 2}
N_FRAMES = 60
TIMESTEP = 0.5
INTERVAL = 100
DISCARD = 4000
FRICTION = 0.01


class Forces:
    """GFN2-xTB forces along a run, each step started from the electrons of the step before."""

    def __init__(self, atoms: Atoms) -> None:
        self.calculator = Calculator("GFN2-xTB", atoms.numbers, atoms.positions / Bohr)
        self.calculator.set("verbosity", 0)
        self.calculator.set("accuracy", 0.1)
        self.result: Result | None = None

    def __call__(self, atoms: Atoms) -> np.ndarray:
        self.calculator.update(atoms.positions / Bohr)
        self.result = self.calculator.singlepoint(self.result)
        return -self.result.get("gradient") * Hartree / Bohr


def calculate(atoms: Atoms) -> dict[str, float | np.ndarray]:
    """Energy (eV) and forces (eV/Å), converged tightly and from scratch: a function of the positions alone."""
    calculator = Calculator("GFN2-xTB", atoms.numbers, atoms.positions / Bohr)
    calculator.set("verbosity", 0)
    calculator.set("accuracy", 0.001)
    result = calculator.singlepoint()
    return {"energy": result.get("energy") * Hartree, "forces": -result.get("gradient") * Hartree / Bohr}


def run(temperature: int, number: int, seed: int) -> list[Atoms]:
    """One independent run from a random angle of the OH group (anti and gauche are both visited)."""
    start = molecule("CH3CH2OH")
    angle = np.random.default_rng([seed, temperature, number, 0]).uniform(0.0, 360.0)
    start.set_dihedral(0, 1, 2, 3, angle, indices=[3])
    frames = langevin(
        start,
        Forces(start),
        temperature=temperature,
        timestep=TIMESTEP,
        friction=FRICTION,
        discard=DISCARD,
        interval=INTERVAL,
        n_frames=N_FRAMES,
        seed=[seed, temperature, number, 1],
    )
    info = {"temperature": temperature, "group": f"{temperature}K-{number}"}
    return [label(frame, calculate, info) for frame in frames]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("ethanol"))
    arguments = parser.parse_args()
    parts: dict[str, list[Atoms]] = {part: [] for part in RUNS}
    plan = [(t, part) for t in TEMPERATURES for part, n_runs in RUNS.items() for _ in range(n_runs)]
    numbers = dict.fromkeys(TEMPERATURES, 0)
    for temperature, part in tqdm(plan, desc="ethanol", unit="run"):
        parts[part] += run(temperature, numbers[temperature], arguments.seed)
        numbers[temperature] += 1
    write_set(arguments.output, parts, Path(__file__).parent / "card.toml")


if __name__ == "__main__":
    main()
