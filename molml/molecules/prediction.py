"""Models of measured properties: message passing on graphs, a linear baseline on fingerprints, and their validation."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, final

import numpy as np
import torch
from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator
from rdkit.Chem.Scaffolds import MurckoScaffold
from torch import Tensor, nn

from molml.io import Container, ModelFileError, save_container
from molml.molecules.data import as_molecules, canonical
from molml.molecules.dataset import Graphs, MoleculeBatch
from molml.molecules.encoders import GraphEncoder
from molml.molecules.features import GraphBatch, GraphFeatures, n_molecules, select
from molml.nn import MLP
from molml.training import Term, Trainer, cosine

if TYPE_CHECKING:
    import pandas

__all__ = ["FingerprintModel", "PropertyModel", "cross_validate", "fingerprints", "random_folds", "scaffold_folds"]

Kind = Literal["regression", "classification"]
BATCH = 256
N_CODE = 64


class Predictor(Protocol):
    """What `cross_validate` expects of a model."""

    def fit(self, mols: object, values: pandas.DataFrame, /) -> Any: ...

    def predict(self, mols: object, /) -> pandas.DataFrame: ...


@final
class PropertyModel(nn.Module):
    """Properties of molecules from their graphs, by message passing over the bonds.

    The encoder is that of the autoencoder without the places of the atoms and the directions of the bonds, so that it
    does not depend on how a molecule is written; a small network makes all properties of its code.

    Parameters
    ----------
    names : sequence of str
        Properties.
    kind : "regression" or "classification"
        In a classification every property is 0 or 1, and predicted is the probability of 1.
    width, n_layers : int
        Width of an atom's state and number of message passing steps.
    seed : int
        Of the initial weights, the order of the data and the molecules held out.
    metadata : dict, optional
        JSON-able facts that travel with the model.

    Attributes
    ----------
    config : dict
        JSON-able description that, with the tensors, rebuilds the model.

    Raises
    ------
    TypeError, ValueError
        If a parameter is out of its range.

    References
    ----------
    Gilmer et al., ICML 2017.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        kind: Kind = "regression",
        width: int = 64,
        n_layers: int = 3,
        seed: int = 0,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        _check_names(names)
        _check_kind(kind)
        for name, value, least in (("width", width, 1), ("n_layers", n_layers, 1), ("seed", seed, 0)):
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
        self.names, self.kind, self.width, self.n_layers, self.seed = list(names), kind, width, n_layers, seed
        self.metadata = dict(metadata or {})
        sizes = GraphFeatures.atom_sizes, GraphFeatures.bond_sizes
        self.encoder = GraphEncoder(
            *sizes, N_CODE, width=width, n_layers=n_layers, max_length=1, directed=False, seed=seed
        )
        self.head = MLP(N_CODE, [N_CODE], len(self.names), seed=seed + 1)
        self.register_buffer("mean", torch.zeros(len(self.names)))
        self.register_buffer("std", torch.ones(len(self.names)))

    @property
    def config(self) -> dict[str, Any]:
        """JSON-able description that, with the tensors, rebuilds the model."""
        return {
            "names": self.names,
            "kind": self.kind,
            "width": self.width,
            "n_layers": self.n_layers,
            "seed": self.seed,
        }

    def forward(self, batch: MoleculeBatch) -> Tensor:
        """Standardised properties, or log odds, shape (n, n_properties)."""
        return cast(Tensor, self.head(self.encoder(batch)[0]))

    def fit(
        self,
        mols: object,
        values: pandas.DataFrame | np.ndarray,
        *,
        max_epochs: int = 60,
        batch_size: int = 32,
        learning_rate: float = 1e-3,
        valid_fraction: float = 0.1,
        minutes: float | None = None,
        directory: str | os.PathLike[str] | None = None,
        resume: bool = False,
        progress: bool | None = None,
    ) -> PropertyModel:
        """Train on molecules and their properties, and keep the weights that are best on some of them, held out.

        Parameters
        ----------
        mols : Mol, str, or iterable of these
        values : DataFrame or array, shape (n, n_properties)
            NaN where unknown. The columns of a table are found by `names`.
        max_epochs, batch_size : int
        learning_rate : float
            Falls along half a cosine wave.
        valid_fraction : float
            Share of the molecules to hold out, drawn with `seed`; 0 keeps the weights with the best training figures.
        minutes, directory, resume, progress
            See `Trainer`.

        Returns
        -------
        PropertyModel
            Itself.

        Raises
        ------
        MoleculeError
            If something is no molecule.
        ValueError
            If molecules and values do not fit, a property is never known or, in a classification, not 0 or 1.
        """
        if not 0 <= valid_fraction < 1:
            raise ValueError(f"valid_fraction must lie in 0 … 1, got {valid_fraction}")
        graphs = GraphFeatures(exact=False)(mols)
        table = _table(values, self.names, self.kind, n_molecules(graphs))
        order = np.random.default_rng(self.seed).permutation(len(table))
        n_held = round(valid_fraction * len(table))
        held_out, rest = np.sort(order[:n_held]), np.sort(order[n_held:])
        if self.kind == "regression":
            # of the molecules trained on; a property that none of them has, or that does not vary, is only shifted
            known = np.isfinite(table[rest]).any(0)
            mean, std = np.zeros(len(self.names)), np.ones(len(self.names))
            mean[known], std[known] = np.nanmean(table[rest][:, known], 0), np.nanstd(table[rest][:, known], 0)
            cast(Tensor, self.mean).copy_(torch.from_numpy(mean))
            cast(Tensor, self.std).copy_(torch.from_numpy(np.where(std > 0, std, 1.0)))
        data = _LabelledGraphs(graphs, table)
        trainer = Trainer(
            self,
            _loss,
            torch.optim.AdamW(self.parameters(), lr=learning_rate, weight_decay=0.01),
            batch_size=batch_size,
            max_epochs=max_epochs,
            lr_schedule=cosine(warmup=0.05, end=0.02),
            clip_norm=5.0,
            minutes=minutes,
            seed=self.seed,
            directory=None if directory is None else Path(directory),
            config=self.config,
            progress=progress,
        )
        trainer.fit(data.subset(rest), data.subset(held_out) if n_held else None, resume=resume)
        return self

    @torch.no_grad()
    def predict(self, mols: object) -> pandas.DataFrame:
        """Properties of molecules, or their probabilities to be 1.

        Parameters
        ----------
        mols : Mol, str, or iterable of these

        Returns
        -------
        pandas.DataFrame, shape (n, n_properties), float64

        Raises
        ------
        MoleculeError
            If something is no molecule.
        """
        import pandas

        graphs = GraphFeatures(exact=False)(mols)
        data = _LabelledGraphs(graphs, np.zeros((n_molecules(graphs), len(self.names))))
        self.eval()
        parts = [np.zeros((0, len(self.names)))]
        for first in range(0, len(data), BATCH):
            output = self(data.collate(list(range(first, min(first + BATCH, len(data))))))
            if self.kind == "regression":
                output = output * cast(Tensor, self.std) + cast(Tensor, self.mean)
            else:
                output = torch.sigmoid(output)
            parts.append(output.double().numpy())
        return pandas.DataFrame(np.concatenate(parts), columns=self.names)

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None) -> None:
        """Write to a model file; ``molml.load`` reads it."""
        save_container(path, "PropertyModel", self.config, self.state_dict(), {**self.metadata, **(metadata or {})})

    @classmethod
    def from_container(cls, container: Container) -> PropertyModel:
        """Rebuild from a model file's content."""
        try:
            model = cls(**container.config, metadata=container.metadata)
            model.load_state_dict(container.tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ModelFileError(f"the file does not hold a whole PropertyModel: {error}; get it again") from error
        return model.eval()


@final
class _LabelledGraphs:
    """Graphs with their properties, for the Trainer."""

    def __init__(self, graphs: GraphBatch, values: np.ndarray) -> None:
        self.graphs, self.values = graphs, np.asarray(values, np.float32)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> int:
        return index

    def subset(self, indices: Sequence[int] | np.ndarray) -> _LabelledGraphs:
        return _LabelledGraphs(select(self.graphs, indices), self.values[np.asarray(indices, np.int64)])

    def collate(self, items: list[int]) -> MoleculeBatch:
        part = select(self.graphs, items)
        # the encoder's places are those in a string: all the same here
        arrays = (
            part.atoms,
            np.zeros(len(part.atoms)),
            part.bonds,
            part.ends,
            part.atom_counts,
            part.bond_counts,
        )
        graph = Graphs(*(torch.from_numpy(np.asarray(array, np.int64)) for array in arrays))
        return MoleculeBatch(torch.zeros(len(items), 0), graph, torch.from_numpy(self.values[items]))


def _loss(model: Any, batch: MoleculeBatch) -> dict[str, Term]:
    """Squared error of standardised properties, or cross-entropy in nats, per known value."""
    output, known = model(batch), torch.isfinite(batch.properties)
    if model.kind == "regression":
        target = (batch.properties - model.mean) / model.std
        return {"standard_mse": Term((output - target)[known].square().sum(), known.sum())}
    target = batch.properties[known]
    total = nn.functional.binary_cross_entropy_with_logits(output[known], target, reduction="sum")
    return {"cross_entropy": Term(total, known.sum())}


@final
class FingerprintModel:
    """Linear baseline: ridge or logistic regression on counts of circular fragments.

    The strength of the regularisation is chosen on the training data, by leave-one-out or three folds.

    Parameters
    ----------
    names : sequence of str
        Properties, each with a regression of its own on the molecules for which it is known.
    kind : "regression" or "classification"
    """

    def __init__(self, names: Sequence[str], *, kind: Kind = "regression") -> None:
        _check_names(names)
        _check_kind(kind)
        self.names, self.kind = list(names), kind
        self._models: list[Any] = []

    def fit(self, mols: object, values: pandas.DataFrame | np.ndarray) -> FingerprintModel:
        """Fit to molecules and their properties; parameters and errors as in `PropertyModel.fit`."""
        from sklearn.linear_model import LogisticRegression, RidgeCV
        from sklearn.model_selection import GridSearchCV

        inputs = fingerprints(mols)
        table = _table(values, self.names, self.kind, len(inputs))
        models = []
        for target in table.T:
            known = np.isfinite(target)
            if self.kind == "regression":
                model = RidgeCV(alphas=np.logspace(-1, 4, 11))
            else:
                fewest = int(np.bincount(target[known].astype(int), minlength=2).min())
                if fewest < 3:
                    raise ValueError(
                        f"values must have three molecules of either class in every column, got {fewest} of the rarer"
                    )
                grid = {"C": [0.003, 0.03, 0.3]}
                model = GridSearchCV(LogisticRegression(max_iter=300), grid, cv=3, scoring="roc_auc")
            models.append(model.fit(inputs[known], target[known]))
        self._models = models
        return self

    def predict(self, mols: object) -> pandas.DataFrame:
        """Properties or probabilities; as in `PropertyModel.predict`."""
        import pandas

        if not self._models:
            raise ValueError("the model must be fitted before it predicts; call fit")
        inputs = fingerprints(mols)
        if self.kind == "regression":
            columns = [model.predict(inputs) for model in self._models]
        else:
            columns = [model.predict_proba(inputs)[:, 1] for model in self._models]
        return pandas.DataFrame(np.stack(columns, 1), columns=self.names)


def fingerprints(mols: object, *, radius: int = 2, n_bits: int = 2048) -> np.ndarray:
    """How often each circular fragment occurs, with the logarithm taken of 1 + count.

    Parameters
    ----------
    mols : Mol, str, or iterable of these
    radius : int
        In bonds.
    n_bits : int
        Fragments are folded to so many columns.

    Returns
    -------
    ndarray of float64, shape (n, n_bits)

    References
    ----------
    Rogers and Hahn, J. Chem. Inf. Model. 50, 742 (2010).
    """
    make = rdFingerprintGenerator.GetMorganGenerator(radius=radius, fpSize=n_bits)
    rows = [make.GetCountFingerprintAsNumPy(mol) for mol in as_molecules(mols)]
    return np.log1p(np.array(rows, dtype=np.float64).reshape(len(rows), n_bits))


def random_folds(n: int, n_folds: int = 5, *, seed: int = 0) -> np.ndarray:
    """Fold of every one of `n` molecules, by chance.

    Parameters
    ----------
    n, n_folds : int
    seed : int

    Returns
    -------
    ndarray of int64, shape (n,)
        Folds of equal size, give or take one.

    Raises
    ------
    ValueError
        If there are fewer molecules than folds, or fewer than two folds.
    """
    _check_folds(n, n_folds)
    return np.random.default_rng(seed).permutation(np.arange(n) % n_folds)


def scaffold_folds(mols: object, n_folds: int = 5) -> np.ndarray:
    """Fold of every molecule, such that all with one scaffold are in one fold: a test on new chemistry.

    The scaffold is that of Bemis and Murcko without configuration; a molecule without rings is its own. The largest
    groups come first, each into the fold that has the fewest molecules.

    Parameters
    ----------
    mols : Mol, str, or iterable of these
    n_folds : int

    Returns
    -------
    ndarray of int64, shape (n,)

    Raises
    ------
    ValueError
        If there are fewer scaffolds than folds, or fewer than two folds.

    References
    ----------
    Bemis and Murcko, J. Med. Chem. 39, 2887 (1996).

    Examples
    --------
    >>> scaffold_folds(["Cc1ccccc1", "Oc1ccccc1", "CCO", "CC1CCCCC1"], 2)
    array([0, 0, 1, 1])
    """
    groups: dict[str, list[int]] = {}
    for number, mol in enumerate(as_molecules(mols)):
        groups.setdefault(_scaffold(mol), []).append(number)
    _check_folds(len(groups), n_folds, "scaffolds")
    folds = np.empty(sum(map(len, groups.values())), np.int64)
    filled = np.zeros(n_folds, np.int64)
    for members in sorted(groups.values(), key=lambda group: (-len(group), group[0])):
        fold = int(filled.argmin())
        folds[members] = fold
        filled[fold] += len(members)
    return folds


def _scaffold(mol: Chem.Mol) -> str:
    return MurckoScaffold.MurckoScaffoldSmiles(mol=mol, includeChirality=False) or canonical(mol)


def cross_validate(
    make: Callable[[int], Predictor],
    mols: object,
    values: pandas.DataFrame,
    folds: np.ndarray,
    *,
    kind: Kind = "regression",
) -> pandas.DataFrame:
    """Errors of a model on each fold, trained on the others.

    Parameters
    ----------
    make : callable
        Number of the fold -> new model with `fit` and `predict`.
    mols : iterable of Mol or str
    values : DataFrame, shape (n, n_properties)
        NaN where unknown.
    folds : array of int, shape (n,)
        From 0: `random_folds`, `scaffold_folds`.
    kind : "regression" or "classification"

    Returns
    -------
    pandas.DataFrame, one row per fold
        Columns rmse and mae, or roc_auc; means over the properties, of which one that a fold does not know (or of one
        class only) is left out.

    Raises
    ------
    ValueError
        If the folds do not fit, or a fold knows no property.
    """
    import pandas

    _check_kind(kind)
    molecules = as_molecules(mols)
    table = _table(values, list(values.columns), kind, len(molecules))
    folds = np.asarray(folds)
    if folds.shape != (len(molecules),) or not np.array_equal(np.unique(folds), np.arange(folds.max() + 1)):
        raise ValueError(f"folds must be a number per molecule, each from 0 on in use, got shape {folds.shape}")
    _check_folds(len(molecules), int(folds.max()) + 1)
    rows = []
    for fold in range(folds.max() + 1):
        rest, part = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        model = make(fold)
        model.fit([molecules[i] for i in rest], values.iloc[rest].reset_index(drop=True))
        predicted = model.predict([molecules[i] for i in part]).to_numpy()
        figures = _classified(predicted, table[part]) if kind == "classification" else _errors(predicted, table[part])
        if not figures:
            raise ValueError(
                f"every fold must know a property (and both its classes), got fold {fold} without; use fewer"
            )
        rows.append(pandas.DataFrame(figures).mean())
    return pandas.DataFrame(rows)


def _errors(predicted: np.ndarray, table: np.ndarray) -> list[dict[str, float]]:
    errors = [(one - other)[np.isfinite(other)] for one, other in zip(predicted.T, table.T, strict=True)]
    return [{"rmse": float(np.sqrt((e**2).mean())), "mae": float(np.abs(e).mean())} for e in errors if len(e)]


def _classified(predicted: np.ndarray, table: np.ndarray) -> list[dict[str, float]]:
    from sklearn.metrics import roc_auc_score

    figures = []
    for one, other in zip(predicted.T, table.T, strict=True):
        known = np.isfinite(other)
        if len(np.unique(other[known])) == 2:
            figures.append({"roc_auc": float(roc_auc_score(other[known], one[known]))})
    return figures


def _check_names(names: Sequence[str]) -> None:
    if isinstance(names, str) or not names or len(set(names)) != len(names):
        raise ValueError(f"names must be a list of different names, got {names!r}")


def _check_kind(kind: str) -> None:
    if kind not in ("regression", "classification"):
        raise ValueError(f"kind must be 'regression' or 'classification', got {kind!r}")


def _check_folds(n: int, n_folds: int, what: str = "molecules") -> None:
    if not 2 <= n_folds <= n:
        raise ValueError(f"n_folds must lie in 2 … {n}, the number of {what}, got {n_folds}")


def _table(values: Any, names: Sequence[str], kind: str, n: int) -> np.ndarray:
    """Values of the properties, checked."""
    if hasattr(values, "columns"):
        missing = [name for name in names if name not in values.columns]
        if missing:
            raise ValueError(f"values must have the column {missing[0]!r}, got {list(values.columns)}")
        values = values[list(names)].to_numpy()
    table = np.asarray(values, np.float64)
    if table.shape != (n, len(names)):
        raise ValueError(
            f"values must have a row per molecule and a column per name, {(n, len(names))}, got {table.shape}"
        )
    known = ~np.isnan(table)
    if np.isinf(table).any() or not known.any(0).all():
        raise ValueError("values must be finite or NaN, and every property known somewhere; leave the others out")
    if kind == "classification" and not np.isin(table[known], (0, 1)).all():
        raise ValueError("values of a classification must be 0, 1 or NaN; use kind='regression' for other numbers")
    return table
