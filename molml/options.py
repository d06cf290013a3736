"""Options that the commands of every arm have in common, in one wording. Nothing heavy is imported."""

import argparse


def add_run(action: argparse.ArgumentParser, folder: str) -> None:
    """Options of what trains or estimates: `--output`, `--overwrite`, `--seed` and `--threads`.

    Parameters
    ----------
    action : argparse.ArgumentParser
    folder : str
        What the output folder is for.
    """
    add_output(action, folder)
    add_seed(action)
    add_threads(action)


def add_model(action: argparse.ArgumentParser) -> None:
    """The model file that is used, MODEL."""
    action.add_argument("model", metavar="MODEL", help="model file")


def add_output(action: argparse.ArgumentParser, folder: str, *, required: bool = True) -> None:
    """`--output` and `--overwrite`, as `molml.training.directory.run_directory` takes them."""
    action.add_argument("--output", metavar="DIR", required=required, help=folder)
    action.add_argument("--overwrite", action="store_true", help="move what DIR holds to DIR/previous-1")


def add_seed(action: argparse.ArgumentParser, use: str = "of everything random") -> None:
    """`--seed`."""
    action.add_argument("--seed", metavar="S", type=int, default=0, help=f"{use} (default: 0)")


def add_cluster(action: argparse.ArgumentParser, what: str) -> None:
    """`--cluster`, as `molml.training.cluster.cluster` takes it.

    Parameters
    ----------
    action : argparse.ArgumentParser
    what : str
        Is computed there.
    """
    action.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help=f"Dask scheduler (tcp://host:8786, or its file) whose workers compute {what}",
    )


def add_threads(action: argparse.ArgumentParser) -> None:
    """`--threads`, as `molml.training.threads.limit_threads` takes it."""
    action.add_argument("--threads", metavar="N", type=int, help="processor cores to use; all if left out")
