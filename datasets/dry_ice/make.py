"""Recipe of the data set `dry_ice`: the CO2 crystal, GFN1-xTB, Langevin dynamics in strained cells, with stress.

Run it with `molml data make dry_ice` or as a script: `python make.py --seed 0 --output DIR` (about twenty minutes).
"""

import argparse
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import make_supercell
from ase.spacegroup import crystal
from ase.stress import full_3x3_to_voigt_6_stress
from ase.units import Bohr, Hartree
from tblite.interface import Calculator, Result
from tqdm import tqdm

from molml.datasets.sampling import label, langevin, write_set

TEMPERATURES = (100, 200, 300)
# whole runs, each in its own cell, go to one part; by volume, so that the densest and the widest cells are for training
PARTS = ("train", "train", "test", "train", "valid", "test", "train", "train")
N_FRAMES = 8
TIMESTEP = 1.0
INTERVAL = 30
DISCARD = 160
FRICTION = 0.02
# the minimum of GFN1-xTB (experiment: 5.62 Å at 150 K)
LATTICE_CONSTANT = 5.48
BOND_LENGTH = 1.141
LENGTHS = (0.95, 1.06)
STRAIN = 0.02


def calculator(atoms: Atoms, accuracy: float) -> Calculator:
    """A GFN1-xTB calculator of tblite for this cell."""
    cell = atoms.cell.array / Bohr
    made = Calculator("GFN1-xTB", atoms.numbers, atoms.positions / Bohr, lattice=cell, periodic=atoms.pbc)
    made.set("verbosity", 0)
    made.set("accuracy", accuracy)
    return made


class Forces:
    """GFN1-xTB forces along a run, each step started from the electrons of the step before."""

    def __init__(self, atoms: Atoms) -> None:
        self.calculator = calculator(atoms, accuracy=1.0)
        self.result: Result | None = None

    def __call__(self, atoms: Atoms) -> np.ndarray:
        self.calculator.update(atoms.positions / Bohr)
        self.result = self.calculator.singlepoint(self.result)
        return -self.result.get("gradient") * Hartree / Bohr


def calculate(atoms: Atoms) -> dict[str, float | np.ndarray]:
    """Energy (eV), forces (eV/Å) and stress (eV/Å³, ASE's sign and order), converged tightly and from scratch."""
    result = calculator(atoms, accuracy=0.001).singlepoint()
    return {
        "energy": result.get("energy") * Hartree,
        "forces": -result.get("gradient") * Hartree / Bohr,
        "stress": full_3x3_to_voigt_6_stress(result.get("virial") * Hartree / atoms.get_volume()),
    }


def strained(random: np.random.Generator) -> Atoms:
    """Eight molecules (Pa-3) in a randomly scaled and sheared cell, bond lengths kept."""
    x = BOND_LENGTH / np.sqrt(3.0) / LATTICE_CONSTANT
    a = LATTICE_CONSTANT
    unit = crystal(["C", "O"], [(0, 0, 0), (x, x, x)], spacegroup=205, cellpar=[a, a, a, 90, 90, 90])
    atoms = make_supercell(unit, [[1, 1, 0], [-1, 1, 0], [0, 0, 1]])
    shear = random.normal(0.0, STRAIN, (3, 3))
    shear = 0.5 * (shear + shear.T)
    shear -= np.eye(3) * np.trace(shear) / 3.0
    deformation = random.uniform(*LENGTHS) * (np.eye(3) + shear)
    carbons = np.flatnonzero(atoms.numbers == 6)
    vectors = atoms.get_all_distances(mic=True, vector=True)[:, carbons]
    nearest = np.linalg.norm(vectors, axis=-1).argmin(axis=1)
    centres = atoms.positions + vectors[np.arange(len(atoms)), nearest]
    bonds = atoms.positions - centres
    atoms.set_cell(atoms.cell.array @ deformation)
    atoms.positions = centres @ deformation + bonds
    return atoms


def start(temperature: int, number: int, seed: int) -> Atoms:
    """The start of a run."""
    return strained(np.random.default_rng([seed, temperature, number, 0]))


def plan(temperature: int, seed: int) -> list[str]:
    """The part of each run of a temperature: `PARTS` in the order of the volumes."""
    volumes = [start(temperature, number, seed).get_volume() for number in range(len(PARTS))]
    return [PARTS[rank] for rank in np.argsort(np.argsort(volumes))]


def run(temperature: int, number: int, seed: int) -> list[Atoms]:
    """One independent run in a cell of its own."""
    first = start(temperature, number, seed)
    frames = langevin(
        first,
        Forces(first),
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
    parser.add_argument("--output", type=Path, default=Path("dry_ice"))
    arguments = parser.parse_args()
    parts: dict[str, list[Atoms]] = {"train": [], "valid": [], "test": []}
    with tqdm(total=len(TEMPERATURES) * len(PARTS), desc="dry_ice", unit="run") as bar:
        for temperature in TEMPERATURES:
            for number, part in enumerate(plan(temperature, arguments.seed)):
                parts[part] += run(temperature, number, arguments.seed)
                bar.update()
    write_set(arguments.output, parts, Path(__file__).parent / "card.toml")


if __name__ == "__main__":
    main()
