"""How many processor cores a command may use."""


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
