"""The command `molml`: every arm adds its own sub-command; here are those that belong to none, and the errors."""

import argparse
import os
import shlex
import signal
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from molml import __version__

# what a user can cause and mend; everything else is a fault of molml and shows its traceback
USER_ERRORS = (ValueError, OSError, ImportError, ArithmeticError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the name of the program; those of the process if left out.

    Returns
    -------
    int
        Exit status: 0 done, 1 an error of which one line tells on stderr, 128 + n stopped by signal n.

    Raises
    ------
    SystemExit
        With status 2 for a wrong command line, 0 after ``--help`` and ``--version``.
    """
    arguments = _parser().parse_args(argv)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            return arguments.run(arguments) or 0
        except KeyboardInterrupt as error:
            # an interrupted training says how to resume and which signal it was
            _show("interrupted", str(error), arguments.debug)
            return 128 + getattr(error, "signal", signal.SIGINT)
        except BrokenPipeError:
            # the reader of a pipe (head, say) has seen enough; what is still buffered must not fail again at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + 13
        except USER_ERRORS as error:
            _show("error", str(error) or type(error).__name__, arguments.debug)
            return 1


def _show(word: str, message: str, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    print(f"molml: {word}: {message}" if message else f"molml: {word}", file=sys.stderr)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    where = "" if issubclass(category, UserWarning) else f" ({category.__name__}, {filename}:{lineno})"
    print(f"molml: warning: {message}{where}", file=file or sys.stderr)


def _parser() -> argparse.ArgumentParser:
    # these import nothing heavy: `molml --help` must answer at once
    import molml.datasets.cli
    import molml.energy.cli
    import molml.kinetics.cli
    import molml.molecules.cli

    parser = argparse.ArgumentParser(
        prog="molml",
        description="Machine learning for molecules and materials.",
        epilog="molml COMMAND --help tells more.",
    )
    parser.add_argument("--version", action="version", version=f"molml {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    molml.energy.cli.add_parser(commands)
    molml.kinetics.cli.add_parser(commands)
    molml.molecules.cli.add_parser(commands)
    molml.datasets.cli.add_parser(commands)

    command = commands.add_parser("demo", help="the main job of every part of molml, on data that come with it")
    command.add_argument("--output", metavar="DIR", default="results", help="folder to write to (default: results)")
    command.add_argument(
        "--minutes", metavar="M", type=float, default=1.0, help="time to train the potential (default: %(default)s)"
    )
    command.set_defaults(run=run_demo)

    command = commands.add_parser("info", help="what a model file holds")
    command.add_argument("file", metavar="FILE")
    command.set_defaults(run=run_info)

    command = commands.add_parser("doctor", help="check the installation")
    command.set_defaults(run=run_doctor)
    return parser


def run_demo(arguments: argparse.Namespace) -> int:
    """Run the main job of every arm, as commands that the user may repeat with data of their own."""
    import molml.datasets

    ethanol = molml.datasets.path("ethanol")
    output = Path(arguments.output)
    fit_ethanol = [
        *("energy", "fit", str(ethanol / "train.xyz.xz")),
        *("--valid", str(ethanol / "valid.xyz.xz"), "--test", str(ethanol / "test.xyz.xz")),
        # an earlier demo is set aside, never deleted
        # fewer functions than a molecule gets by default leave more of the minute for the network
        *("--n-functions", "600", "--minutes", f"{arguments.minutes:g}"),
        *("--output", str(output / "energy"), "--overwrite"),
    ]
    alanine = molml.datasets.path("alanine-dipeptide")
    compare_alanine = [
        *("kinetics", "compare", str(alanine / "*.xtc"), "--top", str(alanine / "topology.pdb"), "--lag", "5 ps"),
        *("--output", str(output / "kinetics"), "--overwrite"),
    ]
    molecules = molml.datasets.path("molecules")
    pictures = output / "molecules"
    train_small = [
        *("molecules", "train", str(molecules / "train.csv.xz"), "--minutes", "1"),
        *("--output", str(pictures), "--overwrite"),
    ]
    near_aspirin = ["molecules", "near", "druglike", "aspirin", "-n", "19", "--output", str(pictures / "aspirin.png")]
    between = [
        *("molecules", "interpolate", "druglike", "aspirin", "caffeine", "ibuprofen", "paracetamol", "-n", "7"),
        *("--output", str(pictures / "interpolation.png")),
    ]
    for job in [fit_ethanol, compare_alanine, train_small, near_aspirin, between]:
        print(f"$ molml {shlex.join(job)}", flush=True)
        status = main(["--debug", *job] if arguments.debug else job)
        if status:
            return status
    print("\nresults, to begin with the reports:")
    for file in sorted(output.glob("*/*"), key=lambda file: (file.suffix != ".html", file)):
        if file.is_file() and not file.name.startswith("."):
            print(f"  {file}")
    return 0


def run_info(arguments: argparse.Namespace) -> int:
    """Print what a model file holds."""
    from molml.io import container_info

    info = container_info(arguments.file)
    numbers: dict[str, int] = {}
    for dtype, shape in info.shapes.values():
        count = 1
        for length in shape:
            count *= length
        numbers[dtype] = numbers.get(dtype, 0) + count
    print(f"{info.kind}  {arguments.file}  ({info.n_bytes / 1e3:.1f} kB)")
    for title, content in (("config", info.config), ("metadata", info.metadata)):
        print(f"\n{title}")
        for line in _lines(content, "  "):
            print(line)
    print(f"\n{'tensors':<16}{len(info.shapes)}: " + ", ".join(f"{count} {dtype}" for dtype, count in numbers.items()))
    print(f"{'sha256':<16}{info.sha256}, verified")
    return 0


def _lines(mapping: Mapping[str, Any], indent: str) -> list[str]:
    lines = []
    width = max([13, *(len(key) + 1 for key in mapping)])
    for key, value in mapping.items():
        if isinstance(value, dict) and (any(isinstance(v, dict | list) for v in value.values()) or len(value) > 6):
            lines += [indent + key, *_lines(value, indent + "  ")]
        else:
            text = _symbols(value) if key == "elements" else _text(value)
            lines.append(f"{indent}{key:<{width}} {text}{' Å' if key == 'cutoff' else ''}")
    return lines


def _text(value: Any, limit: int = 8) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    if isinstance(value, list):
        rest = f" … ({len(value)} in all)" if len(value) > limit else ""
        return ", ".join(_text(item) for item in value[:limit]) + rest
    return "-" if value is None else str(value)


def _symbols(elements: Any) -> str:
    from ase.data import chemical_symbols

    if not isinstance(elements, list) or not all(element in range(1, len(chemical_symbols)) for element in elements):
        return _text(elements)
    return " ".join(chemical_symbols[element] for element in elements)


def run_doctor(arguments: argparse.Namespace) -> int:
    """Check the installation and print what was found."""
    from molml.doctor import checks

    failed = 0
    for name, text, good in checks():
        failed += not good
        print(f"{'ok   ' if good else 'FAULT'} {name:<14} {text}", flush=True)
    print(f"\n{failed} faults" if failed else "\nall is well")
    return 1 if failed else 0
