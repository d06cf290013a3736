"""The command `molml energy`: fit, evaluate, look at, run a potential, let others run it, let it choose its labels."""

from __future__ import annotations

import argparse
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molml.options import add_cluster, add_model, add_output, add_run, add_seed, add_threads

if TYPE_CHECKING:
    import ase

    from molml.energy.calculator import Calculator
    from molml.energy.data import StructureDataset
    from molml.energy.metrics import Evaluation

FIGURES = ("parity_*.png", "learning_curve*.png", "force_error_by_element.png", "uncertainty_*.png", "worst_*.png")
MODELS = ("model.molml", "checkpoint.molml", "start.molml", "member-*")
FILES = (*MODELS, "metrics.json", "metrics.jsonl", "report.html", *FIGURES)
"""What a fit writes into its folder."""


def add_parser(subparsers: Any) -> None:
    """Add `energy` to the commands of molml; the chosen action is left in ``arguments.run``.

    Parameters
    ----------
    subparsers : action of argparse.ArgumentParser.add_subparsers
    """
    parser = subparsers.add_parser("energy", help="interatomic potentials", description=__doc__)
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    _add_fit(actions)
    _add_evaluate(actions)
    action = actions.add_parser("info", help="what a potential is made of", description="What a potential is made of.")
    add_model(action)
    action.add_argument("--functions", action="store_true", help="list every function with its range in training")
    action.set_defaults(run=run_info)
    _add_md(actions)
    _add_drive(actions)
    _add_learn(actions)


def _add_fit(actions: Any) -> None:
    action = actions.add_parser(
        "fit",
        help="make a potential from structures",
        description="Make a potential from structures with energies, forces and, if there, stress.",
    )
    action.add_argument("data", metavar="DATA", help="training structures: .xyz, .extxyz (.xz, .gz), .db, .traj, .npz")
    action.add_argument(
        "--valid", metavar="FILE", help="validation structures; without it a tenth of DATA is kept aside"
    )
    action.add_argument("--test", metavar="FILE", help="structures for a last look; they never influence the fit")
    action.add_argument(
        "--model", choices=("network", "linear"), default="network", help="kind of potential (default: network)"
    )
    action.add_argument("--members", metavar="N", type=int, default=1, help="size of the committee (default: 1, none)")
    add_cluster(action, "members of a committee")
    action.add_argument("--minutes", metavar="M", type=float, help="stop after this time")
    action.add_argument(
        "--epochs", metavar="N", type=int, help="passes over the data; chosen by their number of atoms if left out"
    )
    action.add_argument(
        "--cutoff", metavar="Å", type=float, help="radius of an atom's surroundings; by default 5.5, for molecules 4"
    )
    action.add_argument(
        "--n-functions",
        metavar="N",
        type=int,
        help="most functions per element; by default 300, for molecules up to 1000",
    )
    action.add_argument("--hidden", metavar="N", type=int, nargs="+", help="widths of the layers (default: 64 64)")
    action.add_argument(
        "--quadratic",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="a quadratic part beside linear part and network, if that lowers errors (default: yes)",
    )
    action.add_argument("--memory", metavar="GB", type=float, help="for what is kept of the structures (default: 4)")
    action.add_argument(
        "--derivatives",
        choices=("auto", "keep", "compute"),
        default="auto",
        help="of the functions, for training: keep them as far as --memory allows, or compute them in every step "
        "(default: auto, what is faster in a run of usual length)",
    )
    action.add_argument(
        "--guard",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="repulsion at distances shorter than any in DATA, where it is zero (default: yes)",
    )
    add_run(action, "folder for model, metrics and report")
    action.add_argument("--resume", action="store_true", help="go on with the run in DIR after an interruption")
    _add_keys(action)
    action.set_defaults(run=run_fit)


def _add_evaluate(actions: Any) -> None:
    action = actions.add_parser(
        "evaluate",
        help="errors of a potential on structures",
        description="Compare a potential with the labels of structures.",
    )
    add_model(action)
    action.add_argument("data", metavar="DATA", help="structures with labels")
    add_output(action, "folder for metrics.json and report.html", required=False)
    add_threads(action)
    _add_keys(action)
    action.set_defaults(run=run_evaluate)


def _add_keys(action: argparse.ArgumentParser) -> None:
    group = action.add_argument_group("labels", "what a file calls them; `none` leaves one out")
    for name in ("energy", "forces", "stress"):
        group.add_argument(f"--{name}-key", metavar="KEY", default=name, help=f"name of the {name} (default: {name})")
    group.add_argument(
        "--virial-key", metavar="KEY", default="none", help="name of a virial to take as stress (default: none)"
    )
    group.add_argument(
        "--weight-key", metavar="KEY", default="weight", help="name of the structures' weights (default: weight)"
    )
    group.add_argument(
        "--energy-unit", choices=("eV", "hartree", "kcal/mol", "kJ/mol"), help="of the file; eV if it does not say"
    )
    group.add_argument("--length-unit", choices=("Å", "bohr", "nm"), help="of the file; Å if it does not say")


def _add_md(actions: Any) -> None:
    action = actions.add_parser(
        "md",
        help="molecular dynamics",
        description="Molecular dynamics with a potential.",
    )
    add_model(action)
    _add_structure(action, "any structure file that ASE reads")
    action.add_argument(
        "--temperature", metavar="K", type=float, default=300.0, help="of the start and of nvt (default: 300)"
    )
    action.add_argument("--steps", metavar="N", type=int, default=1000, help="number of time steps (default: 1000)")
    action.add_argument("--timestep", metavar="FS", type=float, default=0.5, help="in fs (default: 0.5)")
    action.add_argument(
        "--ensemble", choices=("nve", "nvt"), default="nvt", help="without or with a thermostat (default: nvt)"
    )
    action.add_argument("--interval", metavar="N", type=int, default=10, help="steps between two frames (default: 10)")
    action.add_argument(
        "--output", metavar="FILE", default="traj.xyz", help="extended XYZ file for the frames (default: traj.xyz)"
    )
    add_seed(action, "of velocities and thermostat")
    add_threads(action)
    _add_on_extrapolation(action)
    action.set_defaults(run=run_md)


def _add_drive(actions: Any) -> None:
    action = actions.add_parser(
        "drive",
        help="forces for i-PI",
        description="Give energies, forces and virials to i-PI, or another program that speaks its protocol, until it "
        "has had enough.",
    )
    add_model(action)
    _add_structure(action, "elements, in the order of the server's atoms, and whether they are periodic")
    action.add_argument(
        "--address", metavar="HOST", default="localhost", help="where the server runs (default: localhost)"
    )
    group = action.add_mutually_exclusive_group()
    group.add_argument("--port", metavar="N", type=int, default=31415, help="its port (default: 31415)")
    group.add_argument("--unix", metavar="NAME", help="its socket on this machine, /tmp/ipi_NAME, in place of a port")
    add_threads(action)
    _add_on_extrapolation(action)
    action.set_defaults(run=run_drive)


def _add_structure(action: argparse.ArgumentParser, use: str) -> None:
    action.add_argument("structure", metavar="STRUCTURE", help=use)
    action.add_argument(
        "--index", metavar="N", type=int, default=0, help="frame of STRUCTURE; -1 is the last (default: 0)"
    )


def _add_on_extrapolation(action: argparse.ArgumentParser) -> None:
    action.add_argument(
        "--on-extrapolation",
        choices=("warn", "raise", "ignore"),
        default="warn",
        help="when surroundings leave the range of the training data (default: warn)",
    )


def _add_learn(actions: Any) -> None:
    action = actions.add_parser(
        "learn",
        help="make a potential from few labels, chosen by itself",
        description="Active learning: simulate with a committee, label the structures that it is unsure of, fit again.",
    )
    action.add_argument("start", metavar="START", help="structures to begin with, in any file that ASE reads")
    action.add_argument(
        "--oracle",
        metavar="NAME",
        required=True,
        help="what labels: emt, lj, tblite:GFN2-xTB, or MODULE:FUNCTION that returns an ASE calculator",
    )
    action.add_argument("--rounds", metavar="N", type=int, default=10, help="most rounds (default: 10)")
    action.add_argument(
        "--labels", metavar="N", type=int, default=10, help="simulations, so most labels, in a round (default: 10)"
    )
    action.add_argument("--minutes", metavar="M", type=float, help="stop after this time")
    action.add_argument(
        "--temperature", metavar="K", type=float, nargs="+", default=[300.0], help="taken in turn (default: 300)"
    )
    action.add_argument("--timestep", metavar="FS", type=float, help="in fs; by default 0.5 with hydrogen, 2 without")
    action.add_argument("--steps", metavar="N", type=int, default=2000, help="of a simulation, at most (default: 2000)")
    action.add_argument(
        "--threshold",
        metavar="F",
        type=float,
        help="uncertainty (eV/Å) worth a label; by default a twentieth of the root mean square force",
    )
    action.add_argument("--test", metavar="FILE", help="structures with labels, to watch the error; it decides nothing")
    action.add_argument(
        "--model", choices=("linear", "network"), default="linear", help="kind of potential (default: linear)"
    )
    action.add_argument("--members", metavar="N", type=int, default=5, help="size of the committee (default: 5)")
    action.add_argument(
        "--cutoff", metavar="Å", type=float, help="radius of an atom's surroundings; by default 5.5, for molecules 4"
    )
    add_cluster(action, "simulations, labels and members of the committee")
    add_run(action, "folder for labels, model and figures")
    action.add_argument("--resume", action="store_true", help="go on with what is in DIR; no label is lost")
    action.set_defaults(run=run_learn)


def run_fit(arguments: argparse.Namespace) -> int:
    """Fit a potential and write model, metrics and report."""
    import shlex

    from molml.energy.fitting import fit
    from molml.energy.metrics import evaluate
    from molml.energy.report import write_report
    from molml.training.cluster import cluster
    from molml.training.directory import run_directory
    from molml.training.threads import limit_threads

    _check_fit(arguments)
    limit_threads(arguments.threads)
    sets, sources = _read_sets(arguments)
    settings: dict[str, Any] = {
        name: getattr(arguments, name)
        for name in ("model", "members", "minutes", "epochs", "quadratic", "derivatives", "guard", "seed", "resume")
    }
    if arguments.n_functions:
        settings["n_functions"] = arguments.n_functions
    if arguments.memory:
        settings["memory"] = arguments.memory
    if arguments.hidden:
        settings["hidden"] = tuple(arguments.hidden)
    if int(os.environ.get("RANK", "0")) > 0:
        # one of torchrun's other processes: it works along, but the first one speaks and writes
        fit(sets["train"], sets.get("valid"), **settings, directory=arguments.output)
        return 0
    with run_directory(arguments.output, resume=arguments.resume, overwrite=arguments.overwrite, files=FILES) as folder:
        for name, dataset in sets.items():
            # the groups can be hundreds; the report has them
            print(f"{name:<6} {repr(dataset).removeprefix('StructureDataset: ').split('; groups')[0]}", flush=True)
        with cluster(arguments.cluster) as executor:
            potential = fit(sets["train"], sets.get("valid"), **settings, directory=folder, executor=executor)
        # at once: whatever happens in the evaluation, the fit is not lost
        potential.save(folder / "model.molml")
        evaluations = {name: evaluate(potential, dataset) for name, dataset in sets.items()}
        potential.metadata["metrics"] = {name: evaluation.metrics for name, evaluation in evaluations.items()}
        potential.save(folder / "model.molml")
        history = _history(folder, evaluations)
        model = Path(arguments.output) / "model.molml"
        write_report(folder, potential, evaluations, history=history, sources=sources, model_file=model)
        print()
        _print_errors(evaluations)
        print(f"\nwritten to {folder}: model.molml, metrics.json, report.html (open it in a browser)")
        print(f"next: molml energy md {shlex.quote(str(model))} STRUCTURE --temperature 300")
    return 0


def _read_sets(arguments: argparse.Namespace) -> tuple[dict[str, StructureDataset], dict[str, str]]:
    """Data sets by name, and where they came from; checked against each other before anything is computed."""
    from molml.energy.fitting import VALID_FRACTION

    paths = {"train": arguments.data, "valid": arguments.valid, "test": arguments.test}
    sets = {name: _read(path, arguments) for name, path in paths.items() if path}
    sources = {name: f"{path} ({len(sets[name])} structures)" for name, path in paths.items() if path}
    _check_sets(sets)
    # least squares validates itself by cross-validation and takes all
    if "valid" not in sets and arguments.model == "network" and len(sets["train"]) >= 10:
        sets["train"], sets["valid"] = sets["train"].split(VALID_FRACTION, arguments.seed)
        sets = {name: sets[name] for name in paths if name in sets}
        sources["valid"] = f"{len(sets['valid'])} of the structures, kept aside"
        sources = {name: sources[name] for name in paths if name in sources}
    return sets, sources


def _check_sets(sets: Mapping[str, StructureDataset]) -> None:
    from ase.data import chemical_symbols

    train = sets["train"]
    seen = {train.subset([index]).hash for index in range(len(train))}
    for name, dataset in sets.items():
        unknown = set(dataset.elements) - set(train.elements)
        if unknown:
            symbols = ", ".join(chemical_symbols[number] for number in sorted(unknown))
            raise ValueError(f"the {name} structures hold {symbols}, which no training structure does; leave them out")
        if name != "train":
            shared = [index for index in range(len(dataset)) if dataset.subset([index]).hash in seen]
            if shared:
                warnings.warn(
                    f"{len(shared)} of {len(dataset)} {name} structures are training structures, too (the first is "
                    f"{dataset.sources[shared[0]]}); errors of the {name} set will look too small",
                    stacklevel=2,
                )


def _history(folder: Path, evaluations: Mapping[str, Evaluation]) -> list[dict[str, Any]]:
    """Epochs of the training; metrics.jsonl is completed where the Trainer left none of its own."""
    from molml.energy.report import read_history
    from molml.io import write_atomic

    path = folder / "metrics.jsonl"
    members = sorted(folder.glob("member-*/metrics.jsonl"), key=lambda file: int(file.parent.name.split("-")[1]))
    if members:
        history = [{"member": k, **row} for k, file in enumerate(members, start=1) for row in read_history(file)]
    elif path.exists():
        return read_history(path)
    else:
        errors = {
            f"{name}_{key}": value
            for name in ("train", "valid")
            if name in evaluations
            for key, value in evaluations[name].metrics.items()
            if key.endswith("_rmse")
        }
        history = [{"epoch": 1, **errors}]
    write_atomic(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in history).encode())
    return history if members else []


def run_evaluate(arguments: argparse.Namespace) -> int:
    """Print the errors of a potential on structures; with --output write metrics.json and report.html."""
    from molml.energy.metrics import evaluate
    from molml.energy.report import write_report
    from molml.training.directory import run_directory
    from molml.training.threads import limit_threads

    limit_threads(arguments.threads)
    files = ("metrics.json", "report.html", *FIGURES)
    if arguments.output and not arguments.overwrite:
        there = [name for name in files[:2] if (Path(arguments.output) / name).exists()]
        if there:
            raise ValueError(
                f"{arguments.output} already holds {' and '.join(there)}; choose another folder, or set them aside "
                "with --overwrite"
            )
    potential = _load(arguments.model)
    dataset = _read(arguments.data, arguments)
    evaluation = evaluate(potential, dataset)
    _print_errors({"test": evaluation}, {"test": Path(arguments.data).name})
    print("\nworst structures")
    for row in evaluation.worst[:3]:
        print(f"  {_describe_worst(row)}")
    if arguments.output:
        with run_directory(arguments.output, overwrite=arguments.overwrite, files=files) as folder:
            write_report(
                folder,
                potential,
                {"test": evaluation},
                sources={"test": f"{arguments.data} ({len(dataset)} structures)"},
                model_file=arguments.model,
            )
        print(f"\nwritten to {arguments.output}: metrics.json, report.html")
    return 0


def run_info(arguments: argparse.Namespace) -> int:
    """Print what a potential is made of."""
    potential = _load(arguments.model)
    symbols = list(potential.feature_ranges)
    print(f"{potential!r}\n")
    rows = {
        "elements": ", ".join(symbols),
        "cutoff": f"{potential.cutoff:g} Å",
        "functions": ", ".join(f"{symbol} {len(potential.features.names(symbol))}" for symbol in symbols),
    }
    if potential.guard is not None:
        onsets = (f"{name} {onset:.2f}" for name, (onset, _) in potential.guard.pairs.items())
        rows["guard"] = f"repulsion below (Å) {', '.join(onsets)}"
    metadata = dict(potential.metadata)
    metrics = metadata.pop("metrics", {})
    rows |= {name: _text(value) for name, value in metadata.items()}
    for name, value in rows.items():
        print(f"{name:<14} {value}")
    if metrics:
        print()
        _print_metrics(metrics, {})
    if arguments.functions:
        for symbol in symbols:
            names = potential.features.names(symbol)
            width = max(map(len, names), default=0)
            print(f"\nfunctions of {symbol}, smallest and largest in training")
            for name, (low, high) in zip(names, potential.feature_ranges[symbol].tolist(), strict=True):
                print(f"  {name:<{width}}  {low:12.6g} {high:12.6g}")
    return 0


def run_md(arguments: argparse.Namespace) -> int:
    """Run molecular dynamics and print how it goes."""
    from molml.energy.dynamics import run_dynamics
    from molml.training.threads import limit_threads

    limit_threads(arguments.threads)
    potential = _load(arguments.model)
    atoms = _read_structure(arguments.structure, arguments.index)
    atoms.calc = potential.calculator(on_extrapolation=arguments.on_extrapolation)
    n_records = arguments.steps // arguments.interval + 1 if arguments.interval > 0 else 1
    every = max(1, n_records // 20)
    count = 0

    def report(time: float, temperature: float, potential_energy: float, total_energy: float) -> None:
        nonlocal count
        if count == 0:
            print(f"{'time/fs':>10} {'T/K':>8} {'E_pot/eV':>14} {'E_tot/eV':>14}")
        if count % every == 0 or count == n_records - 1:
            print(f"{time:10.1f} {temperature:8.1f} {potential_energy:14.4f} {total_energy:14.4f}", flush=True)
        count += 1

    result = run_dynamics(
        atoms,
        temperature=arguments.temperature,
        steps=arguments.steps,
        timestep=arguments.timestep,
        ensemble=arguments.ensemble,
        output=arguments.output,
        interval=arguments.interval,
        seed=arguments.seed,
        report=report,
    )
    print()
    if arguments.ensemble == "nve":
        print(f"drift of the total energy: {result.drift:.3g} meV/atom/ps")
    _print_extrapolations(atoms.calc)
    print(f"written to {arguments.output}: {len(result.time)} frames (ase gui {arguments.output} shows them)")
    return 0


def run_drive(arguments: argparse.Namespace) -> int:
    """Serve a program that asks for forces, and print when it begins and ends."""
    from molml.energy.engines import drive_ipi
    from molml.training.threads import limit_threads

    limit_threads(arguments.threads)
    potential = _load(arguments.model)
    atoms = _read_structure(arguments.structure, arguments.index)
    directions = " ".join(name for name, periodic in zip("abc", atoms.pbc, strict=True) if periodic)
    kind = f"periodic along {directions}" if directions else "not periodic"
    print(f"{len(atoms)} atoms, {atoms.get_chemical_formula()}, {kind}", flush=True)
    calculator = drive_ipi(
        potential,
        atoms,
        address=arguments.address,
        port=arguments.port,
        unix=arguments.unix,
        on_extrapolation=arguments.on_extrapolation,
    )
    print(f"{calculator.n_calculations} calculations, then the server closed the connection")
    _print_extrapolations(calculator)
    return 0


def _print_extrapolations(calculator: Calculator) -> None:
    extrapolations = calculator.extrapolations
    if extrapolations:
        (symbol, function), most = max(extrapolations.items(), key=lambda item: item[1])
        print(
            f"outside the training range: {sum(extrapolations.values())} times in {calculator.n_calculations} steps, "
            f"most often {function} of {symbol} ({most} times); add frames of the trajectory to the training data"
        )
    elif calculator.on_extrapolation != "ignore":
        print("no atom left the range of the training data")


def run_learn(arguments: argparse.Namespace) -> int:
    """Active learning; print what every round brings."""
    import shlex

    from molml.energy.data import StructureDataset
    from molml.energy.learning import FILES, learn, oracle_of
    from molml.energy.plots import three_digits
    from molml.training.cluster import cluster
    from molml.training.directory import run_directory
    from molml.training.threads import limit_threads

    limit_threads(arguments.threads)
    if arguments.seed < 0:
        raise ValueError(f"--seed must be zero or positive, got {arguments.seed}")
    start = _ase_structures(arguments.start, ":")
    oracle_of(arguments.oracle)  # an unknown one is refused before the work
    test = None if arguments.test is None else StructureDataset(arguments.test)

    def cell(row: Mapping[str, Any], name: str, factor: float, width: int) -> str:
        return f"{three_digits(factor * row[name]) if name in row else '-':>{width}}"

    def report(row: dict[str, Any]) -> None:
        if not shown:
            print("round labels   unsure after fs  new F RMSE test F RMSE  meV/Å")
        shown.append(row)
        unsure = f"{row['n_taken']}/{row['n_walkers']}" if "n_walkers" in row else "-"
        print(
            f"{row['round']:>5} {row['n_labels']:>6} {unsure:>8} {cell(row, 'time', 1.0, 8)} "
            f"{cell(row, 'new_forces_rmse', 1e3, 10)} {cell(row, 'test_forces_rmse', 1e3, 11)}",
            flush=True,
        )

    shown: list[dict[str, Any]] = []
    with (
        cluster(arguments.cluster) as executor,
        run_directory(arguments.output, resume=arguments.resume, overwrite=arguments.overwrite, files=FILES) as folder,
    ):
        names = ("rounds", "labels", "minutes", "temperature", "timestep", "steps", "threshold", "model", "members")
        settings = {name: getattr(arguments, name) for name in (*names, "cutoff", "seed", "resume")}
        # by its name: other processes make their own
        result = learn(start, arguments.oracle, folder, test=test, report=report, executor=executor, **settings)
    print(f"\nended: {result.reason}")
    print(f"written to {folder}: labels.xyz, model.molml, metrics.json, active_learning.png")
    print(f"next: molml energy fit {shlex.quote(str(folder / 'labels.xyz'))} --output network")
    return 0


def _check_fit(arguments: argparse.Namespace) -> None:
    """What can be refused before any file is read."""
    for name in ("members", "epochs", "threads", "n_functions"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    if arguments.cluster and arguments.members == 1:
        raise ValueError("--cluster computes the members of a committee; give --members N, or leave it out")
    if arguments.memory is not None and not arguments.memory > 0:
        raise ValueError(f"--memory must be positive (GB), got {arguments.memory:g}")
    if arguments.hidden and min(arguments.hidden) < 1:
        raise ValueError(f"--hidden must be widths of at least 1, got {min(arguments.hidden)}")
    if arguments.minutes is not None and not arguments.minutes > 0:
        raise ValueError(f"--minutes must be positive, got {arguments.minutes:g}")
    if arguments.cutoff is not None and not arguments.cutoff > 0:
        raise ValueError(f"--cutoff must be a positive length in Å, got {arguments.cutoff:g}; 5 to 6 suits most")
    if arguments.seed < 0:
        raise ValueError(f"--seed must be zero or positive, got {arguments.seed}")


def _read(path: str, arguments: argparse.Namespace) -> StructureDataset:
    from molml.energy.data import StructureDataset

    names = ("energy_key", "forces_key", "stress_key", "virial_key", "weight_key")
    keys = {name: None if getattr(arguments, name) == "none" else getattr(arguments, name) for name in names}
    return StructureDataset(
        path,
        **keys,
        energy_unit=arguments.energy_unit,
        length_unit=arguments.length_unit,
        cutoff=getattr(arguments, "cutoff", None),
    )


def _load(path: str) -> Any:
    """The potential in a file, refusing other kinds of models."""
    import molml
    from molml.energy.model import BehlerParrinello, Committee, LinearPotential

    model = molml.load(path)
    if not isinstance(model, LinearPotential | BehlerParrinello | Committee):
        raise ValueError(f"{path} must hold a potential, got a {type(model).__name__}; see molml info {path}")
    return model


def _read_structure(path: str, index: int) -> ase.Atoms:
    if not Path(path).exists():
        raise FileNotFoundError(f"structure file {path} does not exist; check the name")
    if any(path.endswith(suffix) for suffix in (".xyz", ".extxyz", ".xz", ".gz", ".bz2", ".db", ".traj", ".npz")):
        from molml.energy.data import read_structures

        frames = read_structures(path, energy_key=None, forces_key=None, stress_key=None)
        if not -len(frames) <= index < len(frames):
            raise ValueError(f"--index must be a frame of {path}, which has {len(frames)}, got {index}")
        return frames[index]
    return _ase_structures(path, str(index))[0]


def _ase_structures(path: str, index: str) -> list[ase.Atoms]:
    """Structures of any file that ASE reads, with the labels that it finds."""
    import ase.io
    from ase.io.formats import UnknownFileTypeError

    if not Path(path).exists():
        raise FileNotFoundError(f"structure file {path} does not exist; check the name")
    try:
        found = ase.io.read(path, index=index)
    except (UnknownFileTypeError, KeyError, IndexError, ValueError, AssertionError) as error:
        raise ValueError(
            f"{path} cannot be read as a structure by ASE ({type(error).__name__}: {error}); "
            "extended XYZ is the safest format"
        ) from error
    return found if isinstance(found, list) else [found]


def _print_errors(evaluations: Mapping[str, Evaluation], titles: Mapping[str, str] | None = None) -> None:
    _print_metrics({name: evaluation.metrics for name, evaluation in evaluations.items()}, titles or {})


def _print_metrics(metrics: Mapping[str, Mapping[str, float]], titles: Mapping[str, str]) -> None:
    from molml.energy.plots import three_digits
    from molml.units import GPA

    quantities = [
        (name, label, factor)
        for name, label, factor in (
            ("energy", "energy meV/atom", 1e3),
            ("forces", "forces meV/Å", 1e3),
            ("stress", "stress GPa", 1 / GPA),
        )
        if any(f"{name}_rmse" in of_set for of_set in metrics.values())
    ]
    width = max([10, *(len(titles.get(name, name)) for name in metrics)])
    print(f"{'RMSE / MAE':<{width}} {'structures':>10}" + "".join(f" {label:>17}" for _, label, _ in quantities))
    for name, of_set in metrics.items():
        line = f"{titles.get(name, name):<{width}} {of_set['n_structures']:>10}"
        for quantity, _, factor in quantities:
            both = [of_set.get(f"{quantity}_{kind}") for kind in ("rmse", "mae")]
            text = " / ".join("-" if value is None else three_digits(factor * value) for value in both)
            line += f" {text:>17}"
        print(line)


def _describe_worst(row: Mapping[str, Any]) -> str:
    parts = [f"{row['source']} {row['formula']}:"]
    if row["energy_error"] is not None:
        parts.append(f"energy {1e3 * row['energy_error']:+.3g} meV/atom,")
    if row["forces_rmse"] is not None:
        parts.append(f"forces RMSE {1e3 * row['forces_rmse']:.3g} meV/Å (largest at atom {row['atom']})")
    return " ".join(parts).rstrip(",") + (f"; {row['odd']}" if row["odd"] else "")


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
