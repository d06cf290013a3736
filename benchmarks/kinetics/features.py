"""Torsions, distances, superposition and reading of 100,000 frames: CPU seconds, beside mdtraj in the same run.

    python benchmarks/kinetics/features.py

One thread. A time is the least of several rounds, in which each library has its turn. Features are timed as users call
them, on an mdtraj.Trajectory. Reading is that of an XTC file of ten atoms; the time of the reading process is included.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy is imported

import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import mdtraj
import numpy as np

from molml.kinetics.alignment import align
from molml.kinetics.features import Distances, Torsions
from molml.kinetics.reading import inspect_file, read_frames

N_FRAMES, ROUNDS = 100_000, 5


def trajectory(n_atoms: int) -> mdtraj.Trajectory:
    """A chain of atoms whose shape changes from frame to frame."""
    topology = mdtraj.Topology()
    residue = topology.add_residue("LIG", topology.add_chain())
    for i in range(n_atoms):
        topology.add_atom(f"C{i}", mdtraj.element.carbon, residue)
    rng = np.random.default_rng(0)
    start = np.cumsum(rng.normal(scale=0.1, size=(n_atoms, 3)), axis=0)
    noise = rng.standard_normal((N_FRAMES, n_atoms, 3), dtype=np.float32)
    return mdtraj.Trajectory(start.astype(np.float32) + np.float32(0.03) * noise, topology)


def seconds(work: Callable[[], object]) -> float:
    """CPU time of this process, and of those that it started and that have ended."""
    before = _used()
    work()
    return _used() - before


def _used() -> float:
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def compare(name: str, ours: Callable[[], object], theirs: Callable[[], object]) -> None:
    """Print the least times of both, and their ratio."""
    ours()  # compiled
    times = [(seconds(ours), seconds(theirs)) for _ in range(ROUNDS)]
    best, peer = (min(column) for column in zip(*times, strict=True))
    print(f"{name:<48} molml {best:7.4f} s   mdtraj {peer:7.4f} s   mdtraj / molml {peer / best:5.2f}", flush=True)


def read_all(path: Path, topology: mdtraj.Topology) -> None:
    file = inspect_file(path, topology)
    for _ in read_frames(file, 0, file.n_frames, n_frames=10_000):
        pass


def reading(folder: Path, frames: mdtraj.Trajectory) -> None:
    """Wall time, because two processes share the work; the process that reads has been started."""
    path = folder / "frames.xtc"
    frames.save_xtc(str(path))

    def wall(work: Callable[[], object]) -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    def theirs() -> None:
        for _ in mdtraj.iterload(str(path), top=frames.topology, chunk=10_000):
            pass

    started = wall(lambda: read_all(path, frames.topology))
    times = [(wall(lambda: read_all(path, frames.topology)), wall(theirs)) for _ in range(ROUNDS)]
    best, peer = (min(column) for column in zip(*times, strict=True))
    print(
        f"{'reading XTC in a process of its own, wall time':<48} molml {best:7.4f} s   mdtraj {peer:7.4f} s   "
        f"mdtraj / molml {peer / best:5.2f}   (first time {started:.2f} s)"
    )


def main() -> None:
    """Measure."""
    chain, ten = trajectory(44), trajectory(10)
    quadruplets = np.arange(41)[:, None] + np.arange(4)
    torsions = Torsions(chain.topology, quadruplets=quadruplets)

    def dihedrals() -> np.ndarray:
        angles = mdtraj.compute_dihedrals(chain, quadruplets)
        return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)

    compare("41 torsions as cosine and sine", lambda: torsions(chain), dihedrals)
    distances = Distances(ten.topology)
    compare("45 distances", lambda: distances(ten), lambda: mdtraj.compute_distances(ten, distances.pairs))
    # superpose changes its trajectory; superposing it again costs the same
    moved = ten[:]
    compare("superposition of 10 atoms", lambda: align(ten, ten), lambda: moved.superpose(ten, parallel=False))
    with tempfile.TemporaryDirectory() as folder:
        reading(Path(folder), ten)


if __name__ == "__main__":
    main()
