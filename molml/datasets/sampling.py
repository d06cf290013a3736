"""What the recipes of the embedded data sets share: Langevin dynamics that repeats on other machines, and writing."""

import csv
import hashlib
import lzma
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import ase.io
import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator

if TYPE_CHECKING:
    import mdtraj

POSITION_DECIMALS = 8
LABEL_DECIMALS = 8
# coarse enough that two processors agree on it although the last bits of their arithmetic differ
HASH_DECIMALS = 4


def langevin(
    atoms: Atoms,
    forces: Callable[[Atoms], np.ndarray],
    *,
    temperature: float,
    timestep: float,
    friction: float,
    discard: int,
    interval: int,
    n_frames: int,
    seed: Sequence[int],
) -> Iterator[Atoms]:
    """Frames of a Langevin run at constant volume (BAOAB splitting).

    Forces, positions and velocities are rounded in every step (forces to 1e-5 eV/Å, thousands of times below the
    thermal noise), so that rounding differences between processors do not grow and a recipe gives the same
    trajectory elsewhere.

    Parameters
    ----------
    atoms : Atoms
        Start structure; not changed.
    forces : callable
        Takes the atoms, returns the forces, shape (n_atoms, 3), eV/Å.
    temperature : float, K
    timestep : float, fs
    friction : float, 1/fs
    discard : int
        Steps before the first frame may be taken.
    interval : int
        Steps between two frames.
    n_frames : int
    seed : sequence of int
        Seed of this run's random numbers.

    Yields
    ------
    Atoms
        Copies without calculator, centre of mass moved to where it was at the start.

    References
    ----------
    Leimkuhler and Matthews, Appl. Math. Res. Express 2013, 34 (2013), BAOAB.
    """
    random = np.random.default_rng(seed)
    atoms = atoms.copy()
    masses = atoms.get_masses()[:, None]
    centre = atoms.get_center_of_mass()
    step = timestep * units.fs
    keep = float(np.exp(-friction * timestep))
    thermal = np.sqrt(units.kB * temperature / masses)
    kick = np.sqrt(1.0 - keep**2) * thermal
    velocities = thermal * random.standard_normal(atoms.positions.shape)
    acceleration = np.round(forces(atoms), 5) / masses
    for n in range(1, discard + n_frames * interval + 1):
        velocities += 0.5 * step * acceleration
        half = atoms.positions + 0.5 * step * velocities
        velocities = keep * velocities + kick * random.standard_normal(velocities.shape)
        atoms.positions = np.round(half + 0.5 * step * velocities, 10)
        acceleration = np.round(forces(atoms), 5) / masses
        velocities = np.round(velocities + 0.5 * step * acceleration, 12)
        if n > discard and (n - discard) % interval == 0:
            frame = atoms.copy()
            frame.positions += centre - frame.get_center_of_mass()
            yield frame


def label(
    atoms: Atoms, calculate: Callable[[Atoms], Mapping[str, float | np.ndarray]], info: Mapping[str, object]
) -> Atoms:
    """A copy at rounded positions with the labels of exactly these positions.

    Parameters
    ----------
    atoms : Atoms
    calculate : callable
        Takes the rounded copy, returns ASE's property names and values: energy (eV), forces (eV/Å), and for a
        periodic structure stress (eV/Å³, six components in ASE's order and sign).
    info : mapping
        What goes into ``Atoms.info`` beside the labels (temperature, group …).
    """
    copy = Atoms(
        numbers=atoms.numbers,
        positions=np.round(atoms.positions, POSITION_DECIMALS),
        cell=np.round(atoms.cell.array, POSITION_DECIMALS),
        pbc=atoms.pbc,
    )
    copy.info.update(info)
    values = calculate(copy)
    rounded = {
        name: np.round(value, LABEL_DECIMALS) if np.ndim(value) else round(float(value), LABEL_DECIMALS)
        for name, value in values.items()
    }
    copy.calc = SinglePointCalculator(copy, **rounded)
    return copy


def write_frames(path: Path, frames: Sequence[Atoms]) -> None:
    """Write frames as xz-compressed extended XYZ."""
    text = StringIO()
    ase.io.write(text, list(frames), format="extxyz")
    path.write_bytes(lzma.compress(text.getvalue().encode(), preset=9 | lzma.PRESET_EXTREME))


def read_frames(path: Path) -> list[Atoms]:
    """All frames of an xz-compressed extended XYZ file, with their labels."""
    text = lzma.decompress(path.read_bytes()).decode()
    frames = ase.io.read(StringIO(text), ":", format="extxyz")
    return list(frames)


def values_hash(frames: Sequence[Atoms]) -> str:
    """SHA-256 of all numbers of the frames rounded to 1e-4 (Å, eV, eV/Å, eV/Å³).

    Equal on machines whose arithmetic differs in the last bits; the file's own hash need not be.
    """
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(frame.numbers.astype("<i8").tobytes())
        results = frame.calc.results
        labels = [np.asarray(results[name]) for name in ("energy", "forces", "stress") if name in results]
        for values in [frame.cell.array, frame.positions, *labels]:
            scaled = np.round(np.asarray(values, dtype=np.float64) * 10**HASH_DECIMALS)
            digest.update(scaled.astype("<i8").tobytes())
    return digest.hexdigest()


def write_set(output: Path, parts: Mapping[str, Sequence[Atoms]], card: Path) -> None:
    """Write the parts of a data set and the card with the facts of the written files.

    Parameters
    ----------
    output : Path
        Folder; made when missing.
    parts : mapping
        ``{"train": frames, …}``; each becomes ``output/train.xyz.xz``.
    card : Path
        The card beside the recipe: everything before its first ``[[files]]`` is kept, the rest is written anew.
    """
    output.mkdir(parents=True, exist_ok=True)
    facts = []
    for name, frames in parts.items():
        path = output / f"{name}.xyz.xz"
        write_frames(path, frames)
        facts.append((path, f"structures = {len(frames)}", values_hash(read_frames(path))))
    _write_card(card, output, facts)


def write_trajectories(
    output: Path, topology: "mdtraj.Topology", runs: Sequence[np.ndarray], *, frame_time: float, card: Path
) -> None:
    """Write the heavy atoms of independent runs, each frame centred, and the card with the facts of the written files.

    Parameters
    ----------
    output : Path
        Folder; made when missing. ``topology.pdb`` holds the first frame, ``run-1.xtc`` … the runs (0.01 Å).
    topology : mdtraj.Topology
    runs : sequence of array (n_frames, n_atoms, 3), nm
    frame_time : float, ps
    card : Path
        The card beside the recipe: everything before its first ``[[files]]`` is kept, the rest is written anew.
    """
    import mdtraj

    output.mkdir(parents=True, exist_ok=True)
    heavy = topology.select("not element H")
    facts = []
    for number, positions in enumerate(runs, start=1):
        frames = mdtraj.Trajectory(
            positions[:, heavy] - positions[:, heavy].mean(axis=1, keepdims=True),
            topology.subset(heavy),
            time=frame_time * np.arange(len(positions)),
        )
        if number == 1:
            path = output / "topology.pdb"
            frames[0].save_pdb(path)
            facts.append((path, "frames = 1", positions_hash(mdtraj.load(path).xyz)))
        path = output / f"run-{number}.xtc"
        frames.save_xtc(path)
        facts.append((path, f"frames = {len(positions)}", positions_hash(mdtraj.load(path, top=frames.topology).xyz)))
    _write_card(card, output, facts)


def write_tables(
    output: Path, columns: Sequence[str], parts: Mapping[str, Sequence[Sequence[str | float]]], card: Path
) -> None:
    """Write tables of strings and numbers, and the card with the facts of the written files.

    Parameters
    ----------
    output : Path
        Folder; made when missing.
    columns : sequence of str
    parts : mapping
        ``{"train": rows, …}``, each row a cell per column; each part becomes ``output/train.csv.xz``. Numbers are
        rounded to 1e-4.
    card : Path
        The card beside the recipe: everything before its first ``[[files]]`` is kept, the rest is written anew.
    """
    output.mkdir(parents=True, exist_ok=True)
    facts = []
    for name, rows in parts.items():
        text = StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        # adding zero makes 0.0 of -0.0
        writer.writerows(
            [cell if isinstance(cell, str) else f"{round(cell, HASH_DECIMALS) + 0.0:.4f}" for cell in row]
            for row in rows
        )
        content = text.getvalue().encode()
        path = output / f"{name}.csv.xz"
        path.write_bytes(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))
        facts.append((path, f"molecules = {len(rows)}", hashlib.sha256(content).hexdigest()))
    _write_card(card, output, facts)


def positions_hash(positions: np.ndarray) -> str:
    """SHA-256 of positions (n_frames, n_atoms, 3) in nm, rounded to 1e-4 nm: XTC files have a decimal less."""
    scaled = np.round(np.asarray(positions, dtype=np.float64) * 10**HASH_DECIMALS)
    return hashlib.sha256(scaled.astype("<i8").tobytes()).hexdigest()


def _write_card(card: Path, output: Path, facts: Sequence[tuple[Path, str, str]]) -> None:
    text = card.read_text(encoding="utf-8").split("[[files]]")[0].rstrip() + "\n"
    for path, count, values in facts:
        content = path.read_bytes()
        text += (
            f'\n[[files]]\nname = "{path.name}"\n{count}\nbytes = {len(content)}\n'
            f'sha256 = "{hashlib.sha256(content).hexdigest()}"\nvalues_sha256 = "{values}"\n'
        )
    (output / "card.toml").write_text(text, encoding="utf-8")
