import copy

import numpy as np
import pytest
import torch
from ase import Atoms

from molml.energy import Committee, LinearPotential
from molml.energy.data import atoms_to_structures, collate, pair_vectors
from molml.energy.features import G2, G5, FourBody, SymmetryFunctions, ThreeBody
from molml.energy.guard import Guard
from molml.energy.inference import activate
from molml.energy.kernels import neighbourhood
from molml.energy.model import (
    BehlerParrinello,
    FeatureStatistics,
    QuadraticForm,
    forces_and_virial,
    structure_energies,
)
from molml.nn.activations import ACTIVATIONS

CUTOFF = 4.0
SYMBOLS = ("H", "C", "O")


def functions():
    shells = [(1.0, 1.0), (2.0, 2.5)]
    chosen = [G2(symbol, *shell) for symbol in SYMBOLS for shell in shells]
    chosen += [ThreeBody(("H", "C"), (shells[0], shells[1]), degree) for degree in range(3)]
    chosen += [FourBody(("H", "C", "O"), (shells[0], shells[0], shells[1]), (1, 1, 2)), G5(("H", "O"), 0.5, 1.5, 1.0)]
    return SymmetryFunctions(dict.fromkeys(SYMBOLS, chosen), cutoff=CUTOFF)


def statistics(chosen, generator):
    sizes = [chosen.n_functions(symbol) for symbol in SYMBOLS]

    def drawn(low, high):
        return [low + (high - low) * torch.rand(n, generator=generator, dtype=torch.float64) for n in sizes]

    return FeatureStatistics(drawn(-1, 1), drawn(0.1, 2), drawn(-9, -8), drawn(8, 9))


def network(seed=0, **options):
    chosen, generator = functions(), torch.Generator().manual_seed(seed)
    linear = [torch.randn(chosen.n_functions(symbol), generator=generator, dtype=torch.float64) for symbol in SYMBOLS]
    given = statistics(chosen, generator)
    options = {"hidden": (7, 5), "linear": linear, "energy_scale": 0.3, "seed": seed, **options}
    return BehlerParrinello(chosen, given, [-1.0, 2.0, 3.0], **options).eval()


def linear(seed=0):
    chosen, generator = functions(), torch.Generator().manual_seed(seed)
    coefficients = [torch.randn(chosen.n_functions(s), generator=generator, dtype=torch.float64) for s in SYMBOLS]
    return LinearPotential(chosen, coefficients, [-1.0, 2.0, 3.0], statistics(chosen, generator))


def by_autograd(potential, batch):
    """Energies of the atoms and structures, forces and virial by torch."""
    vectors = pair_vectors(batch)
    near = neighbourhood(potential.elements, batch.numbers, batch.first, batch.second, vectors)
    moments = potential.kernel.moments(near)
    inputs = [torch.from_numpy(block).requires_grad_() for block in potential.kernel.values(near, moments)]
    per_atom, energy = structure_energies(batch, near.atoms, potential.atomic_energies(inputs))
    weights = [w.numpy() for w in torch.autograd.grad(energy.sum(), inputs)]
    gradient = torch.from_numpy(potential.kernel.vjp(near, moments, weights))
    return per_atom.detach(), energy.detach(), *forces_and_virial(batch, vectors, gradient)


def check(potential, batch):
    prediction = potential.predict(batch)
    energies, energy, forces, virial = by_autograd(potential, batch)
    torch.testing.assert_close(prediction.energies, energies, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(prediction.energy, energy, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(prediction.forces, forces, rtol=1e-12, atol=1e-12 * float(forces.abs().max()))
    periodic = batch.volume > 0
    stress = virial[periodic] / batch.volume[periodic][:, None, None]
    torch.testing.assert_close(prediction.stress[periodic], stress, rtol=1e-12, atol=1e-12 * float(stress.abs().max()))
    assert not prediction.stress[~periodic].any()


@pytest.fixture
def batch(random_structures):
    return collate([atoms_to_structures(atoms, CUTOFF) for atoms in random_structures(6, closest=0.8)])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_and_its_slope_are_torchs(name):
    x = torch.linspace(-30.0, 30.0, 997, dtype=torch.float64, requires_grad=True)
    y = ACTIVATIONS[name](x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    value, change = x.detach().numpy()[None].copy(), np.empty((1, len(x)))
    activate(value, len(x), list(ACTIVATIONS).index(name), change)
    np.testing.assert_allclose(value[0], y.detach().numpy(), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(change[0], slope.numpy(), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"activation": "tanh"},
        {"activation": "softplus gaussian", "exceptions": {"O": ((4,), "tanh"), "C": ((3, 4, 5), "silu")}},
        {"hidden": ()},
    ],
)
def test_networks_are_those_of_torch(options, batch):
    check(network(**options), batch)


@pytest.mark.parametrize("hidden", [(7, 5), (20, 33), (16,), (3, 40, 17, 2)])
def test_networks_of_many_atoms_are_those_of_torch(hidden):
    # more atoms of an element than go through the layers at once, and no whole multiple of what a product takes
    atoms = Atoms("H75C3O2", np.random.default_rng(0).uniform(0.0, 9.0, (80, 3)), cell=[9, 9, 9], pbc=True)
    check(network(hidden=hidden), atoms_to_structures(atoms, 3.0))


def forms(n, n_functions):
    rng = np.random.default_rng(n)
    return [QuadraticForm(rng.normal(size=(n, n_functions)), rng.normal(size=n)) for _ in SYMBOLS]


@pytest.mark.parametrize("n", [0, 1, 7, 60])
@pytest.mark.parametrize("hidden", [(), (7, 5), (70,)])
def test_quadratic_parts_are_those_of_torch(n, hidden, batch):
    quadratic = forms(n, functions().n_functions("H"))
    check(network(hidden=hidden, quadratic=quadratic), batch)
    if n:
        # a control: the part is there
        plain, other = (network(hidden=hidden, quadratic=own).predict(batch).energy for own in (None, quadratic))
        assert (plain - other).abs().max() > 1e-3
    atoms = Atoms("H75C3O2", np.random.default_rng(0).uniform(0.0, 9.0, (80, 3)), cell=[9, 9, 9], pbc=True)
    check(network(hidden=hidden, quadratic=quadratic), atoms_to_structures(atoms, 3.0))


@pytest.mark.parametrize("n", [0, 7])
@pytest.mark.parametrize("hidden", [(), (7, 5)])
def test_silent_networks_are_left_out(n, hidden, batch):
    potential = network(hidden=hidden, quadratic=forms(n, functions().n_functions("H")))
    assert all(len(own.sizes) == len(hidden) + 2 for own in potential.atom_networks())
    with torch.no_grad():
        for own in potential.networks:
            for parameter in (own.layers[-1].weight, own.layers[-1].bias):
                parameter.zero_()
    assert not any(len(own.sizes) for own in potential.atom_networks())
    check(potential, batch)


def test_linear_potentials_are_those_of_torch(batch):
    check(linear(), batch)


def test_a_guard_is_added(batch):
    potential = network()
    plain = potential.predict(batch)
    potential.guard = Guard({"H-H": (1.5, 1.0), "C-H": (1.4, 2.0), "H-O": (1.6, 1.0)})
    energies, gradient = potential.guard.pair_terms(batch, pair_vectors(batch))
    guarded = potential.predict(batch)
    torch.testing.assert_close(guarded.energies - plain.energies, torch.from_numpy(energies), rtol=1e-9, atol=1e-9)
    forces, _ = forces_and_virial(batch, pair_vectors(batch), torch.from_numpy(gradient))
    assert forces.abs().max() > 0.1
    torch.testing.assert_close(guarded.forces - plain.forces, forces, rtol=1e-9, atol=1e-9)


def test_a_committee_is_the_mean_of_its_members(batch):
    members = [network(seed) for seed in range(3)]
    prediction = Committee(members).predict(batch)
    found = [by_autograd(member, batch) for member in members]
    for name, part in (("energies", 0), ("energy", 1), ("forces", 2)):
        values = torch.stack([one[part] for one in found])
        scale = float(values.abs().max())
        torch.testing.assert_close(getattr(prediction, name), values.mean(0), rtol=1e-12, atol=1e-12 * scale)
    for name, part in (("energy_std", 1), ("forces_std", 2)):
        values = torch.stack([one[part] for one in found])
        torch.testing.assert_close(getattr(prediction, name), values.std(0), rtol=1e-10, atol=1e-10)


def step(potential):
    with torch.no_grad():
        for parameter in potential.parameters():
            parameter += 0.1


def optimise(potential):
    optimiser = torch.optim.Adam([p for p in potential.parameters() if p.requires_grad], lr=0.1)
    for parameter in potential.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()


def load(potential):
    potential.load_state_dict(network(seed=9).state_dict())


def assign(potential):
    potential.load_state_dict(network(seed=9).state_dict(), assign=True)


def move(potential):
    potential.get_buffer("mean_1").add_(0.5)


@pytest.mark.parametrize("change", [step, optimise, load, assign, move])
def test_changed_weights_are_seen(change, batch):
    potential = network()
    before = potential.predict(batch).forces
    change(potential)
    assert not torch.allclose(potential.predict(batch).forces, before, rtol=1e-3)
    check(potential, batch)


def test_a_copy_has_weights_of_its_own(batch):
    potential = network()
    before = potential.predict(batch).forces
    twin = copy.deepcopy(potential)
    step(twin)
    check(twin, batch)
    assert torch.equal(potential.predict(batch).forces, before)


@pytest.mark.parametrize("potential", [linear(), network(), network(hidden=())])
def test_single_atoms_of_an_element(potential):
    # arrays of one row are contiguous even where they are views, which kernels cannot write to
    atoms = Atoms("HCO", [[0, 0, 0], [1.1, 0, 0], [0, 1.3, 0.2]], cell=[7, 8, 9], pbc=True)
    check(potential, atoms_to_structures(atoms, CUTOFF))
