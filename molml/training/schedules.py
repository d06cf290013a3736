"""Learning-rate schedules in the fraction of training done.

torch's schedulers count steps, so they cannot know where a run that is limited by a wall clock will end.
"""

import math
from collections.abc import Callable


def cosine(*, warmup: float = 0.0, end: float = 0.0) -> Callable[[float], float]:
    """Factor of the learning rate: linear rise from 0 to 1, then half a cosine wave from 1 down to `end`.

    Parameters
    ----------
    warmup : float
        Fraction of training, 0 <= warmup < 1, that the rise takes.
    end : float
        Factor at the end, 0 <= end <= 1.

    Returns
    -------
    Callable
        Fraction of training done, 0 … 1 -> factor.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    References
    ----------
    Loshchilov and Hutter, ICLR 2017, eq. 5, without restarts; warm-up as in Goyal et al., arXiv:1706.02677, sec. 2.2.

    Examples
    --------
    >>> factor = cosine(warmup=0.2)
    >>> factor(0.1), factor(0.2), factor(0.6), factor(1.0)
    (0.5, 1.0, 0.5, 0.0)
    """
    if not 0 <= warmup < 1:
        raise ValueError(f"warmup must be a fraction of training, 0 <= warmup < 1, got {warmup}")
    if not 0 <= end <= 1:
        raise ValueError(f"end must be a factor, 0 <= end <= 1, got {end}")

    def factor(fraction: float) -> float:
        if fraction < warmup:
            return fraction / warmup
        return end + (1 - end) * (1 + math.cos(math.pi * (fraction - warmup) / (1 - warmup))) / 2

    return factor
