"""Recipe of the data set `alanine-dipeptide`: independent runs in implicit solvent with OpenMM.

Run it with `molml data make alanine-dipeptide` or as a script: `python make.py --seed 0 --output DIR` (about two
minutes). The script also takes `--temperature`, `--runs` and `--frames`.
"""

import argparse
from pathlib import Path

import mdtraj
import numpy as np
import openmm
from openmm import app, unit
from tqdm import tqdm

from molml.datasets.sampling import write_trajectories

TIMESTEP = 0.004  # ps
STEPS = 25  # between two roundings
INTERVAL = 5  # roundings in a frame
DISCARD = 500  # frames
FRICTION = 1.0  # 1/ps
HYDROGEN_MASS = 3.0  # Da, so that 4 fs are a short step
OFFSET = 0.009  # nm, between the intrinsic radii and those of the generalised Born model
DECIMALS = 7  # of nm and nm/ps

# residue, atom, the three atoms it is placed by, distance (nm) to the first, angle and dihedral (degrees)
GEOMETRY = [
    ("ACE", "O", (1, 0, 0), (0.123, 120.5, 0.0)),
    ("ACE", "H1", (0, 1, 2), (0.109, 109.5, 0.0)),
    ("ACE", "H2", (0, 1, 2), (0.109, 109.5, 120.0)),
    ("ACE", "H3", (0, 1, 2), (0.109, 109.5, -120.0)),
    ("ALA", "N", (1, 0, 2), (0.134, 116.5, 180.0)),
    ("ALA", "CA", (6, 1, 0), (0.145, 121.5, 180.0)),
    ("ALA", "CB", (7, 6, 1), (0.153, 110.0, 158.0)),
    ("ALA", "C", (7, 6, 1), (0.153, 110.0, -80.0)),
    ("ALA", "O", (9, 7, 6), (0.123, 120.5, -100.0)),
    ("ALA", "H", (6, 1, 7), (0.101, 119.0, 180.0)),
    ("ALA", "HA", (7, 6, 1), (0.109, 109.0, 38.0)),
    ("ALA", "HB1", (8, 7, 6), (0.109, 109.5, 60.0)),
    ("ALA", "HB2", (8, 7, 6), (0.109, 109.5, 180.0)),
    ("ALA", "HB3", (8, 7, 6), (0.109, 109.5, -60.0)),
    ("NME", "N", (9, 7, 10), (0.134, 116.5, 180.0)),
    ("NME", "C", (16, 9, 7), (0.145, 121.5, 180.0)),
    ("NME", "H", (16, 9, 17), (0.101, 119.0, 180.0)),
    ("NME", "H1", (17, 16, 9), (0.109, 109.5, 60.0)),
    ("NME", "H2", (17, 16, 9), (0.109, 109.5, 180.0)),
    ("NME", "H3", (17, 16, 9), (0.109, 109.5, -60.0)),
]
ATOMS = [("ACE", "CH3"), ("ACE", "C"), *((residue, atom) for residue, atom, _, _ in GEOMETRY)]


def start() -> np.ndarray:
    """Positions (n_atoms, 3) in nm from internal coordinates: L-alanine in its beta region."""
    # the row of an atom that two others suffice to place names the first of them twice: any plane will do
    placed = [np.zeros(3), np.array([0.151, 0.0, 0.0])]
    for _, _, (a, b, c), (length, angle, dihedral) in GEOMETRY:
        axis = placed[a] - placed[b]
        axis /= np.linalg.norm(axis)
        aside = np.array([0.0, 1.0, 0.0]) if b == c else placed[c] - placed[b]
        aside = aside - axis * (aside @ axis)
        aside /= np.linalg.norm(aside)
        theta, phi = np.radians([angle, dihedral])
        across = np.cos(phi) * aside + np.sin(phi) * np.cross(axis, aside)
        placed.append(placed[a] + length * (np.sin(theta) * across - np.cos(theta) * axis))
    return np.array(placed)


def molecule() -> app.Topology:
    """Acetyl, alanine and N-methylamide with their bonds."""
    topology = app.Topology()
    chain = topology.addChain()
    residues = {name: topology.addResidue(name, chain) for name in ("ACE", "ALA", "NME")}
    for residue, atom in ATOMS:
        topology.addAtom(atom, app.Element.getBySymbol(atom[0]), residues[residue])
    topology.createStandardBonds()
    return topology


def model(topology: app.Topology) -> openmm.System:
    """Amber ff14SB with the OBC2 solvent.

    The solvent model comes as a custom force of formulas, which is many times slower for so few atoms than the built-in
    force with the same parameters.
    """
    field = app.ForceField("amber14-all.xml", "implicit/obc2.xml")
    system = field.createSystem(
        topology, nonbondedMethod=app.NoCutoff, constraints=app.HBonds, hydrogenMass=HYDROGEN_MASS * unit.dalton
    )
    (custom,) = (n for n, force in enumerate(system.getForces()) if isinstance(force, openmm.CustomGBForce))
    solvent = openmm.GBSAOBCForce()
    solvent.setSolventDielectric(78.5)
    for n in range(system.getNumParticles()):
        charge, radius, scaled = system.getForce(custom).getParticleParameters(n)
        solvent.addParticle(charge, radius + OFFSET, scaled / radius)
    system.addForce(solvent)
    system.removeForce(custom)
    return system


def run(temperature: float, n_frames: int, seed: int) -> np.ndarray:
    """Frames (n_frames, n_atoms, 3) in nm, 0.5 ps apart."""
    topology = molecule()
    integrator = openmm.LangevinMiddleIntegrator(temperature, FRICTION, TIMESTEP)
    integrator.setRandomNumberSeed(seed)
    context = openmm.Context(model(topology), integrator, openmm.Platform.getPlatformByName("Reference"))
    # not minimised: the start is within 20 kJ/mol of the minimum, and a minimiser turns last digits into 0.01 nm
    context.setPositions(start())
    context.setVelocitiesToTemperature(temperature, seed)
    frames = []
    for _ in tqdm(range(DISCARD + n_frames), desc=f"run {seed}", unit="frame", disable=None):
        for _ in range(INTERVAL):
            integrator.step(STEPS)
            state = context.getState(positions=True, velocities=True)
            positions = np.round(state.getPositions(asNumpy=True)._value, DECIMALS)
            # far fewer digits than the last ones, in which processors differ: these differences cannot grow from here
            context.setPositions(positions)
            context.setVelocities(np.round(state.getVelocities(asNumpy=True)._value, DECIMALS))
        frames.append(positions)
    return np.array(frames[DISCARD:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="run n has the seed 1000 seed + n + 1")
    parser.add_argument("--temperature", type=float, default=600.0, help="K")
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--frames", type=int, default=5000, help="of each run, 0.5 ps apart")
    parser.add_argument("--output", type=Path, default=Path("alanine-dipeptide"))
    arguments = parser.parse_args()
    # OpenMM takes the seed 0 as a wish for any
    seeds = [1000 * arguments.seed + n + 1 for n in range(arguments.runs)]
    runs = [run(arguments.temperature, arguments.frames, seed) for seed in seeds]
    topology = mdtraj.Topology.from_openmm(molecule())
    card = Path(__file__).parent / "card.toml"
    write_trajectories(arguments.output, topology, runs, frame_time=TIMESTEP * STEPS * INTERVAL, card=card)


if __name__ == "__main__":
    main()
