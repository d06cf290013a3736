"""Every method on the same features and the same held-out blocks of time: which slow motions there are, how slow, and
which method finds them."""

from __future__ import annotations

import html
import math
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from molml.kinetics.autoencoders import Autoencoder, TimeLaggedAutoencoder, VariationalTimeLaggedAutoencoder
from molml.kinetics.data import (
    Array,
    Segment,
    Streamed,
    Trajectories,
    as_list,
    check_lengths,
    remaining_blocks,
    time_blocks,
)
from molml.kinetics.discretisation import N_CELLS, Markov, cells_of, finite, markov_model, timescale_metrics
from molml.kinetics.linear import PCA, TICA, VAMP
from molml.kinetics.markov import MarkovStateModel
from molml.kinetics.metastable import pcca
from molml.kinetics.metrics import canonical_correlations, vamp_score
from molml.kinetics.vampnets import ReversibleVAMPNet, VAMPNet
from molml.training.threads import in_processes

__all__ = ["METHODS", "Comparison", "Coordinate", "Reference", "compare"]

METHODS = ("pca", "tica", "vamp", "autoencoder", "tae", "vampnet", "reversible-vampnet")
"""What `compare` compares unless told; "variational-tae" is there besides."""

_BLOCK = 10_000  # frames


class Reference(NamedTuple):
    """Coordinates one knows, and what a Markov model makes of them.

    Attributes
    ----------
    names : list of str
    coordinates : list of array (n_frames, n_reference)
    markov : Markov
    slow_state : list of array (n_frames, 1)
        1 where the Markov model's slowest process is on one side, 0 where it is on the other.
    """

    names: list[str]
    coordinates: list[Array]
    markov: Markov
    slow_state: list[Array]


@final
@dataclass(frozen=True)
class Coordinate:
    """What one method made of the data.

    Attributes
    ----------
    name : str
        Of method and dimension: "tica", or "tica-1d" beside a larger one.
    method : str
    n_components : int
    estimator : object
        Fitted to all frames.
    coordinates : list of array (n_frames, n_components)
        Of all frames.
    markov : Markov
        Made of `coordinates`.
    metrics : dict
        As in metrics.json, times in ps.
    """

    name: str
    method: str
    n_components: int
    estimator: Any
    coordinates: list[Array]
    markov: Markov
    metrics: dict[str, Any]


@final
@dataclass(frozen=True)
class Comparison:
    """Result of `compare`: a table in a terminal and a notebook, figures and a report through `molml.kinetics.report`.

    Attributes
    ----------
    methods : dict of name to Coordinate
        In the order in which they were asked for.
    reference : Reference or None
    lagtime : int
        In frames.
    timestep : float
        Time between two frames, ps.
    lengths : list of int
        Frames of every trajectory.
    n_features, n_folds, seed : int
    """

    methods: dict[str, Coordinate]
    reference: Reference | None
    lagtime: int
    timestep: float
    lengths: list[int]
    n_features: int
    n_folds: int
    seed: int

    @property
    def metrics(self) -> dict[str, Any]:
        """What metrics.json holds; times in ps."""
        content: dict[str, Any] = {
            "methods": {name: coordinate.metrics for name, coordinate in self.methods.items()},
            "lagtime": self.lagtime * self.timestep,
            "lagtime_frames": self.lagtime,
            "timestep": self.timestep,
            "n_trajectories": len(self.lengths),
            "n_frames": sum(self.lengths),
            "n_features": self.n_features,
            "n_folds": self.n_folds,
            "seed": self.seed,
        }
        if self.reference is not None:
            content["reference"] = {
                "names": self.reference.names,
                **timescale_metrics(self.reference.markov, self.timestep),
            }
        return content

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Titles of the columns, and a row per method, as text.

        Returns
        -------
        head : list of str
        rows : list of list of str
        """
        head = ["method", "VAMP-2", "timescales (ps)", "own (ps)", "regression error"]
        if self.reference is not None:
            head += ["correlation", "slow state"]
        head += ["metastability", "seconds"]
        rows = []
        for name, coordinate in self.methods.items():
            m = coordinate.metrics
            row = [
                name,
                f"{m['vamp2']:.3f} ± {m['vamp2_se']:.3f}",
                _timescale_text(m["timescales"], m["timescales_low"], m["timescales_high"]),
                ", ".join("∞" if t is None else f"{t:.3g}" for t in m["own_timescales"][:2]),
                f"{m['regression_error']:.4f}",
            ]
            if self.reference is not None:
                row += [f"{m['correlations'][0]:.3f}", f"{_three(m['state_correlation'])}"]
            rows.append([*row, f"{m['metastability']:.3f}", f"{m['fit_seconds']:.2g}"])
        if self.reference is not None:
            m = self.metrics["reference"]
            text = _timescale_text(m["timescales"], m["timescales_low"], m["timescales_high"])
            rows.append(["reference", "", text, *[""] * (len(head) - 3)])
        return head, rows

    def __repr__(self) -> str:
        head, rows = self.table()
        widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]]
        return "\n".join(line.rstrip() for line in lines)

    def _repr_html_(self) -> str:
        head, rows = self.table()
        titles = "".join(f"<th>{html.escape(title)}</th>" for title in head)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        return f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"


def compare(
    trajectories: Trajectories,
    lagtime: int,
    *,
    methods: Sequence[str] = METHODS,
    dims: Sequence[int] = (2,),
    reference: Trajectories | None = None,
    reference_names: Sequence[str] = (),
    timestep: float = 1.0,
    n_folds: int = 4,
    n_states: int = N_CELLS,
    max_epochs: int | None = None,
    seed: int = 0,
    n_jobs: int = 1,
    directory: str | os.PathLike[str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    progress: bool | None = None,
) -> Comparison:
    """Fit every method to the same features and judge all on the same held-out blocks of time.

    Every method is fitted `n_folds` times without one block of time (`time_blocks`), and judged on that block; then it
    is fitted to all frames for its Markov model, its own timescales and its file. The figures:

    - ``vamp2``: VAMP-2 score of the coordinates on held-out blocks, 1 for the constant included; mean over the blocks
      and its standard error. At most the number of coordinates plus one.
    - ``timescales``: implied timescales of a reversible Markov model on k-means cells of the coordinates, with 95 %
      intervals from resampled blocks of time: what the coordinates can tell apart.
    - ``own_timescales``: those that the method itself states; for PCA and the autoencoder, of the linear
      autocorrelation (TICA) of their coordinates.
    - ``regression_error``: fraction of the variance of the whitened features one lag time later that the coordinates
      leave unexplained on held-out blocks; they predict by the mean of the training frames in the same cell, whatever
      the method, so that the figures compare.
    - ``correlations``: canonical correlations with the reference coordinates; ``state_correlation``: with the indicator
      of the slow state of a Markov model of the reference. On held-out blocks, the latter on those that visit both
      sides; None if none does.
    - ``metastability``: mean probability to be in the same of n_components + 1 sets (PCCA+) a lag time later.
    - ``fit_seconds``: processor time of the fit to all frames.

    Parameters
    ----------
    trajectories : array (n_frames, n_features), list of such arrays, or Streamed
        Features. They are written to a temporary folder once.
    lagtime : int
        In frames.
    methods : sequence of str
        Among `METHODS` and "variational-tae".
    dims : sequence of int
        Numbers of coordinates. With several, the largest keeps the method's name and the others are called
        "tica-1d" and so on.
    reference : as `trajectories`, optional
        Coordinates one knows, such as torsions, of the same frames.
    reference_names : sequence of str, optional
        What they are called.
    timestep : float
        Time between two frames, ps.
    n_folds : int
        Blocks of time, each held out once; at least 2.
    n_states : int
        Most cells of the Markov models; fewer where a cell would have less than 50 frames.
    max_epochs : int, optional
        Limit for the networks; their own default if not given.
    seed : int
    n_jobs : int
        Processes to work in, each on one core; figures do not depend on it.
    directory : path-like, optional
        Folder that exists, for NAME.molml, written as soon as a method is done: an interruption costs the rest only.
    metadata : mapping, optional
        JSON-able description for these files.
    progress : bool, optional
        Show a progress bar; if not given, only if stderr is a terminal.

    Returns
    -------
    Comparison

    Raises
    ------
    TypeError, ValueError
        For data or settings that do not fit; the message names them.

    References
    ----------
    Cross-validated VAMP-2: Wu and Noé, J. Nonlinear Sci. 30, 23 (2020); McGibbon and Pande, J. Chem. Phys. 142, 124105
    (2015).
    """
    names = _checked_settings(methods, dims, n_folds, n_states, timestep, lagtime, n_jobs)
    if reference is None and len(reference_names):
        raise ValueError(f"reference_names are given without reference, got {list(reference_names)}; give both")
    # small matrices gain nothing from more threads, and lose much where threads wait for each other
    with tempfile.TemporaryDirectory(prefix="molml-") as folder, threadpool_limits(1):
        data = _on_disk(trajectories, Path(folder) / "features", "trajectories")
        known = [] if reference is None else _on_disk(reference, Path(folder) / "reference", "reference")
        lengths = [len(x) for x in data]
        check_lengths(lengths, lagtime, name="trajectories")
        if known and [len(x) for x in known] != lengths:
            raise ValueError(
                f"reference must have the frames of the trajectories, {lengths}, got {[len(x) for x in known]}"
            )
        named = _reference(known, list(reference_names), lagtime, n_states, seed) if known else None
        task = _Task(data, named, time_blocks(lengths, n_folds, lagtime), lagtime, n_states, max_epochs, seed)
        results = {}
        # a method's blocks and, last, all frames; in this order, so that its file is written as soon as it can be
        tasks = [(name, fold) for name in names for fold in [*range(n_folds), None]]
        shown = progress if progress is not None else sys.stderr.isatty()
        done = in_processes(n_jobs, task.run, [(*names[name], fold) for name, fold in tasks])
        with tqdm(total=len(tasks), desc="comparing", unit="fit", disable=not shown) as bar:
            judged: list[dict[str, Any]] = []
            for (name, fold), result in zip(tasks, done, strict=True):
                bar.update()
                bar.set_postfix_str(name)
                if fold is not None:
                    judged.append(result)
                    continue
                results[name] = _assembled(name, *names[name], result, judged, timestep)
                judged = []
                if directory is not None:
                    described = {**(metadata or {}), "timestep": timestep, "metrics": results[name].metrics}
                    results[name].estimator.save(Path(directory) / f"{name}.molml", described)
        return Comparison(results, named, lagtime, timestep, lengths, data[0].shape[1], n_folds, seed)


def _checked_settings(
    methods: Sequence[str],
    dims: Sequence[int],
    n_folds: int,
    n_states: int,
    timestep: float,
    lagtime: int,
    n_jobs: int,
) -> dict[str, tuple[str, int]]:
    known = (*METHODS, "variational-tae")
    unknown = [method for method in methods if method not in known]
    if unknown or not methods or len(set(methods)) < len(methods):
        raise ValueError(f"methods must be different ones among {', '.join(known)}, got {list(methods)}")
    if not dims or any(not isinstance(d, int | np.integer) or d < 1 for d in dims) or len(set(dims)) < len(dims):
        raise ValueError(f"dims must be different whole numbers of at least 1, got {list(dims)}")
    if not isinstance(n_folds, int | np.integer) or n_folds < 2:
        raise ValueError(f"n_folds must be at least 2, got {n_folds!r}; nothing would be held out")
    if not isinstance(n_states, int | np.integer) or n_states < 2:
        raise ValueError(f"n_states must be at least 2, got {n_states!r}")
    if not isinstance(n_jobs, int) or n_jobs < 1:
        raise ValueError(f"n_jobs must be at least 1, got {n_jobs!r}")
    if not (math.isfinite(timestep) and timestep > 0):
        raise ValueError(f"timestep must be a positive time in ps, got {timestep!r}")
    if lagtime == 0:
        raise ValueError("lagtime must be at least one frame, got 0")
    most = max(dims)
    return {method if d == most else f"{method}-{d}d": (method, int(d)) for method in methods for d in sorted(dims)}


def _on_disk(trajectories: Trajectories, folder: Path, name: str) -> list[Array]:
    """Memory maps of the trajectories, which processes share, and which take no memory that others need."""
    arrays = as_list(trajectories, name=name)
    folder.mkdir()
    lengths = arrays.lengths if isinstance(arrays, Streamed) else [len(x) for x in arrays]
    maps = []
    for number, length in enumerate(lengths):
        blocks = arrays.blocks(number, _BLOCK) if isinstance(arrays, Streamed) else iter([arrays[number]])
        target, first = None, 0
        for block in blocks:
            if target is None:
                file = folder / f"{number}.npy"
                target = np.lib.format.open_memmap(file, mode="w+", dtype=block.dtype, shape=(length, block.shape[1]))
            target[first : first + len(block)] = block
            first += len(block)
        maps.append(np.load(file, mmap_mode="r"))
    return maps


def estimator_of(
    method: str, n_components: int, lagtime: int, *, max_epochs: int | None, seed: int, progress: bool | None
) -> Any:
    """The estimator that `compare` fits for a method, with its defaults."""
    if method == "pca":
        return PCA(n_components)
    if method == "tica":
        return TICA(lagtime, n_components)
    if method == "vamp":
        return VAMP(lagtime, n_components)
    options: dict[str, Any] = {"seed": seed, "progress": progress}
    if max_epochs is not None:
        options["max_epochs"] = max_epochs
    if method == "autoencoder":
        return Autoencoder(n_components, **options)
    networks = {
        "tae": TimeLaggedAutoencoder,
        "variational-tae": VariationalTimeLaggedAutoencoder,
        "vampnet": VAMPNet,
        "reversible-vampnet": ReversibleVAMPNet,
    }
    return networks[method](lagtime, n_components, **options)


class _Whole(NamedTuple):
    """What a fit to all frames gives."""

    estimator: Any
    seconds: float
    coordinates: list[Array]
    markov: Markov


@final
class _Task:
    """What is done again and again: a method is fitted, without a block of time and judged on it, or to all frames."""

    def __init__(
        self,
        data: list[Array],
        reference: Reference | None,
        folds: list[list[Segment]],
        lagtime: int,
        n_cells: int,
        max_epochs: int | None,
        seed: int,
    ) -> None:
        self.data, self.reference, self.folds = data, reference, folds
        self.lagtime, self.n_cells, self.max_epochs, self.seed = lagtime, n_cells, max_epochs, seed

    def run(self, method: str, n_components: int, fold: int | None) -> dict[str, Any] | _Whole:
        estimator = estimator_of(
            method, n_components, self.lagtime, max_epochs=self.max_epochs, seed=self.seed, progress=False
        )
        if fold is not None:
            judge = _Fold(self.data, self.reference, self.folds[fold], self.lagtime, self.n_cells, self.seed)
            return judge.judge(estimator.fit(judge.training))
        started = time.process_time()
        estimator.fit(self.data)
        seconds = time.process_time() - started
        coordinates = estimator.transform(self.data)
        markov = markov_model(coordinates, self.lagtime, n_cells=self.n_cells, seed=self.seed)
        return _Whole(estimator, seconds, coordinates, markov)


@final
class _Fold:
    """A held-out block of time, and all that judges every method on it.

    The training frames are everything else; features are whitened by them, so that the regression error does not
    depend on units.
    """

    def __init__(
        self,
        data: list[Array],
        reference: Reference | None,
        held: list[Segment],
        lagtime: int,
        n_cells: int,
        seed: int,
    ) -> None:
        self.lagtime, self.n_cells, self.seed = lagtime, n_cells, seed
        lengths = [len(x) for x in data]
        self.training = [np.asarray(data[i][start:stop]) for i, start, stop in remaining_blocks(lengths, held, lagtime)]
        self.held = [np.asarray(data[i][start:stop]) for i, start, stop in held]
        self._reference: list[Array] = []
        self._state: list[Array] = []
        if reference is not None:
            self._reference = [reference.coordinates[i][start:stop] for i, start, stop in held]
            self._state = [reference.slow_state[i][start:stop] for i, start, stop in held]
        self._whitening = PCA(whiten=True).fit(self.training)

    def judge(self, estimator: Any) -> dict[str, Any]:
        """Figures of an estimator that was fitted to the training frames; None where the block cannot tell."""
        held = estimator.transform(self.held)
        result: dict[str, Any] = {
            "vamp2": vamp_score(held, self.lagtime),
            "regression_error": self._regression_error(estimator.transform(self.training), held),
        }
        if self._reference:
            result["correlations"] = canonical_correlations(held, self._reference).tolist()
            result["state_correlation"] = _correlation(held, self._state)
        return result

    def _regression_error(self, training: list[Array], held: list[Array]) -> float:
        """Unexplained fraction of the whitened features a lag time later."""
        cells = cells_of(training, self.n_cells, seed=self.seed)
        n_cells = cells.n_clusters
        lag, rank = self.lagtime, self._whitening.components_.shape[0]
        sums, counts = np.zeros((n_cells, rank)), np.zeros(n_cells)
        for z, x in zip(training, self.training, strict=True):
            cell, target = np.asarray(cells.predict(z[:-lag])), self._whitening.transform(x[lag:])
            order = np.argsort(cell, kind="stable")
            occupied, first = np.unique(cell[order], return_index=True)
            sums[occupied] += np.add.reduceat(np.asarray(target)[order], first, axis=0)
            counts += np.bincount(cell, minlength=n_cells)
        mean = sums.sum(axis=0) / counts.sum()
        predicted = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], mean)
        error = total = 0.0
        for z, x in zip(held, self.held, strict=True):
            target = np.asarray(self._whitening.transform(x[lag:]))
            error += float(np.square(target - predicted[np.asarray(cells.predict(z[:-lag]))]).sum())
            total += float(np.square(target - mean).sum())
        return error / total


def _correlation(coordinates: list[Array], state: list[Array]) -> float | None:
    """Canonical correlation with an indicator; None where the block never leaves one side."""
    return float(canonical_correlations(coordinates, state)[0]) if np.ptp(np.concatenate(state)) > 0 else None


def _assembled(
    name: str, method: str, n_components: int, whole: _Whole, judged: list[dict[str, Any]], timestep: float
) -> Coordinate:
    estimator, markov = whole.estimator, whole.markov
    lagtime = markov.model.lagtime
    own = estimator if hasattr(estimator, "timescales") else TICA(lagtime, n_components).fit(whole.coordinates)
    metrics: dict[str, Any] = {"n_components": n_components}
    for key in judged[0]:
        values = np.array([figures[key] for figures in judged if figures[key] is not None])
        metrics[key] = values.mean(0).tolist() if len(values) else None
        metrics[f"{key}_se"] = (values.std(0, ddof=1) / math.sqrt(len(values))).tolist() if len(values) > 1 else None
    metrics["vamp2_folds"] = [figures["vamp2"] for figures in judged]
    metrics |= timescale_metrics(markov, timestep)
    metrics["own_timescales"] = finite(np.asarray(own.timescales()) * timestep)
    metrics["metastability"] = _metastability(markov.model, n_components + 1)
    metrics["n_states"] = len(markov.model.active_states)
    metrics["fit_seconds"] = whole.seconds
    return Coordinate(name, method, n_components, estimator, whole.coordinates, markov, metrics)


def _reference(known: list[Array], names: list[str], lagtime: int, n_cells: int, seed: int) -> Reference:
    n_columns = known[0].shape[1]
    names = names or [f"reference {i + 1}" for i in range(n_columns)]
    if len(names) != n_columns:
        raise ValueError(f"reference_names must name {n_columns} columns, got {len(names)} names")
    kept = [np.array(x, dtype=np.float64) for x in known]
    markov = markov_model(kept, lagtime, n_cells=n_cells, seed=seed)
    # the slowest eigenfunction of cells that were not visited or not connected is not known: they count as 0
    side = np.zeros(markov.model.n_states_)
    side[markov.model.active_states] = pcca(markov.model, 2).assignments
    slow = [side[x][:, None] for x in markov.states]
    return Reference(names, kept, markov, slow)


def _metastability(model: MarkovStateModel, n_sets: int) -> float:
    sets = pcca(model, min(n_sets, len(model.active_states)))
    return float(np.mean(np.diag(sets.crisp_transition_matrix)))


def _three(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _timescale_text(values: list[float | None], low: list[float | None], high: list[float | None]) -> str:
    def word(value: float | None) -> str:
        return "∞" if value is None else f"{value:.3g}"

    first = f"{word(values[0])} ({word(low[0])} – {word(high[0])})"
    return ", ".join([first, *(word(value) for value in values[1:2])])
