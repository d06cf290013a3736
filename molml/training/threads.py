"""How many processor cores a command may use."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any


def limit_threads(threads: int | None) -> None:
    """Let torch and the linear algebra of numpy and scipy use so many threads, from now on.

    Parameters
    ----------
    threads : int or None
        At least 1; None leaves everything as it is.

    Raises
    ------
    ValueError
        If it is less than 1.
    """
    if threads is None:
        return
    if threads < 1:
        raise ValueError(f"--threads must be at least 1, got {threads}")
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(threads)
    threadpool_limits(threads)


def in_processes(n_jobs: int, function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
    """Results of many calls, in their order, each as soon as it is there; other processes begin at once.

    Parameters
    ----------
    n_jobs : int
        Processes to work in, each on one core; with 1 it is this one.
    function : callable
    arguments : iterable of tuple
        Of each call.

    Yields
    ------
    object
        What the function returns.
    """
    if n_jobs == 1:
        return (function(*each) for each in arguments)
    from joblib import Parallel, delayed, parallel_config

    with parallel_config("loky", n_jobs=n_jobs, inner_max_num_threads=1):
        calls: Iterator[Any] = Parallel(return_as="generator")(delayed(function)(*each) for each in arguments)
        return calls
