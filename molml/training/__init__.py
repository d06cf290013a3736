"""Training and validation of models of every arm; it knows no model and no arm."""

from molml.training.checkpoint import ResumeError
from molml.training.data import ArrayDataset, Dataset
from molml.training.distributed import Processes, processes
from molml.training.interruption import TrainingInterrupted
from molml.training.loss import Term, absolute_error, objective, squared_error
from molml.training.schedules import cosine
from molml.training.trainer import History, Trainer, TrainingDivergedError

__all__ = [
    "ArrayDataset",
    "Dataset",
    "History",
    "Processes",
    "ResumeError",
    "Term",
    "Trainer",
    "TrainingDivergedError",
    "TrainingInterrupted",
    "absolute_error",
    "cosine",
    "objective",
    "processes",
    "squared_error",
]
