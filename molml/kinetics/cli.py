"""The command `molml kinetics`: compare methods on trajectories, fit one, use it."""

from __future__ import annotations

import argparse
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from molml.options import add_model, add_output, add_run, add_threads

if TYPE_CHECKING:
    from molml.kinetics.data import Trajectories

# as molml.kinetics.comparison and .features know them; a test compares, for importing those would cost seconds
METHODS = ("pca", "tica", "vamp", "autoencoder", "tae", "vampnet", "reversible-vampnet", "variational-tae")
DEFAULT_METHODS = METHODS[:-1]
FEATURES = (
    "positions",
    "torsions",
    "omega",
    "sidechains",
    "distances",
    "ca-distances",
    "contacts",
    "angles",
    "rmsd",
)

FILES = ("*.molml", "metrics.json", "report.html", "*.png", "*.pdb", "*.xtc")
"""What a comparison or a Markov model writes into its folder."""
DESCRIPTION = "features.json"
"""Names of the columns, their configuration and the time step, beside arrays of features."""


def add_parser(subparsers: Any) -> None:
    """Add `kinetics` to the commands of molml; the chosen action is left in ``arguments.run``.

    Parameters
    ----------
    subparsers : action of argparse.ArgumentParser.add_subparsers
    """
    parser = subparsers.add_parser("kinetics", help="slow motions in trajectories", description=__doc__)
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    _add_compare(actions)
    _add_fit(actions)
    _add_transform(actions)
    _add_features(actions)
    _add_msm(actions)
    _add_structures(actions)
    _add_plumed(actions)


def _add_compare(actions: Any) -> None:
    action = actions.add_parser(
        "compare",
        help="every method on the same trajectories, side by side",
        description="Fit every method to the same features and judge all on the same held-out blocks of time.",
    )
    _add_trajectories(action)
    _add_lag(action)
    action.add_argument("--dims", metavar="N", type=int, nargs="+", default=[2], help="coordinates (default: 2)")
    action.add_argument(
        "--methods",
        metavar="NAME",
        nargs="+",
        choices=METHODS,
        default=list(DEFAULT_METHODS),
        help=f"among {', '.join(METHODS)} (default: all but the last)",
    )
    action.add_argument(
        "--reference",
        metavar="FEATURE",
        nargs="+",
        help="coordinates one knows, to correlate with; `none` for none (default: torsions, where there are any)",
    )
    action.add_argument("--folds", metavar="N", type=int, default=4, help="held-out blocks of time (default: 4)")
    action.add_argument(
        "--states", metavar="N", type=int, default=200, help="most cells of Markov models (default: 200)"
    )
    action.add_argument("--epochs", metavar="N", type=int, help="most passes over the data of a network")
    add_run(action, "folder for models, figures and report")
    action.set_defaults(run=run_compare)


def _add_fit(actions: Any) -> None:
    action = actions.add_parser(
        "fit", help="one method, to all frames", description="Fit one method to all frames and write model.molml."
    )
    _add_trajectories(action)
    _add_lag(action)
    action.add_argument("--method", choices=METHODS, default="tica", help="default: tica")
    action.add_argument("--dims", metavar="N", type=int, default=2, help="coordinates (default: 2)")
    action.add_argument("--epochs", metavar="N", type=int, help="most passes over the data of a network")
    add_run(action, "folder for models, figures and report")
    action.set_defaults(run=run_fit)


def _add_transform(actions: Any) -> None:
    action = actions.add_parser(
        "transform",
        help="coordinates of trajectories, by a model",
        description="Write the coordinates of every frame, one .npy file for each trajectory.",
    )
    add_model(action)
    _add_trajectories(action, features=False)
    add_output(action, "folder for the arrays")
    add_threads(action)
    action.set_defaults(run=run_transform)


def _add_features(actions: Any) -> None:
    action = actions.add_parser(
        "features",
        help="features of trajectories, as arrays",
        description=f"Write the features of every frame, one .npy file for each trajectory, and {DESCRIPTION}; "
        "the other commands read these arrays as they read trajectories.",
    )
    _add_trajectories(action)
    add_output(action, "folder for the arrays")
    action.set_defaults(run=run_features)


def _add_msm(actions: Any) -> None:
    action = actions.add_parser(
        "msm",
        help="a Markov model of trajectories",
        description="Make a Markov model on cells of a coordinate: states, populations, passage times, its tests.",
    )
    _add_trajectories(action)
    _add_lag(action)
    action.add_argument("--model", metavar="MODEL", help="coordinates to use (default: TICA of the features)")
    action.add_argument("--dims", metavar="N", type=int, default=2, help="coordinates of that TICA (default: 2)")
    action.add_argument("--states", metavar="N", type=int, default=200, help="most cells (default: 200)")
    action.add_argument("--sets", metavar="N", type=int, default=2, help="metastable sets (default: 2)")
    add_run(action, "folder for models, figures and report")
    action.set_defaults(run=run_msm)


def _add_structures(actions: Any) -> None:
    action = actions.add_parser(
        "structures",
        help="frames along a coordinate",
        description="Write representative frames along a coordinate, and a moving trajectory along it.",
    )
    add_model(action)
    _add_trajectories(action, features=False)
    action.add_argument("--component", metavar="N", type=int, default=1, help="which coordinate, from 1 (default: 1)")
    action.add_argument("--frames", metavar="N", type=int, default=20, help="frames along it (default: 20)")
    add_output(action, "folder for PDB and XTC files")
    action.set_defaults(run=run_structures)


def _add_plumed(actions: Any) -> None:
    action = actions.add_parser(
        "plumed",
        help="a coordinate as input of PLUMED",
        description="Write a fitted coordinate as PLUMED input, for biased sampling in any engine that has PLUMED.",
    )
    add_model(action)
    action.add_argument("--output", metavar="FILE", help="file to write (default: print)")
    action.set_defaults(run=run_plumed)


def _add_trajectories(action: argparse.ArgumentParser, *, features: bool = True) -> None:
    action.add_argument(
        "trajectories",
        metavar="TRAJ",
        nargs="+",
        help="any trajectories that mdtraj reads (.xtc, .dcd, .trr, .nc, .h5, .pdb …) or .npy arrays of features; "
        "globs are welcome",
    )
    action.add_argument("--top", metavar="TOP", help="file with the topology, such as a PDB file")
    if features:
        action.add_argument(
            "--features",
            metavar="NAME",
            nargs="+",
            choices=FEATURES,
            default=["torsions"],
            help=f"among {', '.join(FEATURES)} (default: torsions)",
        )
    action.add_argument("--timestep", metavar="PS", type=float, help="time between frames, where files do not tell it")
    action.add_argument("--stride", metavar="N", type=int, default=1, help="take every Nth frame (default: 1)")
    action.add_argument("--allow-truncated", action="store_true", help="take what is left of truncated files, counted")


def _add_lag(action: argparse.ArgumentParser) -> None:
    action.add_argument("--lag", metavar="TIME", required=True, help="lag time: '10 ps', '1 ns' or '50 frames'")


class _Input(NamedTuple):
    """Trajectories as the user named them.

    Attributes
    ----------
    data : array of features, or a stream of files
    names : list of str
        Of the features.
    config : dict or None
        Rebuilds the featurizer; None for arrays from elsewhere.
    timestep : float or None
        ps.
    files : list of str
    """

    data: Trajectories
    names: list[str]
    config: dict[str, Any] | None
    timestep: float | None
    files: list[str]


def run_compare(arguments: argparse.Namespace) -> int:
    """Compare methods and write table, figures, models and report."""
    from molml.kinetics.comparison import compare
    from molml.kinetics.report import write_report
    from molml.training.directory import run_directory
    from molml.training.threads import limit_threads

    limit_threads(arguments.threads)  # refuses what is none
    limit_threads(1)  # the cores are for processes
    given = _read(arguments)
    reference = _read_reference(arguments, given)
    lag, timestep = _lag(arguments.lag, given)
    n_jobs = arguments.threads or os.cpu_count() or 1
    with run_directory(arguments.output, overwrite=arguments.overwrite, files=FILES) as folder:
        _announce(given, lag, timestep)
        comparison = compare(
            given.data,
            lag,
            methods=arguments.methods,
            dims=arguments.dims,
            reference=None if reference is None else reference.data,
            reference_names=() if reference is None else reference.names,
            timestep=timestep,
            n_folds=arguments.folds,
            n_states=arguments.states,
            max_epochs=arguments.epochs,
            seed=arguments.seed,
            n_jobs=n_jobs,
            directory=folder,
            metadata=_metadata(given),
        )
        sources = {
            "trajectories": f"{', '.join(given.files[:6])}{' …' if len(given.files) > 6 else ''}",
            "features": " ".join(arguments.features) + f" ({comparison.n_features} columns)",
        }
        write_report(folder, comparison, sources=sources, n_jobs=n_jobs)
        print(f"\n{comparison!r}")
        print(f"\nwritten to {folder}: metrics.json, report.html (open it in a browser), a model file per method")
        best = max(comparison.methods.values(), key=lambda coordinate: coordinate.metrics["vamp2"])
        print(f"next: molml kinetics structures {shlex.quote(str(folder / f'{best.name}.molml'))} TRAJ --output DIR")
    return 0


def run_fit(arguments: argparse.Namespace) -> int:
    """Fit one method and write its model file."""
    from molml.io import write_atomic
    from molml.kinetics.comparison import estimator_of
    from molml.training.directory import run_directory
    from molml.training.threads import limit_threads

    limit_threads(arguments.threads)
    given = _read(arguments)
    lag, timestep = _lag(arguments.lag, given)
    with run_directory(arguments.output, overwrite=arguments.overwrite, files=FILES) as folder:
        _announce(given, lag, timestep)
        estimator = estimator_of(
            arguments.method, arguments.dims, lag, max_epochs=arguments.epochs, seed=arguments.seed, progress=None
        )
        estimator.fit(given.data)
        metrics = {"method": arguments.method, "lagtime": lag * timestep, "score": estimator.score(given.data)}
        if hasattr(estimator, "timescales"):
            metrics["own_timescales"] = [float(t) * timestep for t in estimator.timescales()]
            print("timescales: " + ", ".join(f"{t:.4g} ps" for t in metrics["own_timescales"]))
        estimator.save(folder / "model.molml", _metadata(given) | {"timestep": timestep, "metrics": metrics})
        write_atomic(folder / "metrics.json", (json.dumps(metrics, indent=2) + "\n").encode())
        print(f"score on the training frames: {metrics['score']:.4f}\nwritten to {folder}: model.molml, metrics.json")
    return 0


def run_transform(arguments: argparse.Namespace) -> int:
    """Write the coordinates of trajectories."""
    from molml.training.directory import run_directory
    from molml.training.threads import limit_threads

    limit_threads(arguments.threads)
    estimator, config = _load(arguments.model)
    given = _read(arguments, config)
    with run_directory(arguments.output, overwrite=arguments.overwrite, files=("*.npy", DESCRIPTION)) as folder:
        coordinates = estimator.transform(given.data)
        names = [f"coordinate {i + 1}" for i in range(coordinates[0].shape[1])]
        _write_arrays(folder, coordinates, given._replace(names=names, config=None))
    return 0


def run_features(arguments: argparse.Namespace) -> int:
    """Write the features of trajectories."""
    from molml.training.directory import run_directory

    given = _read(arguments)
    with run_directory(arguments.output, overwrite=arguments.overwrite, files=("*.npy", DESCRIPTION)) as folder:
        _write_arrays(folder, given.data, given)
    return 0


def run_msm(arguments: argparse.Namespace) -> int:
    """Make a Markov model and write it, its tests and its states."""
    from molml.kinetics.comparison import estimator_of
    from molml.kinetics.discretisation import markov_model
    from molml.kinetics.report import write_markov_report
    from molml.training.directory import run_directory
    from molml.training.threads import limit_threads

    limit_threads(arguments.threads)
    estimator, config = (None, None) if arguments.model is None else _load(arguments.model)
    given = _read(arguments, config)
    lag, timestep = _lag(arguments.lag, given)
    with run_directory(arguments.output, overwrite=arguments.overwrite, files=FILES) as folder:
        _announce(given, lag, timestep)
        if estimator is None:
            estimator = estimator_of("tica", arguments.dims, lag, max_epochs=None, seed=arguments.seed, progress=None)
            estimator.fit(given.data)
            estimator.save(folder / "coordinates.molml", _metadata(given) | {"timestep": timestep})
        coordinates = estimator.transform(given.data)
        markov = markov_model(coordinates, lag, n_cells=arguments.states, seed=arguments.seed)
        sources = {"trajectories": ", ".join(given.files), "coordinates": repr(estimator)}
        metrics = write_markov_report(
            folder, markov, coordinates, n_sets=arguments.sets, timestep=timestep, sources=sources
        )
        described = _metadata(given) | {"timestep": timestep, "metrics": metrics}
        markov.clusters.save(folder / "cells.molml", described)
        markov.model.save(folder / "msm.molml", described)
        _print_markov(metrics)
        print(f"\nwritten to {folder}: msm.molml, cells.molml, metrics.json, report.html (open it in a browser)")
    return 0


def run_structures(arguments: argparse.Namespace) -> int:
    """Write frames along a coordinate."""
    from molml.kinetics.data import TrajectoryFiles
    from molml.kinetics.structures import moving, representatives
    from molml.training.directory import run_directory

    estimator, config = _load(arguments.model)
    given = _read(arguments, config)
    if not isinstance(given.data, TrajectoryFiles):
        raise ValueError("structures need trajectories, got arrays of features; name the trajectories they are of")
    component = arguments.component - 1
    if not 0 <= component < estimator.n_components:
        raise ValueError(f"--component must be from 1 to {estimator.n_components}, got {arguments.component}")
    with run_directory(arguments.output, overwrite=arguments.overwrite, files=("*.pdb", "*.xtc")) as folder:
        coordinates = estimator.transform(given.data)
        number = arguments.component
        typical = representatives(given.data, coordinates, component=component, n_structures=arguments.frames)
        typical.structures.save_pdb(str(folder / f"along-{number}.pdb"))
        picture = moving(given.data, coordinates, component=component, n_structures=5 * arguments.frames)
        picture.structures.save_xtc(str(folder / f"moving-{number}.xtc"))
        for value, (trajectory, frame) in zip(typical.values, typical.frames, strict=True):
            print(f"{value:10.4f}  {given.files[trajectory]} frame {frame}")
        print(f"written to {folder}: along-{number}.pdb ({arguments.frames} models), moving-{number}.xtc")
    return 0


def run_plumed(arguments: argparse.Namespace) -> int:
    """Write a coordinate as PLUMED input."""
    from molml.io import write_atomic
    from molml.kinetics.biasing import plumed_input
    from molml.kinetics.features import featurizer_from_config

    estimator, config = _load(arguments.model)
    if config is None:
        raise ValueError(f"{arguments.model} does not say what its features are; fit it to trajectories, not to arrays")
    text = plumed_input(estimator, featurizer_from_config(config))
    if arguments.output is None:
        print(text, end="")
        return 0
    write_atomic(arguments.output, text.encode())
    print(
        f"written to {arguments.output}: coordinates z1 … z{estimator.n_components} for METAD, RESTRAINT, OPES_METAD …"
    )
    return 0


def _read(arguments: argparse.Namespace, config: dict[str, Any] | None = None) -> _Input:
    """The trajectories of a command line, with its features or those of a model."""
    if all(name.endswith(".npy") for name in arguments.trajectories):
        return _read_arrays(arguments)
    from molml.kinetics.data import TrajectoryFiles
    from molml.kinetics.features import features_from_names, featurizer_from_config
    from molml.kinetics.reading import first_frame, load_topology, topology_of_file, trajectory_paths

    paths = trajectory_paths(arguments.trajectories)
    topology = topology_of_file(paths[0]) if arguments.top is None else load_topology(arguments.top)
    options = {"topology": topology, "stride": arguments.stride, "allow_truncated": arguments.allow_truncated}
    if config is not None:
        features = featurizer_from_config(config)
    else:
        names = getattr(arguments, "features", ["torsions"])
        # what positions are superposed on: any frame will do, and this one is always there
        needed = set(names) & {"positions", "rmsd"}
        frame = first_frame(paths[0], topology) if needed else None
        features = features_from_names(topology, names, reference=frame)
    data = TrajectoryFiles(paths, features, timestep=arguments.timestep, **options)
    return _Input(data, features.names, features.config, data.timestep, [str(path) for path in paths])


def _read_arrays(arguments: argparse.Namespace) -> _Input:
    """Arrays of features, with what lies beside them."""
    import numpy as np

    if arguments.top is not None:
        raise ValueError("--top belongs to trajectories; arrays of features need none")
    arrays, descriptions = [], []
    for name in arguments.trajectories:
        path = Path(name)
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {name}")
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"{name} cannot be read as an array: {error}") from error
        if array.ndim != 2:
            raise ValueError(f"{name} must hold an array (n_frames, n_features), got shape {array.shape}")
        arrays.append(array[:: arguments.stride])
        beside = path.parent / DESCRIPTION
        descriptions.append(json.loads(beside.read_text()) if beside.is_file() else {})
    description = descriptions[0]
    if any(other != description for other in descriptions):
        raise ValueError(f"arrays must have the same features, got different {DESCRIPTION} beside them")
    timestep = arguments.timestep or description.get("timestep")
    names = description.get("names", [f"feature {i + 1}" for i in range(arrays[0].shape[1])])
    return _Input(
        arrays,
        names,
        description.get("features"),
        None if timestep is None else timestep * arguments.stride,
        list(arguments.trajectories),
    )


def _read_reference(arguments: argparse.Namespace, given: _Input) -> _Input | None:
    """Known coordinates of the same frames; if none are asked for, torsions where the topology has them."""
    from molml.kinetics.data import TrajectoryFiles
    from molml.kinetics.features import features_from_names

    asked = arguments.reference
    if asked == ["none"] or (asked is None and not isinstance(given.data, TrajectoryFiles)):
        return None
    if not isinstance(given.data, TrajectoryFiles):
        raise ValueError("--reference is computed from trajectories, got arrays of features; leave it out")
    topology = given.data.topology
    try:
        features = features_from_names(topology, asked or ["torsions"], reference=None)
    except ValueError:
        if asked is not None:
            raise
        print("no torsions in this topology: compared without reference coordinates")
        return None
    data = TrajectoryFiles(
        given.data.files,
        features,
        topology=topology,
        stride=arguments.stride,
        timestep=arguments.timestep,
        allow_truncated=arguments.allow_truncated,
    )
    return given._replace(data=data, names=features.names, config=features.config)


def _lag(lag: str, given: _Input) -> tuple[int, float]:
    """Lag time in frames, and the time between frames in ps."""
    from molml.kinetics.reading import parse_lag

    frames = parse_lag(lag, given.timestep)
    if given.timestep is None:
        raise ValueError("the files do not say how much time lies between frames; give --timestep PS")
    return frames, given.timestep


def _announce(given: _Input, lag: int, timestep: float) -> None:
    from molml.kinetics.data import Streamed

    lengths = given.data.lengths if isinstance(given.data, Streamed) else [len(x) for x in given.data]
    print(
        f"{len(lengths)} trajectories, {sum(lengths):,} frames of {timestep:g} ps, {len(given.names)} features; "
        f"lag time {lag * timestep:g} ps = {lag} frames",
        flush=True,
    )


def _metadata(given: _Input) -> dict[str, Any]:
    return {"features": given.config, "feature_names": given.names, "files": [Path(name).name for name in given.files]}


def _print_markov(metrics: Mapping[str, Any]) -> None:
    def word(value: float | None) -> str:
        return "never decays" if value is None else f"{value:.4g}"

    for number, columns in enumerate(zip(*(metrics[f"timescales{x}"] for x in ("", "_low", "_high")), strict=True), 1):
        print(f"timescale {number}: {word(columns[0])} ps ({word(columns[1])} – {word(columns[2])})")
    for number, population in enumerate(metrics["populations"], 1):
        times = [
            f"to set {other} {word(time)} ps"
            for other, time in enumerate(metrics["mean_first_passage_times"][number - 1], 1)
            if other != number
        ]
        print(f"set {number}: population {population:.3f}; mean first passage " + ", ".join(times))


def _load(path: str) -> tuple[Any, dict[str, Any] | None]:
    """A fitted coordinate, and the configuration of its features if the file knows it."""
    import molml
    from molml.io import container_info

    estimator = molml.load(path)
    if not hasattr(estimator, "transform") or not hasattr(estimator, "n_components"):
        raise ValueError(
            f"{path} must hold a fitted coordinate, got a {type(estimator).__name__}; those of molml kinetics compare "
            "and fit are such"
        )
    return estimator, container_info(path).metadata.get("features")


def _write_arrays(folder: Path, data: Any, given: _Input) -> None:
    """One file per trajectory, named like it, and what describes them."""
    import numpy as np

    from molml.io import write_atomic
    from molml.kinetics.data import TrajectoryFiles

    stems = [Path(name).stem for name in given.files]
    names = [f"{number:04d}-{stem}.npy" for number, stem in enumerate(stems)]
    if isinstance(data, TrajectoryFiles):
        arrays: Sequence[Any] = data.to_arrays(folder)
    else:
        arrays = data
        for name, array in zip(names, arrays, strict=True):
            np.save(folder / name, array)
    description = {"names": given.names, "timestep": given.timestep, "features": given.config}
    write_atomic(folder / DESCRIPTION, (json.dumps(description, indent=1) + "\n").encode())
    frames = sum(len(array) for array in arrays)
    print(f"written to {folder}: {len(arrays)} arrays, {frames:,} frames of {len(given.names)} columns, {DESCRIPTION}")
