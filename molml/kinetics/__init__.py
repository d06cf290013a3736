"""Slow motions in trajectories: features, linear and neural coordinates, Markov models, compared side by side.

The public names, in the order one meets them. Nothing heavy is imported before one of them is used.
"""

from typing import TYPE_CHECKING

from molml.lazy import lazy_names

if TYPE_CHECKING:
    from molml.kinetics.alignment import align
    from molml.kinetics.autoencoders import Autoencoder, TimeLaggedAutoencoder, VariationalTimeLaggedAutoencoder
    from molml.kinetics.bayesian import BayesianMarkovStateModel
    from molml.kinetics.biasing import HarmonicRestraint, openmm_force, plumed_input
    from molml.kinetics.clustering import GaussianMixture, KMeans
    from molml.kinetics.comparison import Comparison, compare
    from molml.kinetics.data import TimeLagged, TimeLaggedDataset, TrajectoryFiles, time_blocks
    from molml.kinetics.features import (
        Angles,
        Concatenation,
        ContactDistances,
        Distances,
        Function,
        MinimumDistances,
        Positions,
        ReferenceRMSD,
        Torsions,
        features_from_names,
    )
    from molml.kinetics.linear import PCA, TICA, VAMP
    from molml.kinetics.markov import MarkovStateModel
    from molml.kinetics.mixture import GaussianMixtureVAE
    from molml.kinetics.structures import moving, representatives
    from molml.kinetics.validation import chapman_kolmogorov, implied_timescales
    from molml.kinetics.vampnets import ReversibleVAMPNet, VAMPNet

_HOMES = {
    "load_topology": "reading",
    "parse_lag": "reading",
    "TrajectoryFiles": "data",
    "TimeLagged": "data",
    "TimeLaggedDataset": "data",
    "time_blocks": "data",
    "align": "alignment",
    "Positions": "features",
    "Distances": "features",
    "ContactDistances": "features",
    "MinimumDistances": "features",
    "Angles": "features",
    "Torsions": "features",
    "ReferenceRMSD": "features",
    "Function": "features",
    "Concatenation": "features",
    "features_from_names": "features",
    "PCA": "linear",
    "TICA": "linear",
    "VAMP": "linear",
    "Autoencoder": "autoencoders",
    "TimeLaggedAutoencoder": "autoencoders",
    "VariationalTimeLaggedAutoencoder": "autoencoders",
    "VAMPNet": "vampnets",
    "ReversibleVAMPNet": "vampnets",
    "GaussianMixtureVAE": "mixture",
    "KMeans": "clustering",
    "GaussianMixture": "clustering",
    "MarkovStateModel": "markov",
    "pcca": "metastable",
    "implied_timescales": "validation",
    "chapman_kolmogorov": "validation",
    "BayesianMarkovStateModel": "bayesian",
    "compare": "comparison",
    "Comparison": "comparison",
    "plumed_input": "biasing",
    "openmm_force": "biasing",
    "HarmonicRestraint": "biasing",
    "representatives": "structures",
    "moving": "structures",
}

__all__ = [
    "PCA",
    "TICA",
    "VAMP",
    "Angles",
    "Autoencoder",
    "BayesianMarkovStateModel",
    "Comparison",
    "Concatenation",
    "ContactDistances",
    "Distances",
    "Function",
    "GaussianMixture",
    "GaussianMixtureVAE",
    "HarmonicRestraint",
    "KMeans",
    "MarkovStateModel",
    "MinimumDistances",
    "Positions",
    "ReferenceRMSD",
    "ReversibleVAMPNet",
    "TimeLagged",
    "TimeLaggedAutoencoder",
    "TimeLaggedDataset",
    "Torsions",
    "TrajectoryFiles",
    "VAMPNet",
    "VariationalTimeLaggedAutoencoder",
    "align",
    "chapman_kolmogorov",
    "compare",
    "features_from_names",
    "implied_timescales",
    "load_topology",
    "moving",
    "openmm_force",
    "parse_lag",
    "pcca",
    "plumed_input",
    "representatives",
    "time_blocks",
]

__getattr__, __dir__ = lazy_names("molml.kinetics", _HOMES)
