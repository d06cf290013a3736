"""Potentials: a linear one, Behler-Parrinello networks, and a committee of either."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast, final

import numpy as np
import torch
from ase.data import chemical_symbols
from torch import Tensor, nn

from molml.energy.data import Structures, n_structures
from molml.energy.features import SymmetryFunctions
from molml.energy.guard import Guard
from molml.energy.inference import (
    AtomNetwork,
    atom_network,
    energies_with_gradient,
    linear_network,
    pair_vectors,
    sum_pairs,
)
from molml.energy.kernels import FeatureKernel, Neighbourhood, arrange
from molml.io import Container, save_container
from molml.nn import MLP

if TYPE_CHECKING:
    from molml.energy.calculator import Calculator

_ROUNDING = 1e-4  # widths of the training range; values in another batch are computed in another order
UNITS = {"energy": "eV", "length": "Å", "forces": "eV/Å", "stress": "eV/Å³"}


class Prediction(NamedTuple):
    """What a potential says of a batch.

    Attributes
    ----------
    energy : Tensor, shape (n_structures,), eV
    energies : Tensor, shape (n_atoms,), eV
        Every atom's share.
    forces : Tensor, shape (n_atoms, 3), eV/Å, or None
    stress : Tensor, shape (n_structures, 3, 3), eV/Å³, or None
        Tension positive; zero for structures that are not periodic in three directions.
    energy_std : Tensor, shape (n_structures,), eV, or None
    forces_std : Tensor, shape (n_atoms, 3), eV/Å, or None
        Standard deviations among the members of a committee.
    features : list of Tensor, shape (n_atoms of the element, n_functions)
        Symmetry functions, one tensor per element of the potential.
    """

    energy: Tensor
    energies: Tensor
    forces: Tensor | None
    stress: Tensor | None
    energy_std: Tensor | None
    forces_std: Tensor | None
    features: list[Tensor]


class Extrapolation(NamedTuple):
    """A symmetry function of an atom outside the range it had in training.

    Attributes
    ----------
    atom : int
        Index in the batch.
    element : int
        Atomic number.
    function : str
    value, low, high : float
        The function, and its range in training.
    excess : float
        How far outside, in units of the range's width.
    """

    atom: int
    element: int
    function: str
    value: float
    low: float
    high: float
    excess: float


class FeatureStatistics(NamedTuple):
    """Mean, standard deviation and range of every function of every element over the training atoms.

    Each is a list with one tensor of shape (n_functions,) per element.
    """

    mean: list[Tensor]
    std: list[Tensor]
    low: list[Tensor]
    high: list[Tensor]


class QuadraticForm(NamedTuple):
    """Energy of an atom that is quadratic in its functions G: sum over m of weights[m] (directions[m] · (G - mean))².

    Attributes
    ----------
    directions : ndarray, shape (n, n_functions)
    weights : ndarray, shape (n,), eV
    """

    directions: np.ndarray
    weights: np.ndarray


def feature_statistics(blocks: Sequence[Sequence[np.ndarray]]) -> FeatureStatistics:
    """Statistics of a data set's features.

    Parameters
    ----------
    blocks : sequence of sequence of array, shape (n_atoms of the element, n_functions)
        One item per structure, in it one array per element of the functions.

    Returns
    -------
    FeatureStatistics
        Zeros for an element that no structure holds: each of its atoms is then outside the range.
    """
    parts = []
    for element in zip(*blocks, strict=True):
        values = torch.from_numpy(np.concatenate(element))
        if not len(values):
            values = values.new_zeros(1, values.shape[1])
        parts.append((values.mean(0), values.std(0, unbiased=False), values.amin(0), values.amax(0)))
    return FeatureStatistics(*(list(part) for part in zip(*parts, strict=True)))


@final
class LinearPotential(nn.Module):
    """Energy of an atom as a linear combination of its symmetry functions.

    Parameters
    ----------
    functions : SymmetryFunctions
    coefficients : sequence of Tensor, shape (n_functions,), eV
        One per element.
    reference : sequence of float, eV
        Constant energy of an atom of each element.
    statistics : FeatureStatistics
        Of the training atoms; its range tells extrapolation.
    metadata : dict, optional
        JSON-able facts that travel with the model: hash of the data, metrics, versions.
    guard : Guard, optional
        Repulsion below the shortest distances of the training data, added to every energy.

    Raises
    ------
    ValueError
        If the shapes do not belong to the functions.
    """

    def __init__(
        self,
        functions: SymmetryFunctions,
        coefficients: Sequence[Tensor],
        reference: Sequence[float],
        statistics: FeatureStatistics,
        metadata: dict[str, Any] | None = None,
        guard: Guard | None = None,
    ) -> None:
        super().__init__()
        self.features = functions
        self.kernel = FeatureKernel(functions)
        self.metadata = {"units": UNITS, **(metadata or {})}
        self.guard = guard
        _check_lengths("coefficients", functions, coefficients)
        self.coefficients = _frozen(coefficients)
        _register(self, functions, reference, statistics)

    @property
    def elements(self) -> list[int]:
        """Atomic numbers, ascending."""
        return self.features.elements

    @property
    def cutoff(self) -> float:
        """Cutoff radius, Å."""
        return self.features.cutoff

    @property
    def config(self) -> dict[str, Any]:
        """JSON-able description that, with the tensors, rebuilds the potential."""
        return {"features": self.features.config, **_guard_config(self.guard)}

    def atomic_energies(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Energy of every atom, eV, from its features; one tensor per element on both sides."""
        return [x @ c + r for x, c, r in zip(features, self.coefficients, cast(Tensor, self.reference), strict=True)]

    def atom_networks(self) -> list[AtomNetwork]:
        """The potential as arrays, one item per element."""
        return [
            linear_network(c.numpy(), r)
            for c, r in zip(self.coefficients, cast(Tensor, self.reference).tolist(), strict=True)
        ]

    def predict(self, batch: Structures, *, forces: bool = True, stress: bool = True) -> Prediction:
        """Energies and their derivatives for a batch.

        Parameters
        ----------
        batch : Structures
            With the pairs within the potential's cutoff.
        forces, stress : bool
            Whether to compute them.

        Raises
        ------
        ValueError
            For an element the potential does not know.
        """
        return _predict([self], batch, forces, stress)

    def extrapolation(self, batch: Structures, prediction: Prediction | None = None) -> list[Extrapolation]:
        """Symmetry functions outside their range in training, the furthest first.

        Parameters
        ----------
        batch : Structures
        prediction : Prediction, optional
            Of this batch, where at hand: saves computing the functions again.
        """
        return _extrapolation(self, batch, prediction)

    @property
    def feature_ranges(self) -> dict[str, np.ndarray]:
        """Chemical symbol to array (n_functions, 2) of the lowest and highest value in training."""
        return _ranges(self)

    def calculator(
        self, *, on_extrapolation: Literal["warn", "raise", "ignore"] = "warn", skin: float = 0.5
    ) -> Calculator:
        """ASE calculator with energy, energies, forces and stress."""
        from molml.energy.calculator import Calculator

        return Calculator(self, on_extrapolation=on_extrapolation, skin=skin)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to a model file; ``molml.load`` reads it."""
        save_container(path, "LinearPotential", self.config, self.state_dict(), self.metadata)

    @classmethod
    def from_container(cls, container: Container) -> LinearPotential:
        """Rebuild from a model file's content."""
        functions = SymmetryFunctions.from_config(container.config["features"])
        n = len(functions.elements)
        model = cls(
            functions,
            [container.tensors[f"coefficients.{e}"] for e in range(n)],
            container.tensors["reference"].tolist(),
            _statistics_from(container.tensors, n),
            container.metadata,
            _guard_from(container.config),
        )
        return model.eval()

    def __repr__(self) -> str:
        return _describe(self)


@final
class BehlerParrinello(nn.Module):
    """One multilayer perceptron per element on standardised symmetry functions; the energy is the sum over the atoms.

    Optional frozen parts, linear and quadratic in the functions, carry what least squares can explain, and the networks
    learn the rest.

    Parameters
    ----------
    functions : SymmetryFunctions
    statistics : FeatureStatistics
        Of the training atoms: centre and scale of the inputs, and their range.
    reference : sequence of float, eV
        Constant energy of an atom of each element.
    hidden : sequence of int
        Widths of the hidden layers.
    activation : str
        A name that :func:`molml.nn.activation` knows, or one per hidden layer with blanks between them.
    exceptions : mapping from chemical symbol to (hidden, activation), optional
        For the elements whose network is built otherwise.
    linear : sequence of Tensor, shape (n_functions,), eV, optional
        Coefficients of the frozen linear part on the functions themselves, one tensor per element.
    quadratic : sequence of QuadraticForm, optional
        A frozen quadratic part, one form per element.
    energy_scale : float, eV
        Unit of the networks' output.
    seed : int
        Of the initial weights.
    metadata : dict, optional
        JSON-able facts that travel with the model.
    guard : Guard, optional
        Repulsion below the shortest distances of the training data, added to every energy.

    Raises
    ------
    ValueError
        If the shapes do not belong to the functions, an element has no functions, or a setting is out of its range.

    References
    ----------
    Behler, Parrinello, Phys. Rev. Lett. 98, 146401 (2007).
    """

    def __init__(
        self,
        functions: SymmetryFunctions,
        statistics: FeatureStatistics,
        reference: Sequence[float],
        *,
        hidden: Sequence[int] = (64, 64),
        activation: str = "silu",
        exceptions: Mapping[str, tuple[Sequence[int], str]] | None = None,
        linear: Sequence[Tensor] | None = None,
        quadratic: Sequence[QuadraticForm] | None = None,
        energy_scale: float = 1.0,
        seed: int = 0,
        metadata: dict[str, Any] | None = None,
        guard: Guard | None = None,
    ) -> None:
        super().__init__()
        if not energy_scale > 0:
            raise ValueError(f"energy_scale must be positive (eV), got {energy_scale}")
        empty = [symbol for symbol, chosen in functions.functions.items() if not chosen]
        if empty:
            raise ValueError(f"a network needs symmetry functions to see, got none for {', '.join(empty)}")
        self.features = functions
        self.kernel = FeatureKernel(functions)
        self.metadata = {"units": UNITS, **(metadata or {})}
        self.guard = guard
        self.hidden, self.activation, self.energy_scale = list(hidden), activation, float(energy_scale)
        symbols = list(functions.functions)
        self.exceptions = {symbol: (list(own), name) for symbol, (own, name) in (exceptions or {}).items()}
        if not set(self.exceptions) <= set(symbols):
            raise ValueError(
                f"exceptions must be for elements of the functions ({', '.join(symbols)}), "
                f"got {', '.join(self.exceptions)}"
            )
        if linear is None:
            linear = [torch.zeros(functions.n_functions(symbol), dtype=torch.float64) for symbol in symbols]
        _check_lengths("linear", functions, linear)
        self.linear = _frozen(linear)
        _register(self, functions, reference, statistics)
        self.is_quadratic = quadratic is not None
        for e, form in enumerate(quadratic or ()):
            _check_form(form, symbols[e], functions.n_functions(symbols[e]))
            self.register_buffer(f"directions_{e}", torch.as_tensor(form.directions, dtype=torch.float64))
            self.register_buffer(f"quadratic_{e}", torch.as_tensor(form.weights, dtype=torch.float64))
        if quadratic is not None and len(quadratic) != len(symbols):
            raise ValueError(f"quadratic must hold {len(symbols)} forms, one per element, got {len(quadratic)}")
        for e in range(len(symbols)):
            std = statistics.std[e]
            # a function that hardly varied in training is left out: 1 / std would blow its noise up
            used = std > 1e-6 * torch.clamp(std.max(), min=1e-30) if len(std) else std.bool()
            self.register_buffer(f"scale_{e}", torch.where(used, 1.0 / torch.where(used, std, 1.0), 0.0))
        self.networks = nn.ModuleList()
        for e, symbol in enumerate(symbols):
            n, own_seed = functions.n_functions(symbol), seed + 7919 * e
            own_hidden, own_activation = self.exceptions.get(symbol, (self.hidden, activation))
            self.networks.append(MLP(n, own_hidden, 1, activation=own_activation, seed=own_seed, dtype=torch.float64))
        self._tensors: list[Tensor] | None = None
        self._state: list[tuple[int, int]] = []
        self._networks: list[AtomNetwork] | None = None
        self.register_load_state_dict_post_hook(_forget)

    @property
    def elements(self) -> list[int]:
        """Atomic numbers, ascending."""
        return self.features.elements

    @property
    def cutoff(self) -> float:
        """Cutoff radius, Å."""
        return self.features.cutoff

    @property
    def config(self) -> dict[str, Any]:
        """JSON-able description that, with the tensors, rebuilds the potential."""
        exceptions = {"exceptions": self.exceptions} if self.exceptions else {}
        return {
            "features": self.features.config,
            "hidden": self.hidden,
            "activation": self.activation,
            "energy_scale": self.energy_scale,
            **exceptions,
            **_guard_config(self.guard),
        }

    def atomic_energies(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Energy of every atom, eV, from its features; one tensor per element on both sides."""
        energies = []
        for e, (x, network) in enumerate(zip(features, self.networks, strict=True)):
            centred = x - getattr(self, f"mean_{e}")
            smooth = x @ self.linear[e] + cast(Tensor, self.reference)[e]
            if self.is_quadratic:
                smooth = smooth + (centred @ getattr(self, f"directions_{e}").T) ** 2 @ getattr(self, f"quadratic_{e}")
            inputs = centred * getattr(self, f"scale_{e}")
            energies.append(smooth + self.energy_scale * network(inputs).squeeze(-1))
        return energies

    def atom_networks(self) -> list[AtomNetwork]:
        """The potential as arrays, one item per element; copied only where weights have changed since the last call."""
        tensors = self._tensors
        if tensors is None:
            tensors = self._tensors = [*self.parameters(), *self.buffers()]
        state = [(tensor.data_ptr(), tensor._version) for tensor in tensors]
        if self._networks is None or self._state != state:
            self._networks = [
                atom_network(
                    cast(MLP, network),
                    self.get_buffer(f"mean_{e}").numpy(),
                    self.get_buffer(f"scale_{e}").numpy(),
                    self.linear[e].numpy(),
                    float(cast(Tensor, self.reference)[e]),
                    self.energy_scale,
                    (self.get_buffer(f"directions_{e}").numpy(), self.get_buffer(f"quadratic_{e}").numpy())
                    if self.is_quadratic
                    else None,
                )
                for e, network in enumerate(self.networks)
            ]
            self._state = state
        return self._networks

    def predict(self, batch: Structures, *, forces: bool = True, stress: bool = True) -> Prediction:
        """Energies and their derivatives for a batch; see :meth:`LinearPotential.predict`."""
        return _predict([self], batch, forces, stress)

    def extrapolation(self, batch: Structures, prediction: Prediction | None = None) -> list[Extrapolation]:
        """Symmetry functions outside their range in training; see :meth:`LinearPotential.extrapolation`."""
        return _extrapolation(self, batch, prediction)

    @property
    def feature_ranges(self) -> dict[str, np.ndarray]:
        """Chemical symbol to array (n_functions, 2) of the lowest and highest value in training."""
        return _ranges(self)

    def calculator(
        self, *, on_extrapolation: Literal["warn", "raise", "ignore"] = "warn", skin: float = 0.5
    ) -> Calculator:
        """ASE calculator with energy, energies, forces and stress."""
        from molml.energy.calculator import Calculator

        return Calculator(self, on_extrapolation=on_extrapolation, skin=skin)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to a model file; ``molml.load`` reads it."""
        save_container(path, "BehlerParrinello", self.config, self.state_dict(), self.metadata)

    @classmethod
    def from_container(cls, container: Container) -> BehlerParrinello:
        """Rebuild from a model file's content."""
        functions = SymmetryFunctions.from_config(container.config["features"])
        n = len(functions.elements)
        model = cls(
            functions,
            _statistics_from(container.tensors, n),
            container.tensors["reference"].tolist(),
            hidden=container.config["hidden"],
            activation=container.config["activation"],
            exceptions=container.config.get("exceptions"),
            quadratic=[
                QuadraticForm(container.tensors[f"directions_{e}"].numpy(), container.tensors[f"quadratic_{e}"].numpy())
                for e in range(n)
            ]
            if "directions_0" in container.tensors
            else None,
            energy_scale=container.config["energy_scale"],
            metadata=container.metadata,
            guard=_guard_from(container.config),
        )
        model.load_state_dict(container.tensors)
        return model.eval()

    def __repr__(self) -> str:
        return _describe(self, f", {'linear and quadratic parts, ' if self.is_quadratic else ''}hidden={self.hidden}")


Member = LinearPotential | BehlerParrinello


@final
class Committee(nn.Module):
    """Several potentials on the same symmetry functions: their mean, and their standard deviation as uncertainty.

    Parameters
    ----------
    members : sequence of LinearPotential or of BehlerParrinello
        At least two, of one class, with the same symmetry functions.
    metadata : dict, optional
        Facts beyond those of the first member.
    std_scale : (float, float)
        Factors of the standard deviations of energy and forces, such as make them fit to errors on data that the
        members have not seen.

    Raises
    ------
    ValueError
        For fewer than two members, members of different symmetry functions or guards, or a factor that is not positive.
    TypeError
        For members of two classes.

    References
    ----------
    Schran, Brezina, Marsalek, J. Chem. Phys. 153, 104105 (2020).
    """

    def __init__(
        self,
        members: Sequence[Member],
        metadata: dict[str, Any] | None = None,
        std_scale: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        super().__init__()
        if not all(0.0 < factor < float("inf") for factor in std_scale):
            raise ValueError(f"std_scale must be two positive factors, got {std_scale}")
        self.std_scale = float(std_scale[0]), float(std_scale[1])
        if len(members) < 2:
            raise ValueError(f"a committee needs at least two members, got {len(members)}; use the potential itself")
        if len({type(member) for member in members}) > 1:
            raise TypeError("members of a committee must be of one class, got both linear and network potentials")
        if any(member.features.config != members[0].features.config for member in members):
            raise ValueError("members of a committee must share their symmetry functions; fit them with members=N")
        if any(_guard_config(member.guard) != _guard_config(members[0].guard) for member in members):
            raise ValueError("members of a committee must share their guard; give each the same or none")
        self.members = nn.ModuleList(members)
        self.metadata = {**members[0].metadata, **(metadata or {})}

    @property
    def _first(self) -> Member:
        return cast(Member, self.members[0])

    @property
    def features(self) -> SymmetryFunctions:
        """The members' symmetry functions."""
        return self._first.features

    @property
    def guard(self) -> Guard | None:
        """The members' guard."""
        return self._first.guard

    @property
    def elements(self) -> list[int]:
        """Atomic numbers, ascending."""
        return self._first.elements

    @property
    def cutoff(self) -> float:
        """Cutoff radius, Å."""
        return self._first.cutoff

    @property
    def config(self) -> dict[str, Any]:
        """JSON-able description that, with the tensors, rebuilds the committee."""
        scale = {"std_scale": list(self.std_scale)} if self.std_scale != (1.0, 1.0) else {}
        kind = type(self._first).__name__
        return {"kind": kind, "n_members": len(self.members), "member": self._first.config, **scale}

    def predict(self, batch: Structures, *, forces: bool = True, stress: bool = True) -> Prediction:
        """Mean and standard deviation (n - 1 in the denominator, scaled) of the members' predictions for a batch."""
        prediction = _predict([cast(Member, m) for m in self.members], batch, forces, stress)
        of_energy, of_forces = self.std_scale
        return prediction._replace(
            energy_std=of_energy * cast(Tensor, prediction.energy_std),
            forces_std=None if prediction.forces_std is None else of_forces * prediction.forces_std,
        )

    def extrapolation(self, batch: Structures, prediction: Prediction | None = None) -> list[Extrapolation]:
        """Symmetry functions outside their range in training; see :meth:`LinearPotential.extrapolation`."""
        return _extrapolation(self._first, batch, prediction)

    @property
    def feature_ranges(self) -> dict[str, np.ndarray]:
        """Chemical symbol to array (n_functions, 2) of the lowest and highest value in training."""
        return _ranges(self._first)

    def calculator(
        self, *, on_extrapolation: Literal["warn", "raise", "ignore"] = "warn", skin: float = 0.5
    ) -> Calculator:
        """ASE calculator with energy, energies, forces, stress, energy_std and forces_std."""
        from molml.energy.calculator import Calculator

        return Calculator(self, on_extrapolation=on_extrapolation, skin=skin)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to a model file; ``molml.load`` reads it."""
        save_container(path, "Committee", self.config, self.state_dict(), self.metadata)

    @classmethod
    def from_container(cls, container: Container) -> Committee:
        """Rebuild from a model file's content."""
        kinds: dict[str, type[Member]] = {"LinearPotential": LinearPotential, "BehlerParrinello": BehlerParrinello}
        name, config, metadata = container.config["kind"], container.config["member"], container.metadata
        members = []
        for i in range(container.config["n_members"]):
            start = f"members.{i}."
            own = {key.removeprefix(start): t for key, t in container.tensors.items() if key.startswith(start)}
            members.append(kinds[name].from_container(Container(name, config, own, metadata)))
        of_energy, of_forces = container.config.get("std_scale", (1.0, 1.0))
        return cls(members, std_scale=(of_energy, of_forces)).eval()

    def __repr__(self) -> str:
        return f"Committee({len(self.members)} × {self._first!r})"


Potential = LinearPotential | BehlerParrinello | Committee


def forces_and_virial(batch: Structures, vectors: Tensor, pair_gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives of the energies by positions and strain, from those by the pair vectors.

    Parameters
    ----------
    batch : Structures
    vectors, pair_gradient : Tensor, shape (n_pairs, 3), Å and eV/Å

    Returns
    -------
    forces : Tensor, shape (n_atoms, 3), eV/Å
    virial : Tensor, shape (n_structures, 3, 3), eV
        dE / dstrain, symmetric; stress times volume.
    """
    forces = torch.zeros_like(batch.positions)
    forces = forces.index_add(0, batch.first, pair_gradient).index_add(0, batch.second, pair_gradient, alpha=-1)
    products = vectors[:, :, None] * pair_gradient[:, None, :]
    owner = batch.structure[batch.first]
    virial = torch.zeros_like(batch.cell).index_add(0, owner, products)
    return forces, 0.5 * (virial + virial.transpose(1, 2))


def structure_energies(
    batch: Structures, atoms: Sequence[np.ndarray], energies: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Energies of the atoms in the order of the batch, and of the structures, from those of the atoms by element."""
    order = torch.from_numpy(np.concatenate(atoms))
    per_atom = torch.zeros_like(batch.positions[:, 0]).index_copy(0, order, torch.cat(list(energies)))
    return per_atom, torch.zeros(n_structures(batch), dtype=per_atom.dtype).index_add(0, batch.structure, per_atom)


class _Outcome(NamedTuple):
    """What one potential says; no forces and virial where derivatives are not asked for."""

    energies: np.ndarray
    energy: np.ndarray
    forces: np.ndarray | None
    virial: np.ndarray | None


def _predict(members: Sequence[Member], batch: Structures, want_forces: bool, want_stress: bool) -> Prediction:
    kernel = members[0].kernel
    first, second = batch.first.numpy(), batch.second.numpy()
    vectors = pair_vectors(batch.positions.detach().numpy(), first, second, batch.offset.numpy())
    near = arrange(kernel.numbers, batch.numbers.numpy(), first, second, vectors)
    moments = kernel.moments(near)
    features = kernel.values(near, moments)
    guard = members[0].guard
    repulsion = None if guard is None else guard.pair_terms(batch, torch.from_numpy(vectors))
    derivatives = want_forces or want_stress
    outcomes = [_outcome(member, batch, near, moments, features, repulsion, derivatives) for member in members]
    mean = outcomes[0]
    energy_std = forces_std = None
    if len(outcomes) > 1:
        parts = [None if part[0] is None else np.mean(part, axis=0) for part in zip(*outcomes, strict=True)]
        mean = _Outcome(*parts)  # type: ignore[arg-type]
        energy_std = torch.from_numpy(np.std([one.energy for one in outcomes], axis=0, ddof=1))
        if want_forces:
            forces = [cast(np.ndarray, one.forces) for one in outcomes]
            forces_std = torch.from_numpy(np.std(forces, axis=0, ddof=1))
    stress = None
    if want_stress:
        volume = batch.volume.numpy()[:, None, None]
        stress = np.where(volume > 0, cast(np.ndarray, mean.virial) / np.where(volume > 0, volume, 1.0), 0.0)
    return Prediction(
        torch.from_numpy(mean.energy),
        torch.from_numpy(mean.energies),
        torch.from_numpy(mean.forces) if want_forces and mean.forces is not None else None,
        None if stress is None else torch.from_numpy(stress),
        energy_std,
        forces_std,
        [torch.from_numpy(block) for block in features],
    )


def _outcome(
    member: Member,
    batch: Structures,
    near: Neighbourhood,
    moments: np.ndarray,
    features: list[np.ndarray],
    repulsion: tuple[np.ndarray, np.ndarray] | None,
    derivatives: bool,
) -> _Outcome:
    found = [energies_with_gradient(n, x) for n, x in zip(member.atom_networks(), features, strict=True)]
    structure, pairs = batch.structure.numpy(), near.pairs
    per_atom = np.empty(len(structure))
    for atoms, (energies, _) in zip(near.atoms, found, strict=True):
        per_atom[atoms] = energies
    if repulsion is not None:
        per_atom += repulsion[0]
    energy = np.bincount(structure, per_atom, n_structures(batch))
    if not derivatives:
        return _Outcome(per_atom, energy, None, None)
    gradient = member.kernel.vjp(near, moments, [weights for _, weights in found])
    if repulsion is not None:
        gradient += repulsion[1]
    sums = sum_pairs(pairs.first, pairs.second, structure, pairs.vectors, gradient, len(energy))
    return _Outcome(per_atom, energy, *sums)


def _extrapolation(member: Member, batch: Structures, prediction: Prediction | None) -> list[Extrapolation]:
    if prediction is None:
        prediction = _predict([member], batch, False, False)
    numbers = batch.numbers.numpy()
    found = []
    for e, (number, values) in enumerate(zip(member.elements, prediction.features, strict=True)):
        low, high = getattr(member, f"low_{e}"), getattr(member, f"high_{e}")
        # a function that was constant in training has a width of rounding errors
        width = torch.maximum(high - low, 1e-9 * torch.maximum(low.abs(), high.abs())).clamp(min=1e-12)
        excess = torch.maximum(low - values, values - high) / width
        atoms = np.flatnonzero(numbers == number)
        names = member.features.names(chemical_symbols[number])
        for row, column in torch.nonzero(excess > _ROUNDING).tolist():
            figures = (float(x) for x in (values[row, column], low[column], high[column], excess[row, column]))
            found.append(Extrapolation(int(atoms[row]), number, names[column], *figures))
    return sorted(found, key=lambda item: -item.excess)


def _ranges(member: Member) -> dict[str, np.ndarray]:
    return {
        chemical_symbols[z]: torch.stack([getattr(member, f"low_{e}"), getattr(member, f"high_{e}")], dim=1).numpy()
        for e, z in enumerate(member.elements)
    }


def _forget(model: BehlerParrinello, _: object) -> None:
    # load_state_dict(assign=True) puts other tensors in the places of those that the arrays are copies of
    model._tensors = model._networks = None


def _check_lengths(name: str, functions: SymmetryFunctions, tensors: Sequence[Tensor]) -> None:
    expected = [(functions.n_functions(symbol),) for symbol in functions.functions]
    found = [tuple(tensor.shape) for tensor in tensors]
    if found != expected:
        raise ValueError(f"{name} must have the shapes {expected}, one per element of the functions, got {found}")


def _check_form(form: QuadraticForm, symbol: str, n_functions: int) -> None:
    expected = len(form.weights), n_functions
    if np.ndim(form.weights) != 1 or np.shape(form.directions) != expected:
        raise ValueError(
            f"directions of {symbol} must have the shape (number of weights, number of functions) = {expected}, "
            f"got {np.shape(form.directions)}"
        )


def _frozen(tensors: Sequence[Tensor]) -> nn.ParameterList:
    return nn.ParameterList([nn.Parameter(t.detach().clone(), requires_grad=False) for t in tensors])


def _register(
    module: nn.Module, functions: SymmetryFunctions, reference: Sequence[float], statistics: FeatureStatistics
) -> None:
    if len(reference) != len(functions.elements):
        raise ValueError(
            f"reference must hold {len(functions.elements)} energies, one per element, got {len(reference)}"
        )
    module.register_buffer("reference", torch.as_tensor(list(reference), dtype=torch.float64))
    for name, tensors in zip(statistics._fields, statistics, strict=True):
        _check_lengths(f"statistics.{name}", functions, tensors)
        for e, tensor in enumerate(tensors):
            module.register_buffer(f"{name}_{e}", tensor.detach().clone().to(torch.float64))


def _statistics_from(tensors: dict[str, Tensor], n_elements: int) -> FeatureStatistics:
    return FeatureStatistics(
        *([tensors[f"{name}_{e}"] for e in range(n_elements)] for name in FeatureStatistics._fields)
    )


def _guard_config(guard: Guard | None) -> dict[str, Any]:
    return {} if guard is None else {"guard": guard.config}


def _guard_from(config: Mapping[str, Any]) -> Guard | None:
    # files from before there were guards hold none
    return Guard(config["guard"]) if "guard" in config else None


def _describe(model: Member, extra: str = "") -> str:
    counts = ", ".join(f"{symbol}: {len(f)} functions" for symbol, f in model.features.functions.items())
    return f"{type(model).__name__}({counts}, cutoff={model.cutoff:g} Å{extra})"
