"""How a weight or a learning rate changes over the epochs of a stage.

A schedule is a callable (epoch, n_epochs) -> number, the epoch counted from 0.
"""

from __future__ import annotations

from collections.abc import Callable

Schedule = Callable[[int, int], float]


def constant(value: float) -> Schedule:
    """The same value in every epoch."""
    return lambda epoch, n_epochs: value


def linear_decay(start: float) -> Schedule:
    """start · (1 - t / t_max): the decay of alpha in RDL (McClure & Kriegeskorte 2016).

    The first epoch (t = 0) has `start`, the last one start / t_max.
    """
    return lambda epoch, n_epochs: start * (1 - epoch / n_epochs)


def lee_decay(start: float) -> Schedule:
    """a_{t+1} = a_t · 0.1 · (1 - t / t_max), a_0 = start: deep supervision's decay as printed.

    After Lee et al. (2014), as McClure & Kriegeskorte (2016) print it. Read literally it falls at least
    tenfold an epoch, which switches the auxiliary term off after the first few; `linear_decay` is the
    alternative.
    """

    def alpha(epoch: int, n_epochs: int) -> float:
        value = start
        for t in range(epoch):
            value *= 0.1 * (1 - t / n_epochs)
        return value

    return alpha


def warm_up(schedule: Schedule, n_warm: float) -> Schedule:
    """`schedule`, reached linearly over the first `n_warm` epochs: epoch t has min(1, (t + 1) / (n_warm + 1)) of it."""
    return lambda epoch, n_epochs: schedule(epoch, n_epochs) * min(1.0, (epoch + 1) / (n_warm + 1))


def halving(start: float, every: int) -> Schedule:
    """start, halved every `every` epochs: the learning rate of the paper's CIFAR-100 experiment (every 25)."""
    return lambda epoch, n_epochs: start * 0.5 ** (epoch // every)
