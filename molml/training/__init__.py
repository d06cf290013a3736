"""Training and validation of models of every arm; it knows no model and no arm."""

from molml.training.adversarial import adversarial_loss, play
from molml.training.checkpoint import ResumeError
from molml.training.data import ArrayDataset, Dataset
from molml.training.distributed import Processes, processes
from molml.training.interruption import TrainingInterrupted
from molml.training.loss import Term, absolute_error, objective, squared_error
from molml.training.plots import plot_bias_variance, plot_history, plot_learning_curve
from molml.training.schedules import cosine
from molml.training.trainer import History, Trainer, TrainingDivergedError
from molml.training.validation import (
    BiasVariance,
    Candidate,
    CrossValidation,
    LearningCurve,
    bias_variance,
    cross_validate,
    learning_curve,
    resampled_predictions,
    search,
    train_test_split,
)

__all__ = [
    "ArrayDataset",
    "BiasVariance",
    "Candidate",
    "CrossValidation",
    "Dataset",
    "History",
    "LearningCurve",
    "Processes",
    "ResumeError",
    "Term",
    "Trainer",
    "TrainingDivergedError",
    "TrainingInterrupted",
    "absolute_error",
    "adversarial_loss",
    "bias_variance",
    "cosine",
    "cross_validate",
    "learning_curve",
    "objective",
    "play",
    "plot_bias_variance",
    "plot_history",
    "plot_learning_curve",
    "processes",
    "resampled_predictions",
    "search",
    "squared_error",
    "train_test_split",
]
