"""The fused kernels against the torch reference and its automatic derivatives."""

import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st

from molml.energy.cutoffs import CUTOFF_FUNCTIONS
from molml.energy.data import Structures, atoms_to_structures, collate, pair_vectors
from molml.energy.features import (
    G1,
    G2,
    G3,
    G4,
    G5,
    Compact,
    CompactAngle,
    FourBody,
    Function,
    SymmetryFunctions,
    ThreeBody,
    reference_features,
)
from molml.energy.kernels import FeatureKernel, Neighbourhood, neighbourhood

CUTOFF = 4.0
MOMENTS: list[Function] = [
    G1("C"),
    G2("H", 1.3, 1.1),
    G2("*", 0.7, 2.0),
    G3("O", 1.7),
    G1("*", 2.3),
    G2("C", 1.3, 1.1, 3.1),
    Compact("H", -3.0, 3.0),
    Compact("*", 0.6, 3.9, "exponential", True),
    G5(("C", "H"), 0.05, 3, -1, 0.4),
    G5(("H", "H"), 0.1, 1, 1),
    G5(("*", "*"), 0.03, 8, -1),
    ThreeBody(("H", "O"), ((0.9, 1.2), (0.3, 2.2)), 3),
    ThreeBody(("*", "C"), ((0.4, 1.0), (0.3, 2.2)), 6),
    FourBody(("H", "C", "O"), ((0.9, 1.2), (0.5, 1.0), (0.3, 0.5)), (1, 2, 3)),
    FourBody(("C", "H", "C"), ((0.9, 1.2), (0.5, 1.0), (0.3, 0.5)), (2, 2, 2)),
]
TRIPLES: list[Function] = [
    G4(("H", "C"), 0.05, 1.0, 1, 0.3),
    G4(("*", "*"), 0.02, 2.5, 1),
    G5(("*", "*"), 0.03, 2.5, -1),
    G5(("C", "C"), 0.03, 16, 1, 0.5),
    G4(("H", "C"), 0.05, 2.0, -1, 0.0, 3.1),
    G5(("O", "O"), 0.03, 2.5, 1, 0.0, 2.3),
    CompactAngle(("H", "C"), -3.0, 3.0, 20.0, 130.0),
    CompactAngle(("C", "C"), -3.0, 3.0, 30.0, 330.0, "polynomial_3", True),
    CompactAngle(("O", "O"), -3.0, 3.0, 30.0, 330.0, "polynomial_7"),
    CompactAngle(("*", "*"), 0.3, 3.8, -150.0, 150.0, "polynomial_9", False, True),
]
# an element with everything, one whose functions are the invariants themselves, one with pairs of neighbours only
FUNCTIONS = {"H": MOMENTS + TRIPLES, "C": [MOMENTS[1], MOMENTS[11], MOMENTS[14]], "O": TRIPLES}


def kernel_of(cutoff_function: str = "polynomial") -> tuple[SymmetryFunctions, FeatureKernel]:
    functions = SymmetryFunctions(FUNCTIONS, cutoff=CUTOFF, cutoff_function=cutoff_function)
    return functions, FeatureKernel(functions)


def near_of(kernel: FeatureKernel, batch: Structures) -> Neighbourhood:
    return neighbourhood(kernel.elements, batch.numbers, batch.first, batch.second, pair_vectors(batch))


def compare(functions: SymmetryFunctions, kernel: FeatureKernel, batch: Structures) -> dict[str, float]:
    """Largest deviations of values and Jacobian products from the reference, relative to the largest number."""
    rng = np.random.default_rng(0)
    near = near_of(kernel, batch)
    vectors = torch.from_numpy(near.pairs.vectors).requires_grad_()
    reference = list(reference_features(functions, batch, vectors).values())
    moments = kernel.moments(near)
    values = kernel.values(near, moments)

    weights = [rng.normal(size=block.shape) for block in values]
    (gradient,) = torch.autograd.grad(
        sum((torch.from_numpy(w) * block).sum() for w, block in zip(weights, reference, strict=True)),
        vectors,
        create_graph=True,
        materialize_grads=True,
    )
    directions = rng.normal(size=near.pairs.vectors.shape)
    changes = kernel.jvp(near, moments, directions)
    vjp = kernel.vjp(near, moments, weights)

    # the gradient is linear in the weights; its derivative by them is the Jacobian-vector product
    ghosts = [torch.from_numpy(w).clone().requires_grad_() for w in weights]
    total = sum((w * block).sum() for w, block in zip(ghosts, reference, strict=True))
    (by_vectors,) = torch.autograd.grad(total, vectors, create_graph=True, materialize_grads=True)
    jvp = torch.autograd.grad(
        (by_vectors * torch.from_numpy(directions)).sum(), ghosts, materialize_grads=True, allow_unused=True
    )

    def off(mine: list[np.ndarray], theirs: list[torch.Tensor]) -> float:
        a = np.concatenate([x.ravel() for x in mine])
        b = np.concatenate([x.detach().numpy().ravel() for x in theirs])
        return float(np.abs(a - b).max(initial=0.0) / max(np.abs(b).max(initial=0.0), 1.0))

    stored = kernel.derivatives(near, moments)
    adjoint = sum(float((w * c).sum()) for w, c in zip(weights, changes, strict=True))
    return {
        "values": off(values, reference),
        "vjp": off([vjp], [gradient]),
        "jvp": off(changes, list(jvp)),
        "stored vjp": off([kernel.stored_vjp(near, stored, weights)], [gradient]),
        "stored jvp": off(kernel.stored_jvp(near, stored, directions), list(jvp)),
        "adjoint": abs(adjoint - float((vjp * directions).sum())) / max(abs(adjoint), 1.0),
    }


@pytest.mark.parametrize("cutoff_function", CUTOFF_FUNCTIONS)
def test_kernel_is_the_reference(cutoff_function: str, random_structures) -> None:
    functions, kernel = kernel_of(cutoff_function)
    batch = collate([atoms_to_structures(atoms, CUTOFF) for atoms in random_structures(28, seed=1)])
    deviations = compare(functions, kernel, batch)
    assert max(deviations.values()) < 1e-12, deviations


@pytest.mark.parametrize("cutoff_function", ["cosine", "polynomial", "exponential", "polynomial_9"])
def test_inner_cutoff(cutoff_function: str, random_structures) -> None:
    functions = SymmetryFunctions(FUNCTIONS, cutoff=CUTOFF, cutoff_function=cutoff_function, inner_cutoff=0.3)
    batch = collate([atoms_to_structures(atoms, CUTOFF) for atoms in random_structures(14, seed=7)])
    deviations = compare(functions, FeatureKernel(functions), batch)
    assert max(deviations.values()) < 1e-12, deviations


@given(seed=st.integers(0, 10**6), n=st.integers(1, 7), symbols=st.sampled_from([("H",), ("C", "O"), ("H", "C", "O")]))
@settings(max_examples=30)
def test_kernel_is_the_reference_on_any_structure(random_structures, seed: int, n: int, symbols: tuple) -> None:
    functions, kernel = kernel_of()
    batch = collate([atoms_to_structures(atoms, CUTOFF) for atoms in random_structures(n, seed=seed, symbols=symbols)])
    deviations = compare(functions, kernel, batch)
    assert max(deviations.values()) < 1e-12, deviations


@pytest.mark.parametrize(
    "atoms",
    [
        Atoms("H"),
        Atoms("HCO", [[0, 0, 0], [9, 0, 0], [0, 9, 0]]),
        Atoms("CO", [[0, 0, 0], [1.1, 0, 0]]),
        Atoms("OCO", [[-1.16, 0, 0], [0, 0, 0], [1.16, 0, 0]]),  # cos θ = -1
        Atoms("H", cell=[1.2, 1.3, 1.4], pbc=True),  # a cell much smaller than the cutoff
    ],
    ids=["one atom", "no pairs", "two elements with one atom each", "straight", "tiny cell"],
)
def test_corners(atoms: Atoms) -> None:
    functions, kernel = kernel_of()
    deviations = compare(functions, kernel, atoms_to_structures(atoms, CUTOFF))
    assert max(deviations.values()) < 1e-12, deviations


@pytest.mark.parametrize("cutoff_function", ["cosine", "tanh"])
def test_many_neighbours_of_several_elements(cutoff_function: str) -> None:
    """Some fifty neighbours make a thousand pairs, more than are worked off at once."""
    atoms = bulk("C", "diamond", a=3.6, cubic=True)
    atoms.symbols[::3], atoms.symbols[1::5] = "H", "O"
    atoms.rattle(0.1, seed=0)
    functions, kernel = kernel_of(cutoff_function)
    batch = atoms_to_structures(atoms, CUTOFF)
    assert len(batch.first) > 40 * len(atoms)
    deviations = compare(functions, kernel, batch)
    assert max(deviations.values()) < 1e-12, deviations


def test_no_function_at_all() -> None:
    functions = SymmetryFunctions({"H": [], "C": []}, cutoff=CUTOFF)
    kernel = FeatureKernel(functions)
    batch = atoms_to_structures(Atoms("HC", [[0, 0, 0], [1.1, 0, 0]]), CUTOFF)
    near = near_of(kernel, batch)
    moments = kernel.moments(near)
    assert [block.shape for block in kernel.values(near, moments)] == [(1, 0), (1, 0)]
    assert not kernel.vjp(near, moments, [np.zeros((1, 0))] * 2).any()
    assert kernel.jacobian(near, moments)[0].shape == (2, 3, 0)


def test_size_of_the_derivatives(random_structures) -> None:
    _, kernel = kernel_of()
    near = near_of(kernel, collate([atoms_to_structures(atoms, CUTOFF) for atoms in random_structures(7, seed=4)]))
    stored = kernel.derivatives(near, kernel.moments(near))
    assert kernel.derivatives_size(near) == sum(block.nbytes for block in stored)
    assert sum(len(block) for block in stored) == len(near.pairs.first)


def test_pairs_beyond_the_cutoff_do_not_count(random_structures) -> None:
    _, kernel = kernel_of()
    near, far = (
        near_of(kernel, collate([atoms_to_structures(atoms, cutoff) for atoms in random_structures(7, seed=3)]))
        for cutoff in (CUTOFF, CUTOFF + 1.0)
    )
    assert len(far.pairs.first) > len(near.pairs.first)
    for a, b in zip(*(kernel.values(x, kernel.moments(x)) for x in (near, far)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("functions", [FUNCTIONS, {symbol: MOMENTS[1:4] for symbol in FUNCTIONS}])
def test_jacobian_of_the_sums(functions: dict, random_structures) -> None:
    chosen = SymmetryFunctions(functions, cutoff=CUTOFF)
    kernel = FeatureKernel(chosen)
    for atoms in random_structures(7, seed=4):
        batch = atoms_to_structures(atoms, CUTOFF)
        near = near_of(kernel, batch)
        by_position, by_strain = kernel.jacobian(near, kernel.moments(near))
        positions = batch.positions.clone().requires_grad_()
        strain = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
        vectors = pair_vectors(batch._replace(positions=positions)) @ (torch.eye(3) + 0.5 * (strain + strain.T))
        sums = torch.cat([block.sum(0) for block in reference_features(chosen, batch, vectors).values()])
        grads = [
            torch.autograd.grad(s, (positions, strain), retain_graph=True, materialize_grads=True, allow_unused=True)
            for s in sums
        ]
        expected = np.stack([position.numpy() for position, _ in grads], axis=-1)
        strained = np.stack([s.numpy()[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]] for _, s in grads], axis=-1)
        scale = max(np.abs(strained).max(), 1.0)
        np.testing.assert_allclose(by_position, expected, rtol=0, atol=1e-12 * scale)
        np.testing.assert_allclose(by_strain, strained, rtol=0, atol=1e-12 * scale)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def everything(kernel: FeatureKernel, batch: Structures) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    near = near_of(kernel, batch)
    moments = kernel.moments(near)
    values = kernel.values(near, moments)
    weights = [rng.normal(size=block.shape) for block in values]
    directions = rng.normal(size=near.pairs.vectors.shape)
    return [moments, *values, kernel.vjp(near, moments, weights), *kernel.jvp(near, moments, directions)]


def test_threads_do_not_change_a_bit(two_threads: None) -> None:
    _, kernel = kernel_of()
    atoms = bulk("C", "diamond", a=3.6, cubic=True) * (3, 3, 3)
    atoms.symbols[::3], atoms.symbols[1::7] = "H", "O"
    atoms.rattle(0.1, seed=0)
    batch = atoms_to_structures(atoms, CUTOFF)
    shared = everything(kernel, batch)
    torch.set_num_threads(1)
    alone = everything(kernel, batch)
    assert all(np.array_equal(a, b) for a, b in zip(shared, alone, strict=True))


def test_an_atom_is_the_same_in_any_batch(random_structures) -> None:
    _, kernel = kernel_of()
    singles = [atoms_to_structures(atoms, CUTOFF) for atoms in random_structures(14, seed=5)]
    blocks = [[], [], []]
    for single in singles:
        near = near_of(kernel, single)
        for block, values in zip(blocks, kernel.values(near, kernel.moments(near)), strict=True):
            block.append(values)
    near = near_of(kernel, collate(singles))
    for block, values in zip(blocks, kernel.values(near, kernel.moments(near)), strict=True):
        np.testing.assert_allclose(np.concatenate(block), values, rtol=1e-13, atol=1e-13)


def test_unknown_element() -> None:
    _, kernel = kernel_of()
    batch = atoms_to_structures(Atoms("HN", [[0, 0, 0], [1.1, 0, 0]]), CUTOFF)
    with pytest.raises(ValueError, match="no symmetry functions for N, only for H, C, O"):
        near_of(kernel, batch)


def test_compiled_code_is_kept(tmp_path) -> None:
    """Compiling takes long; a second process must find what the first one compiled."""
    script = (
        "import numpy as np\n"
        "from ase import Atoms\n"
        "from molml.energy.data import atoms_to_structures, pair_vectors\n"
        "from molml.energy.features import G2, SymmetryFunctions\n"
        "from molml.energy import kernels\n"
        "b = atoms_to_structures(Atoms('H2', [[0, 0, 0], [1, 0, 0]]), 3.0)\n"
        "k = kernels.FeatureKernel(SymmetryFunctions({'H': [G2('H', 1.0)]}, cutoff=3.0))\n"
        "near = kernels.neighbourhood(k.elements, b.numbers, b.first, b.second, pair_vectors(b))\n"
        "k.values(near, np.zeros((2, 1)))\n"
        "stats = kernels._invariants.stats\n"
        "print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))\n"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    runs = [
        subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert [run.stdout.split() for run in runs] == [["0", "1"], ["1", "0"]]
