"""Sampling along a learned coordinate: as input of PLUMED, and as a force of OpenMM.

Both are made of the features and of the fitted estimator, either linear (``components_`` and ``mean_``) or a network
(``as_module()``), and have its value and gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, final

import numpy as np

from molml.kinetics.features import (
    Angles,
    Concatenation,
    ContactDistances,
    Distances,
    Featurizer,
    MinimumDistances,
    Torsions,
)
from molml.openmm import particle_numbers, python_force

if TYPE_CHECKING:
    from torch import Tensor, nn

Array = np.ndarray[Any, np.dtype[Any]]

ANGSTROM_PER_NM = 10.0


def plumed_input(estimator: Any, features: Featurizer, *, atoms: Sequence[int] | None = None, label: str = "z") -> str:
    """A fitted coordinate as input of PLUMED.

    Linear coordinates are made with TORSION, ANGLE, DISTANCE, CUSTOM and COMBINE, networks with ANN as well. The
    components are called z1, z2 … and can be given to any bias: METAD, RESTRAINT, OPES_METAD. Lengths are in nm, the
    unit that PLUMED has unless UNITS says otherwise. PLUMED must have been configured with
    ``--enable-modules=annfunc`` for networks.

    Parameters
    ----------
    estimator : fitted estimator of molml
    features : Featurizer
        That made the features it was fitted to.
    atoms : sequence of int, optional
        Number, counted from 0, in the simulation of every atom of the features' topology; needed if the trajectories
        did not hold all atoms in their order. PLUMED counts from 1, which is done here.
    label : str
        What the names of the components begin with.

    Returns
    -------
    str

    Raises
    ------
    TypeError, ValueError
        If the estimator is not fitted or has other features, a feature or an activation cannot be written for PLUMED,
        or the atoms do not fit.

    Examples
    --------
    >>> text = plumed_input(tica, features, atoms=topology.select("not element H"))  # doctest: +SKIP
    >>> bias = "METAD ARG=z1 SIGMA=0.1 HEIGHT=1.0 PACE=500 BIASFACTOR=10"  # doctest: +SKIP
    >>> _ = Path("plumed.dat").write_text(text + bias)  # doctest: +SKIP

    References
    ----------
    Tribello et al., Comput. Phys. Commun. 185, 604 (2014) (PLUMED); Chen, Tan and Ferguson, J. Chem. Phys. 149, 072312
    (2018) (ANN).
    """
    if not (label.isidentifier() and label.isascii()):
        raise ValueError(f"label must be letters, digits and _, beginning with no digit, got {label!r}")
    layers = _layers(estimator, features)
    numbers = _numbers(features, atoms)
    columns: list[_Column] = []
    lines = ["# lengths in nm; made by molml for " + type(estimator).__name__]
    for part in features.parts if isinstance(features, Concatenation) else [features]:
        lines += _collective_variables(part, numbers, columns, label)
    arguments = [column.name for column in columns]
    scale = np.array([column.per_unit for column in columns])
    if len(layers) == 1:
        weight, bias, _ = layers[0]
        for k, row in enumerate(weight, start=1):
            if not np.any(row):
                raise ValueError(f"component {k} is a constant, which nothing can push; fit with fewer components")
            # the bias is shared out over the terms, which PLUMED writes c (x - a)
            shift = -bias[k - 1] * row / np.sum(row**2)
            lines.append(
                f"{label}{k}: COMBINE ARG={','.join(arguments)} COEFFICIENTS={_join(row * scale)} "
                f"PARAMETERS={_join(shift / scale)} PERIODIC=NO"
            )
        return "\n".join(lines) + "\n"
    weight, bias, activation = layers[0]
    layers[0] = (weight * scale, bias, activation)
    return "\n".join([*lines, *_network(layers, arguments, label)]) + "\n"


def openmm_force(
    estimator: Any,
    features: Featurizer,
    bias: Callable[[Tensor], Tensor],
    *,
    atoms: Sequence[int] | None = None,
) -> Any:
    """A fitted coordinate as a force of OpenMM, for any energy that is a function of it.

    Parameters
    ----------
    estimator : fitted estimator of molml
    features : Featurizer
        That made the features it was fitted to.
    bias : callable
        Takes the coordinates, a tensor (n_components,) in double precision, and returns the energy, a tensor of one
        number in kJ/mol that can be differentiated; `HarmonicRestraint` is one. It may change from call to call, as
        metadynamics needs.
    atoms : sequence of int, optional
        Particle of every atom of the features' topology; needed if the trajectories did not hold all atoms.

    Returns
    -------
    openmm.PythonForce
        To add to a System. It can be serialised if features, estimator and bias can be pickled; functions of a module
        can, lambdas cannot. Molecules must be whole: it knows no periodic images.

    Raises
    ------
    TypeError, ValueError
        If the estimator is not fitted or has other features, the atoms do not fit, or the bias is not such a function.
    ModuleNotFoundError
        If OpenMM is missing, or older than 8.5.

    Examples
    --------
    >>> force = openmm_force(tica, features, HarmonicRestraint(50.0, [1.5]))  # doctest: +SKIP
    >>> system.addForce(force)  # doctest: +SKIP
    """
    import torch

    force_of = python_force()
    layers = _layers(estimator, features)
    numbers = _numbers(features, atoms)
    if not callable(bias):
        raise TypeError(f"bias must be a function of the coordinates, got {type(bias).__name__}")
    # a Function without derivatives would be found out in the middle of a simulation
    features.tensor(torch.from_numpy(np.random.default_rng(0).normal(size=(len(numbers), 3))))
    try_out = bias(torch.zeros(len(layers[-1][1]), dtype=torch.float64, requires_grad=True))
    if not isinstance(try_out, torch.Tensor) or try_out.numel() != 1 or not try_out.requires_grad:
        raise TypeError(
            "bias must return a tensor with one number that can be differentiated with respect to the coordinates, got "
            f"{try_out!r}"
        )
    force = force_of(_Bias(features, _as_module(estimator), bias))
    if atoms is not None:
        force.setParticles(numbers)
    return force


@final
class HarmonicRestraint:
    """Energy k/2 Σ (z - centre)² in kJ/mol.

    Parameters
    ----------
    k : float
        kJ/mol in units of the coordinate, positive.
    centre : sequence of float
        One number for every component.

    Raises
    ------
    ValueError
        If k is not positive, or the centre is not a list of finite numbers.
    """

    def __init__(self, k: float, centre: Sequence[float]) -> None:
        if not 0 < k < np.inf:
            raise ValueError(f"k must be positive, got {k}")
        if np.ndim(centre) != 1 or not np.isfinite(centre).all():
            raise ValueError(f"centre must be a list of finite numbers, one for each component, got {centre!r}")
        self.k, self.centre = float(k), [float(value) for value in centre]

    def __call__(self, z: Tensor) -> Tensor:
        """Energy of coordinates (n_components,).

        Raises
        ------
        ValueError
            If there are more or fewer of them than in the centre.
        """
        if len(z) != len(self.centre):
            raise ValueError(f"centre must have one number for each of the {len(z)} components, got {self.centre}")
        return 0.5 * self.k * ((z - z.new_tensor(self.centre)) ** 2).sum()

    def __repr__(self) -> str:
        return f"HarmonicRestraint({self.k}, {self.centre})"


class _Bias:
    """What a PythonForce calls; a class of a module, so that it can be pickled."""

    def __init__(self, features: Featurizer, module: nn.Module, bias: Callable[[Tensor], Tensor]) -> None:
        self.features, self.module, self.bias = features, module, bias

    def __call__(self, state: Any) -> tuple[float, Array]:
        import torch

        # a Quantity's own conversion costs as much as the network
        found = state.getPositions(asNumpy=True)._value
        if self.features.n_atoms is not None and len(found) != self.features.n_atoms:
            raise ValueError(
                f"atoms must be told: the features are of {self.features.n_atoms} atoms, the system has {len(found)}"
            )
        positions = torch.tensor(np.asarray(found) * ANGSTROM_PER_NM, requires_grad=True)
        energy = self.bias(self.module(self.features.tensor(positions)[None])[0])
        (gradient,) = torch.autograd.grad(energy.sum(), positions)
        if not torch.isfinite(gradient).all() or not torch.isfinite(energy).all():
            raise ValueError(
                f"the bias must be finite, got an energy of {energy.item()} kJ/mol or a gradient that is not"
            )
        return energy.item(), -ANGSTROM_PER_NM * gradient.numpy()


_Layer = tuple[Array, Array, str]
"""Weight (n_outputs, n_inputs), bias (n_outputs,), and name of the torch module that follows, "Linear" for none."""


def _as_module(estimator: Any) -> nn.Module:
    import torch
    from torch import nn

    if hasattr(estimator, "as_module"):
        module: nn.Module = estimator.as_module()
        return module
    n_components, n_features = estimator.components_.shape
    linear = nn.Linear(n_features, n_components, dtype=torch.float64).requires_grad_(False)
    linear.weight.copy_(torch.as_tensor(estimator.components_))
    linear.bias.copy_(-linear.weight @ torch.as_tensor(estimator.mean_, dtype=torch.float64))
    return linear


def _layers(estimator: Any, features: Featurizer) -> list[_Layer]:
    from sklearn.utils.validation import check_is_fitted
    from torch import nn

    if not callable(features) or not hasattr(features, "tensor"):
        raise TypeError(f"features must be a featurizer such as Torsions(topology), got {type(features).__name__}")
    check_is_fitted(estimator)
    if not hasattr(estimator, "as_module") and not hasattr(estimator, "components_"):
        raise TypeError(
            f"estimator must give a coordinate that can be differentiated (PCA, TICA, VAMP, autoencoders, VAMPnets), "
            f"got {type(estimator).__name__}"
        )
    if features.n_features != estimator.n_features_in_:
        raise ValueError(
            f"features must be those the estimator was fitted to, got {features.n_features} for an estimator of "
            f"{estimator.n_features_in_}"
        )
    layers: list[_Layer] = []
    module = _as_module(estimator)
    for each in module if isinstance(module, nn.Sequential) else [module]:
        if isinstance(each, nn.Linear):
            layers.append((each.weight.detach().numpy(), each.bias.detach().numpy(), "Linear"))
        else:
            layers[-1] = (*layers[-1][:2], type(each).__name__)
    return layers


def _numbers(features: Featurizer, atoms: Sequence[int] | None) -> list[int]:
    n_atoms = features.n_atoms
    if n_atoms is None:
        raise ValueError("features must be made for a number of atoms, got a Function; it cannot be biased from here")
    return list(range(n_atoms)) if atoms is None else particle_numbers("atoms", atoms, n_atoms)


class _Column(NamedTuple):
    name: str
    per_unit: float  # value of the feature for one unit of PLUMED


def _collective_variables(part: Featurizer, numbers: list[int], columns: list[_Column], label: str) -> list[str]:
    """Lines that make the features of one featurizer; their names are added to the columns."""
    if isinstance(part, Torsions):
        kind, groups = "TORSION", part.quadruplets
    elif isinstance(part, Angles):
        kind, groups = "ANGLE", part.triplets
    elif isinstance(part, Distances):
        kind, groups = "DISTANCE", part.pairs
    elif isinstance(part, ContactDistances | MinimumDistances) and all(len(group) == 1 for group in part.groups):
        kind, groups = "DISTANCE", np.concatenate(part.groups)[part.pairs]
    else:
        raise ValueError(
            f"features must be torsions, angles or distances of atom pairs to be written for PLUMED, got {part!r}; "
            "take such features, or openmm_force"
        )
    images = "" if part.periodic else " NOPBC"
    lines = []
    for group in groups:
        name = f"{label}_f{len(columns) + 1}"
        action = f"{kind} ATOMS={','.join(str(numbers[n] + 1) for n in group)}{images}"
        if not isinstance(part, Torsions):
            lines.append(f"{name}: {action}")
            columns.append(_Column(name, ANGSTROM_PER_NM if kind == "DISTANCE" else 1.0))
            continue
        lines.append(f"{name}_angle: {action}")
        # an angle itself must not be periodic any more, or COMBINE takes the nearest image of a difference
        for suffix, function in (("_cos", "cos(x)"), ("_sin", "sin(x)")) if part.cossin else (("", "x"),):
            lines.append(f"{name}{suffix}: CUSTOM ARG={name}_angle FUNC={function} PERIODIC=NO")
            columns.append(_Column(name + suffix, 1.0))
    return lines


# what ANN does not know, as functions of Lepton that neither overflow nor divide by zero
_FUNCTIONS = {
    "Sigmoid": "0.5+0.5*tanh(0.5*x)",
    "SiLU": "0.5*x*(1+tanh(0.5*x))",
    "ReLU": "x*step(x)",
    "Softsign": "x/(1+abs(x))",
}


def _network(layers: list[_Layer], arguments: list[str], label: str) -> list[str]:
    lines: list[str] = []
    block: list[_Layer] = []
    for n, (weight, bias, activation) in enumerate(layers, start=1):
        if activation not in ("Linear", "Tanh", *_FUNCTIONS):
            raise ValueError(
                f"activations must be tanh, logistic, silu, relu or softsign to be written for PLUMED, got {activation}"
            )
        block.append((weight, bias, "Linear" if activation in _FUNCTIONS else activation))
        if activation not in _FUNCTIONS and n < len(layers):
            continue
        name = f"{label}_net{n}"
        lines += [
            f"{name}: ANN ...",
            f"  ARG={','.join(arguments)}",
            f"  NUM_LAYERS={len(block) + 1}",
            f"  NUM_NODES={','.join(str(w.shape[1]) for w, _, _ in block)},{len(block[-1][1])}",
            f"  ACTIVATIONS={','.join(each for _, _, each in block)}",
            *(f"  WEIGHTS{i}={_join(w.ravel())}" for i, (w, _, _) in enumerate(block)),
            *(f"  BIASES{i}={_join(b)}" for i, (_, b, _) in enumerate(block)),
            "...",
        ]
        arguments = [f"{name}.node-{i}" for i in range(len(bias))]
        if activation in _FUNCTIONS:
            lines += [
                f"{name}_{i}: CUSTOM ARG={argument} FUNC={_FUNCTIONS[activation]} PERIODIC=NO"
                for i, argument in enumerate(arguments)
            ]
            arguments = [f"{name}_{i}" for i in range(len(bias))]
        block = []
    return lines + [f"{label}{k}: COMBINE ARG={name} PERIODIC=NO" for k, name in enumerate(arguments, start=1)]


def _join(values: Array) -> str:
    return ",".join(f"{float(value)!r}" for value in values)
