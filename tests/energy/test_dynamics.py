"""Molecular dynamics in one call."""

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator as AseCalculator

from molml.energy.calculator import Calculator
from molml.energy.dynamics import run_dynamics


@pytest.fixture
def argon(lennard_jones):
    atoms = bulk("Ar", "fcc", 5.3, cubic=True).repeat(2)
    atoms.calc = Calculator(lennard_jones(), on_extrapolation="ignore")
    return atoms


class Exploding(AseCalculator):
    """Pushes every atom outwards, harder the further it is."""

    implemented_properties = ["energy", "forces"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": -0.5 * float((atoms.positions**2).sum()), "forces": 1.0 * atoms.positions}


def test_nve_conserves_the_energy(argon):
    result = run_dynamics(argon, temperature=40, steps=400, timestep=2.0, ensemble="nve")
    assert len(result.time) == 41
    assert result.time[-1] == 800.0
    assert np.ptp(result.total_energy) < 1e-4 * len(argon)
    assert abs(result.drift) < 0.1
    # the control: kinetic and potential energy do move
    assert np.ptp(result.potential_energy) > 10 * np.ptp(result.total_energy)


def test_nvt_reaches_the_temperature(argon):
    result = run_dynamics(argon, temperature=50, steps=1500, timestep=4.0, interval=5)
    # 96 degrees of freedom fluctuate by 14 %; 120 correlated samples after the first 2 ps
    assert np.mean(result.temperature[100:]) == pytest.approx(50, rel=0.15)


def test_the_centre_of_mass_starts_at_rest_and_given_velocities_stay(argon):
    run_dynamics(argon, temperature=40, steps=0)
    np.testing.assert_allclose(argon.get_momenta().sum(axis=0), 0, atol=1e-10)
    momenta = argon.get_momenta()
    run_dynamics(argon, temperature=300, steps=0)
    np.testing.assert_array_equal(argon.get_momenta(), momenta)


def test_the_same_seed_gives_the_same_path(argon):
    ends = []
    for seed in (1, 1, 2):
        atoms = argon.copy()
        atoms.calc = argon.calc
        run_dynamics(atoms, temperature=40, steps=20, timestep=2.0, seed=seed)
        ends.append(atoms.positions)
    np.testing.assert_array_equal(ends[0], ends[1])
    assert np.abs(ends[0] - ends[2]).max() > 1e-3


def test_frames_are_written_with_energies_and_forces(argon, tmp_path):
    rows = []
    result = run_dynamics(
        argon, temperature=40, steps=20, timestep=2.0, output=tmp_path / "t.xyz", report=lambda *row: rows.append(row)
    )
    frames = ase.io.read(tmp_path / "t.xyz", ":")
    np.testing.assert_allclose([frame.get_potential_energy() for frame in frames], result.potential_energy, atol=1e-7)
    np.testing.assert_allclose(frames[-1].get_forces(), argon.get_forces(), atol=1e-7)
    assert [row[0] for row in rows] == [0.0, 20.0, 40.0]


def test_an_explosion_stops_and_keeps_the_frames_before(tmp_path):
    atoms = Atoms("H2", [[0, 0, 1.0], [0, 0, -1.0]], calculator=Exploding())
    with pytest.raises(ArithmeticError, match=r"blew up after .* fs.*shorter time step"):
        run_dynamics(atoms, temperature=10, steps=1000, output=tmp_path / "t.xyz", interval=1)
    assert len(ase.io.read(tmp_path / "t.xyz", ":")) >= 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature must be"),
        ({"temperature": float("nan")}, "temperature must be"),
        ({"steps": -1}, "steps must be"),
        ({"timestep": 0.0}, "timestep must be a positive time in fs"),
        ({"interval": 0}, "interval must be at least 1"),
        ({"ensemble": "npt"}, '"nve" or "nvt", got \'npt\''),
    ],
)
def test_options_are_checked(argon, options, message):
    with pytest.raises(ValueError, match=message):
        run_dynamics(argon, **options)


def test_a_calculator_is_needed():
    with pytest.raises(ValueError, match="must have a calculator"):
        run_dynamics(Atoms("Ar"))


def test_nothing_is_overwritten(argon, tmp_path):
    (tmp_path / "t.xyz").write_text("precious")
    with pytest.raises(ValueError, match="exists already"):
        run_dynamics(argon, output=tmp_path / "t.xyz")
    assert (tmp_path / "t.xyz").read_text() == "precious"


def test_it_ends_where_it_is_told_to(argon):
    times = []

    def enough(atoms):
        assert atoms is argon
        times.append(len(times))
        return len(times) == 3

    result = run_dynamics(argon, temperature=40, steps=100, timestep=2.0, interval=5, until=enough)
    np.testing.assert_array_equal(result.time, [0.0, 10.0, 20.0])
