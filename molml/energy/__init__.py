"""Interatomic potentials from symmetry functions: from a file of structures to an ASE calculator.

The public names, in the order one meets them. Nothing heavy is imported before one of them is used.
"""

from typing import TYPE_CHECKING

from molml.lazy import lazy_names

if TYPE_CHECKING:
    from molml.energy.calculator import Calculator
    from molml.energy.data import StructureDataset, Structures, read_structures
    from molml.energy.engines import attach_lammps, drive_ipi, openmm_force
    from molml.energy.features import SymmetryFunctions
    from molml.energy.fitting import fit
    from molml.energy.learning import learn
    from molml.energy.loss import EnergyForceLoss
    from molml.energy.metrics import evaluate
    from molml.energy.model import BehlerParrinello, Committee, LinearPotential, Prediction
    from molml.energy.n2p2 import read_n2p2, write_n2p2
    from molml.energy.runner_data import read_runner_data, write_runner_data
    from molml.energy.selection import automatic_functions

_HOMES = {
    "read_structures": "data",
    "StructureDataset": "data",
    "Structures": "data",
    "fit": "fitting",
    "learn": "learning",
    "evaluate": "metrics",
    "SymmetryFunctions": "features",
    "automatic_functions": "selection",
    "LinearPotential": "model",
    "BehlerParrinello": "model",
    "Committee": "model",
    "Prediction": "model",
    "EnergyForceLoss": "loss",
    "Calculator": "calculator",
    "openmm_force": "engines",
    "drive_ipi": "engines",
    "attach_lammps": "engines",
    "read_n2p2": "n2p2",
    "write_n2p2": "n2p2",
    "read_runner_data": "runner_data",
    "write_runner_data": "runner_data",
}

__all__ = [
    "BehlerParrinello",
    "Calculator",
    "Committee",
    "EnergyForceLoss",
    "LinearPotential",
    "Prediction",
    "StructureDataset",
    "Structures",
    "SymmetryFunctions",
    "attach_lammps",
    "automatic_functions",
    "drive_ipi",
    "evaluate",
    "fit",
    "learn",
    "openmm_force",
    "read_n2p2",
    "read_runner_data",
    "read_structures",
    "write_n2p2",
    "write_runner_data",
]

__getattr__, __dir__ = lazy_names("molml.energy", _HOMES)
