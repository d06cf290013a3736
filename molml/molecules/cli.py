"""The command `molml molecules`: train a model of molecules, and explore, sample and measure with it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molml.options import add_run, add_seed, add_threads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rdkit import Chem

    from molml.molecules.data import MoleculeTable

FIGURES = ("learning_curve.png", "samples.svg", "latent_map.png", "logp.png", "qed.png", "sa.png", "mw.png")
FILES = ("model.molml", "checkpoint.molml", "metrics.json", "metrics.jsonl", "report.html", *FIGURES)
"""What a training writes into its folder."""
REINFORCED = ("model.molml", "metrics.jsonl", "molecules.csv", "molecules.svg")
"""What a reinforcement writes into its folder."""

N_VALID = 1000  # molecules to hold out, unless that is less than 1 % or more than 10 % of all


def add_parser(subparsers: Any) -> None:
    """Add `molecules` to the commands of molml; the chosen action is left in ``arguments.run``.

    Parameters
    ----------
    subparsers : action of argparse.ArgumentParser.add_subparsers
    """
    parser = subparsers.add_parser("molecules", help="generative models of molecules", description=__doc__)
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    _add_train(actions)
    _add_sample(actions)
    _add_near(actions)
    _add_interpolate(actions)
    _add_optimize(actions)
    _add_reinforce(actions)
    _add_encode(actions)
    _add_predict(actions)
    _add_metrics(actions)


def _add_train(actions: Any) -> None:
    action = actions.add_parser(
        "train",
        help="make a model from molecules",
        description="Train a generative model on the molecules of a file, for a given time.",
    )
    action.set_defaults(run=run_train)
    action.add_argument(
        "data", metavar="DATA", nargs="+", help="molecules: .csv, .smi, .sdf (.gz, .xz); a recipe says which files"
    )
    action.add_argument("--smiles", metavar="COLUMN", help="of a table (default: smiles, in any case)")
    action.add_argument(
        "--properties", metavar="COLUMN", nargs="+", default=[], help="numbers to predict from the code"
    )
    action.add_argument("--minutes", metavar="M", type=float, default=20.0, help="of training (default: 20)")
    action.add_argument("--model", choices=("vae", "language"), default="vae", help="kind of model (default: vae)")
    action.add_argument(
        "--encoder",
        choices=("graph", "convolutional", "recurrent"),
        default="graph",
        help="what reads (default: graph)",
    )
    action.add_argument(
        "--tokens", choices=("smiles", "selfies"), default="smiles", help="what is written (default: smiles)"
    )
    action.add_argument(
        "--spellings",
        metavar="N",
        type=int,
        default=0,
        help="randomised SMILES of each molecule that are read; canonical ones are written (default: 0)",
    )
    action.add_argument("--start", metavar="MODEL", help="model to train further: a file, or the name of a shipped one")
    action.add_argument(
        "--noisy",
        metavar="P",
        type=float,
        help="share of the codes that get noise in training, 0 to 1: more for better samples, less for better "
        "reconstruction (default: 0.5)",
    )
    action.add_argument("--recipe", choices=("druglike",), help="that of a shipped model; DATA is ZINC DRUGS QM9 then")
    action.add_argument("--skip", action="store_true", help="leave out, and count, lines that hold no molecule")
    action.add_argument("--resume", action="store_true", help="go on with the run in DIR after an interruption")
    add_run(action, "folder for model, metrics and report")


def _add_model(action: argparse.ArgumentParser) -> None:
    action.add_argument("model", metavar="MODEL", help="model file, or the name of a shipped model, such as druglike")


def _add_data(action: argparse.ArgumentParser) -> None:
    action.add_argument("data", metavar="DATA", help="molecules: .csv, .smi, .sdf (.gz, .xz)")
    action.add_argument("--smiles", metavar="COLUMN", help="of a table (default: smiles, in any case)")


def _add_file(action: argparse.ArgumentParser, kinds: str, *, required: bool = True) -> None:
    action.add_argument("--output", metavar="FILE", required=required, help=f"file to write: {kinds}")


def _add_sample(actions: Any) -> None:
    action = actions.add_parser(
        "sample", help="new molecules", description="Draw molecules from a model, all different."
    )
    action.set_defaults(run=run_sample)
    _add_model(action)
    action.add_argument("-n", metavar="N", type=int, default=100, help="how many (default: 100)")
    action.add_argument("--temperature", metavar="T", type=float, help="of the decoder; 0 is greedy")
    _add_file(action, ".smi, .csv, .sdf, .svg, .png")
    add_seed(action)
    add_threads(action)


def _add_near(actions: Any) -> None:
    action = actions.add_parser(
        "near",
        help="molecules around a molecule",
        description="Decode codes around that of a molecule, nearest first.",
    )
    action.set_defaults(run=run_near)
    _add_model(action)
    action.add_argument("molecule", metavar="MOLECULE", help="SMILES, InChI, or a name such as aspirin")
    action.add_argument("-n", metavar="N", type=int, default=20, help="how many (default: 20)")
    action.add_argument(
        "--radius", metavar="R", type=float, help="distance of the codes; widened as needed if left out"
    )
    _add_file(action, ".svg, .png, .csv, .smi, .sdf")
    add_seed(action)
    add_threads(action)


def _add_interpolate(actions: Any) -> None:
    action = actions.add_parser(
        "interpolate",
        help="molecules between molecules",
        description="A square between four molecules, or a path through any other number.",
    )
    action.set_defaults(run=run_interpolate)
    _add_model(action)
    action.add_argument("molecules", metavar="MOLECULE", nargs="+", help="SMILES, InChI, or names")
    action.add_argument("-n", metavar="N", type=int, default=7, help="points of a path, or of a side (default: 7)")
    action.add_argument("--path", action="store_true", help="a path also through four")
    _add_file(action, ".svg, .png, .csv, .smi, .sdf")
    add_threads(action)


def _add_optimize(actions: Any) -> None:
    action = actions.add_parser(
        "optimize",
        help="better molecules near a molecule",
        description="Search the codes around a molecule for better values of a property.",
    )
    action.set_defaults(run=run_optimize)
    _add_model(action)
    action.add_argument("molecule", metavar="MOLECULE", help="where to start: SMILES, InChI, or a name")
    _add_goal(action)
    action.add_argument(
        "--similarity", metavar="S", type=float, default=0.4, help="least Tanimoto similarity (default: 0.4)"
    )
    action.add_argument(
        "--method", choices=("bayesian", "gradient", "cma"), default="bayesian", help="(default: bayesian)"
    )
    action.add_argument(
        "--budget", metavar="N", type=int, default=500, help="evaluations of the property (default: 500)"
    )
    _add_file(action, ".svg, .png, .csv, .smi, .sdf", required=False)
    add_seed(action)
    add_threads(action)


def _add_goal(action: argparse.ArgumentParser) -> None:
    action.add_argument("--property", metavar="NAME", required=True, help="logP, QED, SA, weight, …")
    action.add_argument(
        "--direction", metavar="D", default="max", help="max, min, or a number to come near to (default: max)"
    )


def _add_reinforce(actions: Any) -> None:
    action = actions.add_parser(
        "reinforce",
        help="a model that writes better molecules",
        description="Train a language model further by policy gradients, for better values of a property.",
    )
    action.set_defaults(run=run_reinforce)
    action.add_argument("model", metavar="MODEL", help="model file, of `molml molecules train --model language`")
    _add_goal(action)
    action.add_argument("--start", metavar="MOLECULE", help="look for similar ones: SMILES, InChI, or a name")
    action.add_argument(
        "--similarity", metavar="S", type=float, help="least Tanimoto similarity to it (default: 0.4 with --start)"
    )
    action.add_argument(
        "--sigma",
        metavar="NATS",
        type=float,
        default=60.0,
        help="what the reward counts against the likelihood under MODEL (default: 60)",
    )
    action.add_argument(
        "--budget", metavar="N", type=int, default=5000, help="evaluations of the property (default: 5000)"
    )
    add_run(action, "folder for the new model and the molecules found")


def _add_encode(actions: Any) -> None:
    action = actions.add_parser("encode", help="codes of molecules", description="Codes of the molecules of a file.")
    action.set_defaults(run=run_encode)
    _add_model(action)
    _add_data(action)
    _add_file(action, ".csv or .npy")
    add_threads(action)


def _add_predict(actions: Any) -> None:
    action = actions.add_parser(
        "predict",
        help="properties of molecules",
        description="Properties that a model was trained to predict.",
    )
    action.set_defaults(run=run_predict)
    _add_model(action)
    _add_data(action)
    _add_file(action, ".csv")
    add_threads(action)


def _add_metrics(actions: Any) -> None:
    action = actions.add_parser(
        "metrics",
        help="how good generated molecules are",
        description="Compare molecules with a reference: the metrics of MOSES.",
    )
    action.set_defaults(run=run_metrics)
    action.add_argument(
        "file", metavar="FILE", help="molecules, one SMILES per line or a table; wrong ones count as wrong"
    )
    action.add_argument("--reference", metavar="R", default="moses", help="moses, or a file (default: moses)")
    action.add_argument("--train", metavar="FILE", help="training molecules, for novelty")
    action.add_argument("--no-fcd", action="store_true", help="leave out the Fréchet ChemNet distance, which is slow")
    action.add_argument("--json", action="store_true", help="print JSON")
    add_seed(action)
    add_threads(action)


def run_train(arguments: argparse.Namespace) -> int:
    """Train a model and write it with its metrics and a report."""
    from molml.molecules.data import split_by_hash
    from molml.molecules.fitting import DRUGLIKE, druglike_molecules, train, train_language
    from molml.molecules.report import write_report
    from molml.training.directory import run_directory
    from molml.training.threads import limit_threads

    _check_train(arguments)
    limit_threads(arguments.threads)
    settings: dict[str, Any] = {name: getattr(arguments, name) for name in ("minutes", "resume", "seed")}
    properties: dict[str, list[float]] = {}
    if arguments.recipe is not None:
        smiles = druglike_molecules(*arguments.data)
        settings |= DRUGLIKE
    else:
        tables = [_read(path, arguments) for path in arguments.data]
        smiles = [text for table in tables for text in table.smiles]
        for name in arguments.properties:
            properties[name] = [float(value) for table in tables for value in table.properties[name]]
        settings |= {"kind": arguments.tokens, "valid_fraction": max(0.01, min(0.1, N_VALID / len(smiles)))}
        if arguments.model == "vae":
            settings |= {"properties": properties, "encoder": arguments.encoder, "spellings": arguments.spellings}
    if arguments.start is not None:
        settings["model"] = _load(arguments.start)
    if arguments.noisy is not None:
        settings["noisy"] = arguments.noisy
    with run_directory(arguments.output, resume=arguments.resume, overwrite=arguments.overwrite, files=FILES) as folder:
        print(f"{len(smiles)} molecules", flush=True)
        fit = train_language if arguments.model == "language" else train
        model = fit(smiles, directory=folder, **settings)
        # at once: whatever happens in the evaluation, the training is not lost
        model.save(folder / "model.molml")
        known = [text for text in smiles if not model.tokenizer.unknown(text)]
        parts = split_by_hash(known, settings.get("valid_fraction", 0.01))
        rest, held_out = ([known[i] for i in part] for part in parts)
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        metrics = write_report(
            folder, model, rest, held_out, history=[json.loads(line) for line in lines], seed=arguments.seed
        )
        model.save(folder / "model.molml", {"metrics": metrics})
        for name, value in metrics["valid"].items():
            print(f"{name:<24} {value:.4g}")
        file = Path(arguments.output) / "model.molml"
        print(f"\nwritten to {folder}: model.molml, metrics.json, report.html (open it in a browser)")
        print(f"next: molml molecules sample {file} -n 100 --output samples.svg")
    return 0


def _check_train(arguments: argparse.Namespace) -> None:
    if arguments.recipe is not None and len(arguments.data) != 3:
        raise ValueError(
            f"the recipe {arguments.recipe} needs three files, ZINC-250k, drugs and QM9, got {len(arguments.data)}; "
            "`molml data list` says where they are"
        )
    noisy = arguments.noisy is not None
    if arguments.model == "language" and (arguments.properties or arguments.start or arguments.spellings or noisy):
        raise ValueError(
            "--properties, --spellings, --noisy and --start belong to --model vae; leave them out for a language model"
        )
    if arguments.recipe is not None and arguments.spellings:
        raise ValueError(f"the recipe {arguments.recipe} has its own settings; leave out --spellings")


def run_sample(arguments: argparse.Namespace) -> int:
    """Draw molecules and write them."""
    model = _prepared(arguments)
    heat = {} if arguments.temperature is None else {"temperature": arguments.temperature}
    _write(model.sample(arguments.n, seed=arguments.seed, **heat), arguments.output)
    return 0


def run_near(arguments: argparse.Namespace) -> int:
    """Write molecules around a molecule."""
    from molml.molecules.exploration import near

    model = _prepared(arguments, code=True)
    found = near(model, arguments.molecule, arguments.n, radius=arguments.radius, seed=arguments.seed)
    _write(found, arguments.output)
    return 0


def run_interpolate(arguments: argparse.Namespace) -> int:
    """Write molecules between molecules."""
    from molml.molecules.exploration import interpolate

    model = _prepared(arguments, code=True)
    _write(interpolate(model, arguments.molecules, arguments.n, path=arguments.path), arguments.output)
    return 0


def run_optimize(arguments: argparse.Namespace) -> int:
    """Search better molecules, and print how much better they are."""
    from molml.molecules.data import canonical
    from molml.molecules.optimisation import optimize

    result = optimize(
        _prepared(arguments, code=True),
        arguments.property,
        arguments.molecule,
        similarity=arguments.similarity,
        direction=_direction(arguments.direction),
        method=arguments.method,
        budget=arguments.budget,
        seed=arguments.seed,
    )
    print(f"{arguments.property} {result.start_score:.4g} -> {result.score:.4g}  {canonical(result.best)}")
    print(f"{len(result.found) - 1} better molecules in {len(result.history)} evaluations")
    if arguments.output:
        _write(result.found, arguments.output)
    return 0


def _direction(text: str) -> Any:
    if text in ("max", "min"):
        return text
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"--direction must be max, min or a number, got {text!r}") from None


def run_reinforce(arguments: argparse.Namespace) -> int:
    """Train a language model for a property, and write it with the molecules found on the way."""
    from molml.io import write_atomic
    from molml.molecules.language import LanguageModel
    from molml.molecules.reinforcement import reinforce
    from molml.training.directory import run_directory

    model = _prepared(arguments)
    if not isinstance(model, LanguageModel):
        raise ValueError(
            f"{arguments.model} must hold a LanguageModel, got {type(model).__name__}; make one with "
            "`molml molecules train DATA --model language --output DIR`"
        )
    similarity = arguments.similarity
    if similarity is None:
        similarity = 0.4 if arguments.start is not None else 0.0
    with run_directory(arguments.output, overwrite=arguments.overwrite, files=REINFORCED) as folder:
        result = reinforce(
            model,
            arguments.property,
            direction=_direction(arguments.direction),
            start=arguments.start,
            similarity=similarity,
            sigma=arguments.sigma,
            budget=arguments.budget,
            seed=arguments.seed,
        )
        result.model.save(folder / "model.molml")
        lines = [json.dumps({k: v if v == v else None for k, v in step._asdict().items()}) for step in result.history]
        write_atomic(folder / "metrics.jsonl", ("\n".join(lines) + "\n").encode())
        result.found.save(folder / "molecules.csv")
        result.found.save(folder / "molecules.svg")
    first, last = result.history[0], result.history[-1]
    print(f"mean {arguments.property} {first.score:.4g} -> {last.score:.4g} in {last.calls} evaluations")
    print(f"valid {first.valid:.0%} -> {last.valid:.0%} of the strings, different {last.unique:.0%} of these")
    print(f"written to {folder}: model.molml, metrics.jsonl, molecules.csv (the best first), molecules.svg")
    return 0


def run_encode(arguments: argparse.Namespace) -> int:
    """Write the codes of the molecules of a file."""
    import numpy as np

    from molml.io import write_atomic

    if not arguments.output.endswith((".csv", ".npy")):
        raise ValueError(f"--output must end in .csv or .npy, got {arguments.output}")
    model = _prepared(arguments, code=True)
    smiles = _read(arguments.data, arguments).smiles
    codes = model.encode(smiles)
    if arguments.output.endswith(".npy"):
        import io

        stream = io.BytesIO()
        np.save(stream, codes)
        write_atomic(arguments.output, stream.getvalue())
    else:
        import pandas

        table = pandas.DataFrame(codes, columns=[f"z{k}" for k in range(1, codes.shape[1] + 1)])
        table.insert(0, "smiles", smiles)
        write_atomic(arguments.output, table.to_csv(index=False).encode())
    print(f"{len(codes)} codes of {codes.shape[1]} numbers written to {arguments.output}")
    return 0


def run_predict(arguments: argparse.Namespace) -> int:
    """Write predicted properties of the molecules of a file."""
    from molml.io import write_atomic

    if not arguments.output.endswith(".csv"):
        raise ValueError(f"--output must end in .csv, got {arguments.output}")
    model = _prepared(arguments, code=True)
    smiles = _read(arguments.data, arguments).smiles
    table = model.predict(smiles)
    write_atomic(arguments.output, table.to_csv().encode())
    print(f"{len(table)} molecules, {', '.join(table.columns)}, written to {arguments.output}")
    return 0


def run_metrics(arguments: argparse.Namespace) -> int:
    """Print the metrics of the molecules of a file."""
    from molml.molecules.data import read_molecules, read_strings
    from molml.molecules.metrics import metrics

    reference: str | list[str] = arguments.reference
    if reference != "moses":
        reference = read_molecules(arguments.reference).smiles
    train = None if arguments.train is None else read_molecules(arguments.train).smiles
    found = metrics(
        read_strings(arguments.file),
        reference=reference,
        train=train,
        fcd=not arguments.no_fcd,
        seed=arguments.seed,
        threads=arguments.threads,
    )
    print(found.json() if arguments.json else found)
    return 0


def _read(path: str, arguments: argparse.Namespace) -> MoleculeTable:
    from molml.molecules.data import read_molecules

    return read_molecules(
        path,
        smiles=arguments.smiles,
        properties=getattr(arguments, "properties", ()),
        on_error="skip" if getattr(arguments, "skip", False) else "raise",
    )


def _prepared(arguments: argparse.Namespace, *, code: bool = False) -> Any:
    """The model, with as many threads as it may use; where molecules are to be written, it is known where first."""
    from molml.molecules.display import check_suffix
    from molml.training.threads import limit_threads

    if arguments.run in (run_sample, run_near, run_interpolate, run_optimize) and arguments.output:
        check_suffix(arguments.output)
    limit_threads(arguments.threads)
    return _load(arguments.model, code=code)


def _load(name: str, *, code: bool = True) -> Any:
    import molml
    from molml.molecules.language import LanguageModel
    from molml.molecules.model import MoleculeVAE

    model = molml.load(name)
    if not isinstance(model, MoleculeVAE if code else MoleculeVAE | LanguageModel):
        wanted = "a MoleculeVAE" if code else "a MoleculeVAE or a LanguageModel"
        raise ValueError(f"{name} must hold {wanted}, got {type(model).__name__}")
    return model


def _write(molecules: Sequence[Chem.Mol | None], path: str) -> None:
    """Write molecules in the format that the name of the file asks for."""
    from molml.molecules.display import MoleculeList

    found = molecules if isinstance(molecules, MoleculeList) else MoleculeList(molecules)
    found.save(path)
    if found.note:
        print(found.note, file=sys.stderr)
    print(f"{sum(mol is not None for mol in found)} molecules written to {path}", file=sys.stderr)
