"""The command `molml data`."""

import argparse
import textwrap
from typing import Any

from molml.datasets import files
from molml.datasets.catalogue import card, embedded_names, list_datasets, public_names

WIDTH = 100


def add_parser(subparsers: Any) -> None:
    """Add `data` to the commands of molml; the chosen action is left in ``arguments.run``."""
    parser = subparsers.add_parser("data", help="list, show, make and fetch data sets", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    action = actions.add_parser("list", help="all data sets")
    action.set_defaults(run=run_list)
    action = actions.add_parser("show", help="the card of a data set: origin, theory, units, licence, hashes")
    action.add_argument("name", metavar="NAME")
    action.set_defaults(run=run_show)
    action = actions.add_parser("path", help="the folder of a data set, its files checked")
    action.add_argument("name", metavar="NAME")
    action.set_defaults(run=run_path)
    action = actions.add_parser("make", help="make an embedded data set again with its recipe")
    action.add_argument("name", metavar="NAME")
    action.add_argument("--seed", type=int, help="another seed than the card's")
    action.add_argument(
        "--temperature", type=float, metavar="K", help="another temperature than the card's, if it has one"
    )
    action.add_argument("--output", metavar="DIR", help="folder to write to (default: NAME)")
    action.set_defaults(run=run_make)
    action = actions.add_parser("download", help="fetch a public data set into the cache")
    action.add_argument("name", metavar="NAME")
    action.add_argument("--only", metavar="PATTERN", default="*", help="only files that match, e.g. '*train_01*'")
    action.set_defaults(run=run_download)
    action = actions.add_parser("add", help="put a file that was fetched by hand into the cache")
    action.add_argument("name", metavar="NAME")
    action.add_argument("file", metavar="FILE")
    action.set_defaults(run=run_add)


def run_list(arguments: argparse.Namespace) -> int:
    """Print the names, sizes and titles of all data sets."""
    width = max(map(len, list_datasets()))
    verified = [name for name in public_names() if card(name)["verified"]]
    described = [name for name in public_names() if not card(name)["verified"]]
    sections = [
        ("come with molml (molml data path NAME)", embedded_names()),
        ("public, verified (molml data download NAME)", verified),
        ("public, only described (molml data show NAME says where)", described),
    ]
    blocks = []
    for title, names in sections:
        rows = []
        for name in names:
            entry = card(name)
            mark = "*" if not entry["embedded"] and files.folder(name).is_dir() else " "
            rows.append(f"{mark} {name:<{width}}  {_size(entry):>9}  {entry['title']}")
        blocks.append("\n".join([title, *rows]))
    print("\n\n".join(blocks))
    print("\n* in the cache: " + str(files.cache_folder()))
    return 0


def run_show(arguments: argparse.Namespace) -> int:
    """Print the card of a data set."""
    entry = card(arguments.name)
    print(f"{entry['name']}: {entry['title']}\n")
    for key, value in entry.items():
        if key not in ("name", "title", "files", "embedded", "verified"):
            text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
            text = " ".join(map(str, text)) if isinstance(text, list) else str(text)
            print(textwrap.fill(text.strip(), WIDTH, initial_indent=f"{key:<16}", subsequent_indent=" " * 16))
    if not entry["verified"]:
        print("\nnot verified: molml has no hash of these files and does not download them")
    if entry["files"]:
        print("\nfiles in " + str(files.folder(arguments.name)))
    for file in entry["files"]:
        counts = [f"  {file[unit]} {unit}" for unit in ("structures", "frames", "molecules") if unit in file]
        print(f"  {file['name']}  {file['bytes']} bytes{''.join(counts)}\n    sha256 {file['sha256']}")
        if "url" in file:
            print(f"    {file['url']}")
    return 0


def run_path(arguments: argparse.Namespace) -> int:
    """Print the folder of a data set."""
    print(files.path(arguments.name))
    return 0


def run_make(arguments: argparse.Namespace) -> int:
    """Run a recipe and compare the result with the distributed files."""
    folder = files.make(arguments.name, seed=arguments.seed, temperature=arguments.temperature, output=arguments.output)
    print(f"written to {folder}")
    for name, verdict in files.compare(arguments.name, folder).items():
        print(f"  {name}  {verdict}")
    return 0


def run_download(arguments: argparse.Namespace) -> int:
    """Fetch a public data set."""
    print(files.download(arguments.name, only=arguments.only))
    return 0


def run_add(arguments: argparse.Namespace) -> int:
    """Put a file into the cache."""
    for file in files.add(arguments.name, arguments.file):
        print(file)
    return 0


def _size(entry: dict[str, Any]) -> str:
    total = sum(file["bytes"] for file in entry["files"])
    return f"{total / 1e6:.1f} MB" if total else "-"
