"""Independent calls, here or in other processes, on this machine or on many."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["calls", "cluster"]

PATIENCE = 30.0  # s, for a scheduler to answer and for its first worker


def calls(
    executor: Executor | None, function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]
) -> Iterator[tuple[int, Callable[[], Any]]]:
    """Results of independent calls, as they come.

    Parameters
    ----------
    executor : concurrent.futures.Executor or None
        Where the work is done. None is here and now: each call is made when its result is asked for.
    function : callable
    arguments : iterable of tuple
        Of each call.

    Yields
    ------
    int
        Place of the call among the arguments.
    callable
        Gives the result, or raises what the call raised.

    Notes
    -----
    When the iteration is left, what has not begun is not done any more.

    Examples
    --------
    >>> [(place, result()) for place, result in calls(None, max, [(1, 2), (4, 3)])]
    [(0, 2), (1, 4)]
    """
    if executor is None:
        for place, each in enumerate(arguments):
            yield place, functools.partial(function, *each)
        return
    futures = {executor.submit(function, *each): place for place, each in enumerate(arguments)}
    try:
        for future in as_completed(futures):
            yield futures[future], future.result
    finally:
        for future in futures:
            future.cancel()


@contextmanager
def cluster(address: str | None) -> Iterator[Executor | None]:
    """Workers of a Dask cluster.

    Parameters
    ----------
    address : str or None
        Of the scheduler ("tcp://host:8786"), or the file it writes (``dask scheduler --scheduler-file FILE``). With
        None there is no executor, and the work is done here.

    Yields
    ------
    concurrent.futures.Executor or None

    Raises
    ------
    ImportError
        If the package distributed is missing.
    ValueError
        If no scheduler answers, no worker comes, or a worker has another version of molml, or none.
    """
    if address is None:
        yield None
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise ImportError(
            "a Dask cluster needs the package distributed, here and where its workers run: "
            "pip install 'molml-lab[dask]'"
        ) from error
    where = {"scheduler_file": address} if Path(address).is_file() else {"address": address}
    try:
        client = Client(**where, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise ValueError(
            f"no Dask scheduler answers at {address} ({str(error).splitlines()[0] or type(error).__name__}); give the "
            "address that `dask scheduler` shows, such as tcp://host:8786, or its --scheduler-file"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError as error:
            raise ValueError(f"the Dask scheduler at {address} has no workers; start some: dask worker …") from error
        _check_versions(client)
        yield client.get_executor(pure=False)


def _check_versions(client: Any) -> None:
    own = version()
    try:
        found = client.run(version)
    except Exception as error:  # whatever a worker raises
        raise ValueError(
            f"a worker of the Dask cluster cannot import molml ({error}); install molml-lab {own} where workers run"
        ) from error
    for worker, other in found.items():
        if other != own:
            raise ValueError(f"the Dask worker {worker} has molml {other}, and this is {own}; install the same")


def version() -> str:
    """Of molml, where it is called."""
    import molml

    return str(molml.__version__)
