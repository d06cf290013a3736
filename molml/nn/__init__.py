"""Parts that networks of every arm are made of; they know torch and nothing else."""

from molml.nn.activations import activation
from molml.nn.flows import CouplingFlow
from molml.nn.mlp import MLP

__all__ = ["MLP", "CouplingFlow", "activation"]
