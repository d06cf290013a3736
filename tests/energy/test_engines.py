"""Potentials in OpenMM, i-PI and LAMMPS, against the ASE calculator."""

import os
import socket
import struct
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.socketio import SocketIOCalculator
from ase.units import bar

from molml.cli import main
from molml.energy.calculator import Calculator
from molml.energy.engines import LAMMPS_UNITS, attach_lammps, drive_ipi, openmm_force
from molml.energy.extrapolation import ExtrapolationWarning
from molml.energy.features import G2, SymmetryFunctions
from molml.energy.model import FeatureStatistics, LinearPotential
from molml.units import KCAL_PER_MOL, KJ_PER_MOL


def crystal(seed: int = 0, *, noise: float = 0.2, repeat: int = 2, symbols: str = "Ar") -> Atoms:
    atoms = bulk("Ar", "fcc", 5.3, cubic=True).repeat(repeat)
    atoms.symbols[:] = np.random.default_rng(seed).choice(symbols.split(), len(atoms))
    atoms.rattle(noise, seed=seed)
    return atoms


def triclinic(seed: int = 0) -> Atoms:
    """With a cell as OpenMM and LAMMPS want it: the first vector along x, the second in the xy plane."""
    atoms = crystal(seed, symbols="Ar Kr")
    atoms.set_cell([[10.4, 0, 0], [1.1, 10.7, 0], [-0.7, 1.5, 10.9]], scale_atoms=True)
    return atoms


def cluster(seed: int = 0) -> Atoms:
    atoms = crystal(seed, repeat=1, symbols="Ar Kr")
    atoms.pbc, atoms.cell = False, np.zeros((3, 3))
    return atoms


KINDS = {"crystal": crystal, "triclinic": triclinic, "cluster": cluster}


@pytest.fixture(scope="module")
def potential() -> LinearPotential:
    """Every neighbour costs an energy that falls with its distance and depends on both elements."""
    symbols = ("Ar", "Kr")
    functions = SymmetryFunctions({s: [G2(t, 0.1, 0.0) for t in symbols] for s in symbols}, cutoff=6.0)
    ones = [torch.ones(2, dtype=torch.float64)] * 2
    statistics = FeatureStatistics([0 * x for x in ones], ones, [0 * x for x in ones], [100 * x for x in ones])
    coefficients = [torch.tensor(row, dtype=torch.float64) for row in ([0.4, 0.9], [0.9, 0.2])]
    return LinearPotential(functions, coefficients, [-1.0, -2.0], statistics)


@pytest.fixture
def known(potential):
    """Function of atoms: energy (eV), forces (eV/Å) and virial (eV) by the ASE calculator."""

    def calculate(atoms: Atoms) -> tuple[float, np.ndarray, np.ndarray]:
        calculator = Calculator(potential)
        calculator.calculate(atoms, ["virial"])
        return tuple(calculator.results[name] for name in ("energy", "forces", "virial"))

    return calculate


# ---- OpenMM ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def openmm():
    return pytest.importorskip("openmm", reason="openmm is not installed")


def context_of(openmm, force, atoms: Atoms, *, timestep: float = 0.002, extra: int = 0):
    system = openmm.System()
    for mass in [*atoms.get_masses(), *[1.0] * extra]:
        system.addParticle(mass)
    if atoms.pbc.all():
        system.setDefaultPeriodicBoxVectors(*(atoms.cell.array / 10))
    system.addForce(force)
    integrator = openmm.VerletIntegrator(timestep)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(np.concatenate([atoms.positions, np.full((extra, 3), 50.0)]) / 10)
    return context


def in_ev(context) -> tuple[float, np.ndarray]:
    state = context.getState(energy=True, forces=True)
    forces = state.getForces(asNumpy=True)._value * KJ_PER_MOL / 10
    return state.getPotentialEnergy()._value * KJ_PER_MOL, forces


@pytest.mark.parametrize("kind", KINDS)
def test_openmm_has_energy_and_forces_of_ase(kind, openmm, potential, known):
    atoms = KINDS[kind]()
    force = openmm_force(potential, atoms)
    assert force.usesPeriodicBoundaryConditions() == atoms.pbc.all()
    context = context_of(openmm, force, atoms)
    for seed in range(3):
        atoms.rattle(0.05, seed=seed)
        context.setPositions(atoms.positions / 10)
        energy, forces = in_ev(context)
        expected_energy, expected, _ = known(atoms)
        assert energy == pytest.approx(expected_energy, rel=1e-12)
        np.testing.assert_allclose(forces, expected, atol=1e-12)


def test_openmm_takes_the_box_of_the_simulation(openmm, potential, known):
    atoms = triclinic()
    context = context_of(openmm, openmm_force(potential, atoms), atoms)
    before = in_ev(context)[0]
    # as a barostat does
    atoms.set_cell(atoms.cell.array * 1.02, scale_atoms=True)
    context.setPeriodicBoxVectors(*(atoms.cell.array / 10))
    context.setPositions(atoms.positions / 10)
    energy, forces = in_ev(context)
    expected_energy, expected, _ = known(atoms)
    assert energy == pytest.approx(expected_energy, rel=1e-12)
    np.testing.assert_allclose(forces, expected, atol=1e-12)
    assert abs(energy - before) > 0.01


def test_openmm_conserves_the_energy(openmm, potential):
    atoms = crystal(noise=0.02)
    # 2 fs
    context = context_of(openmm, openmm_force(potential, atoms), atoms)
    context.setVelocitiesToTemperature(80.0, 1)
    energies = []
    for _ in range(20):
        context.getIntegrator().step(10)
        state = context.getState(energy=True)
        energies.append([state.getPotentialEnergy()._value, state.getKineticEnergy()._value])
    energies = np.array(energies) * KJ_PER_MOL / len(atoms)
    assert np.ptp(energies.sum(axis=1)) < 1e-5
    # control: there is something to conserve
    assert np.ptp(energies[:, 0]) > 1e-3


def test_openmm_pushes_only_the_particles_it_is_told(openmm, potential, known):
    atoms, n = cluster(), 40
    particles = np.random.default_rng(0).permutation(n)[: len(atoms)]
    whole = np.random.default_rng(1).uniform(30, 60, (n, 3))
    whole[particles] = atoms.positions
    all_atoms = Atoms(f"He{n}", whole)
    force = openmm_force(potential, atoms, particles=particles)
    energy, forces = in_ev(context_of(openmm, force, all_atoms))
    expected_energy, expected, _ = known(atoms)
    assert energy == pytest.approx(expected_energy, rel=1e-12)
    np.testing.assert_allclose(forces[particles], expected, atol=1e-12)
    assert not np.delete(forces, particles, axis=0).any()
    # control: in another order elements are confused
    force = openmm_force(potential, atoms, particles=np.sort(particles))
    assert np.abs(in_ev(context_of(openmm, force, all_atoms))[1][particles] - expected).max() > 1e-3


def test_openmm_force_can_be_stored(openmm, potential):
    atoms = crystal()
    text = openmm.XmlSerializer.serialize(openmm_force(potential, atoms))
    found = in_ev(context_of(openmm, openmm.XmlSerializer.deserialize(text), atoms))
    calculator = Calculator(potential)
    assert found[0] == pytest.approx(calculator.get_potential_energy(atoms), rel=1e-12)
    np.testing.assert_allclose(found[1], calculator.get_forces(atoms), atol=1e-12)


@pytest.mark.usefixtures("openmm")
def test_openmm_force_of_something_else_is_refused(potential):
    with pytest.raises(ValueError, match=r"trained on \(Ar, Kr\), got Xe \(atom 1\)"):
        openmm_force(potential, Atoms("ArXe", [[0, 0, 0], [0, 0, 4]]))
    atoms = crystal()
    atoms.pbc = [True, True, False]
    with pytest.raises(ValueError, match=r"all three directions or in none.*got pbc=\[True, True, False\].*6 Å empty"):
        openmm_force(potential, atoms)
    dimer = Atoms("Ar2", [[0, 0, 0], [0, 0, 4]])
    for particles in ([0], [0.0, 1.0], [-1, 0], [[0, 1]]):
        with pytest.raises(ValueError, match="particles must be the number, from 0, of each of the 2 atoms, got"):
            openmm_force(potential, dimer, particles=particles)
    with pytest.raises(ValueError, match="particles must all be different"):
        openmm_force(potential, dimer, particles=[1, 1])
    with pytest.raises(ValueError, match="'shout'"):
        openmm_force(potential, dimer, on_extrapolation="shout")


def test_openmm_says_what_is_wrong_in_a_run(openmm, lennard_jones):
    dimer = Atoms("Ar2", [[0, 0, 0], [0, 0, 2.8]])
    force = openmm_force(lennard_jones(), dimer)
    with pytest.raises(openmm.OpenMMException, match="particles must be told: the force is of 2 atoms, .* has 3"):
        in_ev(context_of(openmm, force, dimer, extra=1))
    force = openmm_force(lennard_jones(closest=3.0), dimer, on_extrapolation="raise")
    with pytest.raises(openmm.OpenMMException, match=r"atom 0 \(Ar\), function nearest = 2.8 lies"):
        in_ev(context_of(openmm, force, dimer))
    context = context_of(openmm, openmm_force(lennard_jones(closest=3.0), dimer), dimer)
    with pytest.warns(ExtrapolationWarning, match="nearest = 2.8 lies"):
        in_ev(context)


@pytest.mark.parametrize("old", [None, types.ModuleType("openmm")])
def test_missing_or_old_openmm_is_named(old, potential, monkeypatch):
    monkeypatch.setitem(sys.modules, "openmm", old)
    with pytest.raises(ModuleNotFoundError, match=r"openmm_force needs OpenMM with PythonForce \(8\.5 or later\)"):
        openmm_force(potential, crystal())


# ---- i-PI ------------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("", 0))
        return found.getsockname()[1]


WHERE = {"unix": lambda: {"unix": f"molml_test_{os.getpid()}"}, "inet": lambda: {"port": free_port()}}


class Server(threading.Thread):
    """ASE's server of the protocol, which asks for frames and goes."""

    def __init__(self, frames: list[Atoms], *, port: int | None = None, unix: str | None = None) -> None:
        super().__init__(daemon=True)
        self.calculator = SocketIOCalculator(port=port, unixsocket=unix, timeout=60)
        self.frames, self.results = frames, []
        self.start()

    def run(self) -> None:
        with self.calculator:
            for atoms in self.frames:
                self.calculator.calculate(atoms, ["energy"], ["positions"])
                self.results.append(dict(self.calculator.results))


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("kind", ["crystal", "triclinic"])
def test_ipi_gets_energy_forces_and_stress(where, kind, potential):
    frames = [KINDS[kind]() for _ in range(3)]
    for k, atoms in enumerate(frames):
        atoms.set_cell(atoms.cell.array * (1 + 0.01 * k), scale_atoms=True)
    place = WHERE[where]()
    server = Server(frames, **place)
    calculator = drive_ipi(potential, frames[0], **place)
    server.join()
    assert calculator.n_calculations == len(server.results) == 3
    for atoms, found in zip(frames, server.results, strict=True):
        atoms.calc = Calculator(potential)
        # to bohr and hartree and back
        assert found["energy"] == pytest.approx(atoms.get_potential_energy(), rel=1e-12)
        np.testing.assert_allclose(found["forces"], atoms.get_forces(), atol=1e-12)
        np.testing.assert_allclose(found["stress"], atoms.get_stress(), atol=1e-13)
        assert np.ptp(found["stress"][3:]) > 1e-6


def test_virial_of_any_periodicity_is_the_derivative_by_strain(potential):
    calculator = Calculator(potential)
    for pbc in (False, [True, False, True], True):
        atoms = triclinic()
        atoms.pbc = pbc
        calculator.calculate(atoms, ["virial"])
        virial = calculator.results["virial"]
        for i, j in ((0, 0), (2, 2), (0, 1), (2, 1)):
            energies = []
            for sign in (1, -1):
                strain = np.eye(3)
                strain[i, j] += sign * 1e-5
                strained = atoms.copy()
                strained.set_cell(atoms.cell.array @ strain, scale_atoms=False)
                strained.positions = atoms.positions @ strain
                energies.append(calculator.get_potential_energy(strained))
            assert virial[i, j] == pytest.approx((energies[1] - energies[0]) / 2e-5, abs=1e-7)
        # ASE's properties do not know it
        assert "virial" not in calculator.export_properties()


def test_drive_is_a_command(potential, tmp_path, capsys):
    atoms = crystal(noise=0.05)
    potential.save(tmp_path / "m.molml")
    ase.io.write(tmp_path / "start.xyz", atoms)
    port = free_port()
    server = Server([atoms, crystal(1, noise=0.05)], port=port)
    line = ["energy", "drive", str(tmp_path / "m.molml"), str(tmp_path / "start.xyz"), "--address", "127.0.0.1"]
    assert main([*line, "--port", str(port)]) == 0
    server.join()
    assert server.results[0]["energy"] == pytest.approx(Calculator(potential).get_potential_energy(atoms))
    output = capsys.readouterr().out
    assert "32 atoms, Ar32, periodic along a b c" in output
    assert "2 calculations, then the server closed the connection\nno atom left the range" in output
    # nobody is there any more
    assert main([*line, "--port", str(port)]) == 1
    error = capsys.readouterr().err
    assert f"no server listens at 127.0.0.1, port {port} (Connection refused); start i-pi first" in error
    assert error.count("\n") == 1
    assert main([*line, "--unix", "molml_nobody"]) == 1
    assert "no server listens at /tmp/ipi_molml_nobody (No such file or directory)" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*line, "--unix", "molml_nobody", "--port", "31415"])


def test_driver_is_told_where(potential):
    for port in (0, 65536, 31415.0):
        with pytest.raises(ValueError, match=f"port must be a number from 1 to 65535, got {port}"):
            drive_ipi(potential, crystal(), port=port)
    for name in ("", "/tmp/ipi_name"):
        with pytest.raises(ValueError, match=f"unix must be the name of a socket, .* got '{name}'"):
            drive_ipi(potential, crystal(), unix=name)
    with pytest.raises(ValueError, match=r"trained on \(Ar, Kr\), got Xe \(atom 0\)"):
        drive_ipi(potential, Atoms("Xe"))


def posdata(n_atoms: int, x: float = 1.0) -> bytes:
    return (
        b"POSDATA     "
        + struct.pack("=18di", *np.eye(3).ravel(), *np.eye(3).ravel(), n_atoms)
        + struct.pack(f"={3 * n_atoms}d", *[x] * 3 * n_atoms)
    )


@pytest.mark.parametrize(
    ("message", "error", "words"),
    [
        (posdata(1), ValueError, "the structure must have the atoms of the server, got 4 where it has 1"),
        (posdata(5), ValueError, "the structure must have the atoms of the server, got 4 where it has 5"),
        (posdata(4, np.nan), ValueError, "the server must send finite positions and cells"),
        (posdata(4)[:-1], ConnectionError, "broke off in the middle of a message, after 0 calculations"),
        (b"GET / HTTP/1", ValueError, "the server at localhost, port .* must speak i-PI's protocol, got .*GET / HTTP"),
        (b"GETFORCE    ", ValueError, "must speak i-PI's protocol, got AssertionError"),
    ],
)
def test_what_servers_do_wrong_is_named(message, error, words, potential):
    with socket.create_server(("localhost", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(message)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(error, match=words):
            drive_ipi(potential, crystal(repeat=1), port=listening.getsockname()[1])
        thread.join()


IPI_INPUT = """
<simulation verbosity='quiet' safe_stride='1000'>
  <output prefix='run'>
    <properties stride='1' filename='out'>[step, conserved{{electronvolt}}, potential{{electronvolt}},
      virial_md{{ase}}]</properties>
    <trajectory filename='pos' stride='1' format='xyz' cell_units='angstrom'>positions{{angstrom}}</trajectory>
  </output>
  <total_steps>10</total_steps>
  <prng><seed>1</seed></prng>
  <ffsocket name='molml' mode='unix' pbc='False'><address>{name}</address></ffsocket>
  <system>
    <initialize nbeads='1'>
      <file mode='ase'>start.extxyz</file>
      <velocities mode='thermal' units='kelvin'>80</velocities>
    </initialize>
    <forces><force forcefield='molml'/></forces>
    <motion mode='dynamics'><dynamics mode='nve'><timestep units='femtosecond'>1</timestep></dynamics></motion>
    <ensemble><temperature units='kelvin'>80</temperature></ensemble>
  </system>
</simulation>
"""


def test_ipi_itself(tmp_path, potential, known):
    pytest.importorskip("ipi", reason="ipi is not installed")
    name = f"molml_{os.getpid()}"
    ase.io.write(tmp_path / "start.extxyz", triclinic())
    (tmp_path / "input.xml").write_text(IPI_INPUT.format(name=name))
    script = Path(sys.executable).parent / "i-pi"
    with subprocess.Popen([sys.executable, script, "input.xml"], cwd=tmp_path) as process:
        while not os.path.exists(f"/tmp/ipi_{name}") and process.poll() is None:
            time.sleep(0.1)
        drive_ipi(potential, triclinic(), unix=name)
    assert process.returncode == 0
    rows = np.loadtxt(tmp_path / "run.out")
    energy, _, virial = known(triclinic())
    # i-PI has the constants of CODATA 2010
    assert rows[0, 2] == pytest.approx(energy, rel=1e-7)
    stress = virial.reshape(9)[[0, 4, 8, 1, 2, 5]] / triclinic().get_volume()
    np.testing.assert_allclose(rows[0, 3:], stress, rtol=1e-6, atol=1e-9)
    assert np.ptp(rows[:, 1]) < 1e-6
    assert np.ptp(rows[:, 2]) > 1e-3


# ---- LAMMPS ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def new_lammps():
    """Function (atoms, units, velocities) -> a LAMMPS instance with these atoms, types in the order Kr, Ar."""
    lammps = pytest.importorskip("lammps", reason="lammps is not installed")
    pytest.importorskip("mpi4py.MPI", reason="mpi4py is not installed, by which LAMMPS finds an MPI library")
    opened = []

    def make(atoms: Atoms, *, units: str = "metal"):
        lmp = lammps.lammps(cmdargs=["-log", "none", "-screen", "none"])
        opened.append(lmp)
        length = 1 / LAMMPS_UNITS[units][1]
        free = [not periodic for periodic in atoms.pbc]
        # a box beyond the atoms where there is no cell
        cell = (atoms.cell.array if atoms.pbc.all() else np.diag([20.0] * 3)) * length
        prism = f"{cell[0, 0]} 0 {cell[1, 1]} 0 {cell[2, 2]} {cell[1, 0]} {cell[2, 0]} {cell[2, 1]}"
        lines = f"""units {units}
            atom_modify map array sort 5 2.0
            boundary {" ".join("f" if each else "p" for each in free)}
            region box prism 0 {prism}
            create_box 2 box
            mass 1 83.798
            mass 2 39.948
            pair_style zero {6.0 * length}
            pair_coeff * *
            thermo_modify norm no"""
        lmp.commands_list([line.strip() for line in lines.splitlines()])
        positions = atoms.positions if atoms.pbc.all() else atoms.positions + 5.0
        types = [1 if symbol == "Kr" else 2 for symbol in atoms.symbols]
        lmp.create_atoms(len(atoms), list(range(1, len(atoms) + 1)), types, list((positions * length).ravel()))
        return lmp

    yield make
    for lmp in opened:
        lmp.close()


def in_order(lmp, name: str) -> np.ndarray:
    """A property of all atoms, in the order of their numbers."""
    n = lmp.get_natoms()
    return lmp.numpy.extract_atom(name)[:n][np.argsort(lmp.numpy.extract_atom("id")[:n])]


PRESSURE = ("pxx", "pyy", "pzz", "pxy", "pxz", "pyz")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("units", LAMMPS_UNITS)
def test_lammps_has_energy_forces_and_pressure_of_ase(kind, units, potential, known, new_lammps):
    atoms = KINDS[kind]()
    lmp = new_lammps(atoms, units=units)
    attach_lammps(lmp, potential, ["Kr", "Ar"])
    lmp.command("compute energies all pe/atom")
    lmp.command("thermo_style custom step pe press")
    lmp.command("run 0")
    energy, forces, virial = known(atoms)
    energy_unit, length_unit = LAMMPS_UNITS[units]
    assert lmp.get_thermo("pe") * energy_unit == pytest.approx(energy, rel=1e-12)
    np.testing.assert_allclose(in_order(lmp, "f") * energy_unit / length_unit, forces, atol=1e-12)
    volume = abs(np.linalg.det(atoms.cell.array)) if atoms.pbc.all() else 20.0**3
    pressure = {"metal": bar, "real": 1.01325 * bar, "electron": 1e-5 * bar}[units]
    found = np.array([lmp.get_thermo(name) for name in PRESSURE]) * pressure
    # LAMMPS' constants have five digits in some units
    np.testing.assert_allclose(found, virial.reshape(9)[[0, 4, 8, 1, 2, 5]] / volume, rtol=1e-4, atol=1e-9)
    energies = lmp.numpy.extract_compute("energies", 1, 1)[: len(atoms)]
    assert energies.sum() * energy_unit == pytest.approx(energy, rel=1e-12)
    # control: types in another order
    attach_lammps(lmp, potential, ["Ar", "Kr"])
    lmp.command("run 0")
    assert abs(lmp.get_thermo("pe") * energy_unit - energy) > 0.1


def test_lammps_conserves_the_energy(potential, new_lammps):
    atoms = crystal(noise=0.02, symbols="Ar Kr")
    lmp = new_lammps(atoms)
    attach_lammps(lmp, potential, ["Kr", "Ar"])
    lmp.commands_list(["velocity all create 300 1", "fix nve all nve", "timestep 0.002", "thermo 10", "run 0"])
    start, energies = in_order(lmp, "x").copy(), []
    for _ in range(20):
        lmp.command("run 10 pre no")
        energies.append([lmp.get_thermo("pe"), lmp.get_thermo("etotal")])
    energies = np.array(energies) / len(atoms)
    assert np.ptp(energies[:, 1]) < 2e-5
    assert np.ptp(energies[:, 0]) > 1e-3
    # controls: LAMMPS has reordered the atoms, and some have left the box on one side and come back on the other
    assert (np.diff(lmp.numpy.extract_atom("id")[: len(atoms)]) < 0).any()
    assert np.abs(in_order(lmp, "x") - start).max() > 5.0


def test_lammps_relaxes_atoms_and_box(potential, new_lammps):
    lmp = new_lammps(crystal())
    attach_lammps(lmp, potential, ["Kr", "Ar"])
    lmp.commands_list(
        ["fix box all box/relax iso 50000 vmax 0.01", "min_modify line quadratic", "minimize 0 1e-4 200 2000"]
    )
    assert lmp.get_thermo("press") == pytest.approx(50000, rel=1e-2)
    assert np.abs(in_order(lmp, "f")).max() < 1e-3


def test_lammps_stops_with_the_error_of_a_step(lennard_jones, potential, new_lammps):
    lmp = new_lammps(Atoms("Ar2", [[0, 0, 0], [0, 0, 4.0]]))
    attach_lammps(lmp, lennard_jones(closest=3.0), ["Ar", "Ar"], on_extrapolation="raise")
    lmp.commands_list(
        ["velocity all set 0 0 0", "fix nve all nve", "run 2", "group two id 2", "velocity two set 0 0 -15"]
    )
    with pytest.raises(
        Exception, match=r"molml failed in step \d+: ExtrapolationError: .*\(Ar\), function nearest = 2.9"
    ):
        # 15 Å/ps × 0.5 ps
        lmp.command("run 500")
    assert 60 < lmp.extract_global("ntimestep") < 100
    # nothing goes on by itself, and the atoms are not lost
    lmp.commands_list(["displace_atoms two move 0 0 1", "velocity all set 0 0 0", "timer timeout off", "run 5"])
    assert 65 < lmp.extract_global("ntimestep") < 105


# What follows needs no LAMMPS.


class Library:
    """The functions of a LAMMPS instance that are called, with two atoms in a box of 10 Å."""

    def __init__(self, **settings) -> None:
        self.settings = {"world_size": 1, "box_exist": 1, "ntypes": 2, "units": "metal"} | settings
        self.commands, self.set, self.stopped = [], {}, False
        self.lmp = self.lib = self.numpy = self
        self.types = np.array([2, 1])

    def extract_setting(self, name):
        return self.settings[name]

    extract_global = extract_setting

    def extract_atom(self, name):
        return {"type": self.types}[name]

    def extract_box(self):
        return [0.0, 0.0, 0.0], [10.0, 10.0, 10.0], 0.0, 0.0, 0.0, [1, 1, 1], 0

    def command(self, line):
        self.commands.append(line)

    def set_fix_external_callback(self, fix, callback):
        self.callback = callback

    def fix_external_set_energy_global(self, fix, value):
        self.set[fix, "energy"] = value

    def fix_external_set_energy_peratom(self, fix, value):
        self.set[fix, "energies"] = value

    def fix_external_set_virial_global(self, fix, value):
        self.set[fix, "virial"] = value

    def lammps_fix_external_set_energy_global(self, lmp, fix, value):
        self.error = fix.decode()

    def force_timeout(self):
        self.stopped = True


def test_fix_external_gets_what_it_needs(potential, known):
    library = Library(units="real")
    attach_lammps(library, potential, ["Kr", "Ar"], fix="mine")
    assert library.commands == ["fix mine all external pf/callback 1 1", "fix_modify mine energy yes virial yes"]
    positions, forces = np.array([[0.0, 0.0, 0.5], [1.0, 2.0, 8.0]]), np.zeros((2, 3))
    # the first of LAMMPS' atoms is number 2 and argon
    library.callback(None, 0, 2, np.array([2, 1], dtype=np.int32), positions, forces)
    energy, expected, virial = known(Atoms("ArKr", positions, cell=[10, 10, 10], pbc=True))
    assert library.set["mine", "energy"] == pytest.approx(energy / KCAL_PER_MOL, rel=1e-13)
    np.testing.assert_allclose(forces, expected / KCAL_PER_MOL, rtol=1e-12)
    assert sum(library.set["mine", "energies"]) == pytest.approx(energy / KCAL_PER_MOL, rel=1e-13)
    assert library.set["mine", "energies"][0] > library.set["mine", "energies"][1]
    np.testing.assert_allclose(library.set["mine", "virial"][3], virial[0, 1] / KCAL_PER_MOL, rtol=1e-12)
    assert not library.stopped
    positions[0] = np.nan
    library.callback(None, 7, 2, np.array([2, 1], dtype=np.int32), positions, forces)
    assert library.error.startswith("mine failed in step 7: ValueError: positions must be finite")
    assert library.stopped and np.isnan(forces).all()


@pytest.mark.parametrize(
    ("settings", "elements", "message"),
    [
        ({"world_size": 4}, ["Kr", "Ar"], "must run in one process, .* got 4; .*pair_style hdnnp"),
        ({"box_exist": 0}, ["Kr", "Ar"], "lmp must have a box"),
        ({"units": "lj"}, ["Kr", "Ar"], "units of LAMMPS must be metal, real, electron, got lj"),
        ({}, ["Ar"], r"elements must be a list of symbols, one for each of 2 atom types, got \['Ar'\]"),
        ({}, "Ar", "elements must be a list of symbols, one for each of 2 atom types, got 'Ar'"),
        ({}, ["Kr", "argon"], "elements must be chemical symbols, got 'argon'"),
        ({}, ["Kr", "Xe"], r"trained on \(Ar, Kr\), got Xe"),
    ],
)
def test_what_cannot_be_attached_is_refused(settings, elements, message, potential):
    library = Library(**settings)
    with pytest.raises(ValueError, match=message):
        attach_lammps(library, potential, elements)
    assert not library.commands


def test_something_else_than_lammps_is_refused(potential):
    with pytest.raises(TypeError, match=r"lmp must be a lammps\.lammps, got str"):
        attach_lammps("in.melt", potential, ["Kr", "Ar"])
