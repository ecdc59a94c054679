"""Robust statistics over seeds and tasks: interquartile means, stratified bootstrap intervals, improvement.

The definitions are rliable's (Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical
Precipice", NeurIPS 2021, arXiv 2108.13264). Arrays are [seed, task] or [seed, task, trial]. Everything is
numpy and deterministic: the bootstrap's own seed is an argument.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

Statistic = Callable[[np.ndarray], np.ndarray]
"""Maps [..., seed, task] to [...]; it is applied to many resamples at once."""

_CHUNK = 4_000_000  # elements of a resample held in memory at once


@dataclasses.dataclass(frozen=True)
class Interval:
    """A statistic with the ends of its confidence interval."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Curve:
    """Return against trial: arrays [trial].

    `low` and `high` bound the interquartile mean, `mean_low` and `mean_high` the mean. The two differ where
    most tasks are solved and some are not: the interquartile mean leaves the failures out.
    """

    iqm: Float[np.ndarray, " K"]
    mean: Float[np.ndarray, " K"]
    low: Float[np.ndarray, " K"]
    high: Float[np.ndarray, " K"]
    mean_low: Float[np.ndarray, " K"]
    mean_high: Float[np.ndarray, " K"]


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """The mean of the middle half over the last two axes, [..., seed, task] → [...].

    As in rliable, floor(n/4) values are cut from each end of the sorted n, with nothing interpolated:
    `scipy.stats.trim_mean(values, 0.25)`.
    """
    flat = np.sort(values.reshape(*values.shape[:-2], -1), axis=-1)
    cut = flat.shape[-1] // 4
    return flat[..., cut : flat.shape[-1] - cut].mean(axis=-1)


def mean(values: np.ndarray) -> np.ndarray:
    """The mean over the last two axes, [..., seed, task] → [...]."""
    return values.mean(axis=(-2, -1))


def stratified_bootstrap(
    values: Float[np.ndarray, "S N"],
    statistic: Statistic = interquartile_mean,
    reps: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    resample_tasks: bool = True,
    shared_runs: bool = False,
) -> Interval:
    """A percentile bootstrap interval of `statistic` on `values` [seed, task].

    Tasks are the strata: in each resample every task draws its own runs with replacement, independently
    (rliable's stratified bootstrap, for runs trained on one task each). With `shared_runs` a resample draws
    whole rows instead, which is right where a seed is one agent that played every task: a good agent is good
    on all of them, and drawing per task would average that away. With `resample_tasks` the tasks are drawn
    with replacement too, which is right where they are a sample from a distribution, as projections are.
    With one seed the interval speaks of tasks alone; over a few seeds any bootstrap is somewhat narrow.

    Raises `ValueError` for anything but a finite, non-empty [seed, task] array or a level outside (0, 1).
    """
    values = _checked(values, 2)
    _check_bootstrap(reps, level)
    generator = np.random.default_rng(seed)
    seeds, tasks = values.shape
    draws, block = [], max(1, _CHUNK // values.size)
    for start in range(0, reps, block):
        n = min(block, reps - start)
        run = generator.integers(seeds, size=(n, seeds, 1 if shared_runs else tasks))
        task = np.arange(tasks)[None, None]
        if resample_tasks:
            task = generator.integers(tasks, size=(n, 1, tasks))
        draws.append(statistic(values[run, task]))
    low, high = np.quantile(np.concatenate(draws), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(statistic(values)), float(low), float(high))


def adaptation_curve(
    returns: Float[np.ndarray, "S N K"], reps: int = 1000, seed: int = 0, level: float = 0.95
) -> Curve:
    """Return against trial: interquartile mean and mean with intervals, from [seed, task, trial].

    Seeds are agents that played every task, and tasks are a sample: both are resampled (`shared_runs`).
    """
    returns = _checked(returns, 3)
    by_trial = np.moveaxis(returns, -1, 0)
    middle = [
        stratified_bootstrap(v, interquartile_mean, reps, seed, level, shared_runs=True) for v in by_trial
    ]
    average = [stratified_bootstrap(v, mean, reps, seed, level, shared_runs=True) for v in by_trial]
    return Curve(
        iqm=np.array([interval.value for interval in middle]),
        mean=np.array([interval.value for interval in average]),
        low=np.array([interval.low for interval in middle]),
        high=np.array([interval.high for interval in middle]),
        mean_low=np.array([interval.low for interval in average]),
        mean_high=np.array([interval.high for interval in average]),
    )


def improvement(
    returns: Float[np.ndarray, "S N K"],
    first: int = 0,
    last: int = -1,
    reps: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The mean of (trial `last` − trial `first`), paired within each seed and task, with its interval.

    The mean, not the interquartile mean: differences are bounded by the returns, and trimming them would
    hide the tasks that gain most and those that lose.
    """
    returns = _checked(returns, 3)
    return stratified_bootstrap(
        returns[..., last] - returns[..., first], mean, reps, seed, level, shared_runs=True
    )


def total(
    returns: Float[np.ndarray, "S N K"],
    first: int,
    last: int,
    reps: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The mean over seeds and tasks of the returns of trials `first` to `last` together, counted from 1."""
    summed = _checked(returns, 3)[..., first - 1 : last].sum(-1)
    return stratified_bootstrap(summed, mean, reps, seed, level, shared_runs=True)


def difference(
    a: Float[np.ndarray, "S N"],
    b: Float[np.ndarray, "R N"],
    reps: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The mean of `a` minus that of `b`, over the same tasks, in order, with its interval.

    Seeds are agents that played every task: each set draws its own, whole, and the tasks are drawn once for
    both. Raises `ValueError` where the numbers of tasks differ.
    """
    a, b = _checked(a, 2), _checked(b, 2)
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"the two sets have {a.shape[1]} and {b.shape[1]} tasks; compare them on the same tasks"
        )
    _check_bootstrap(reps, level)
    generator = np.random.default_rng(seed)
    draws = np.empty(reps)
    for k in range(reps):
        task = generator.integers(a.shape[1], size=a.shape[1])
        mine, other = (x[generator.integers(len(x), size=len(x))].mean(0) for x in (a, b))
        draws[k] = (mine - other)[task].mean()
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(a.mean() - b.mean()), float(low), float(high))


def probability_of_improvement(
    a: Float[np.ndarray, "S N"],
    b: Float[np.ndarray, "R N"],
    reps: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """P(a run of `a` beats a run of `b` on a task), averaged over tasks; ties count half.

    Per task the Mann–Whitney U statistic over all pairs of runs, divided by their number (arXiv 2108.13264,
    section 4.3). The sets may differ in seeds but must share their tasks, in order. The interval resamples
    runs within tasks, and tasks.
    """
    a, b = _checked(a, 2), _checked(b, 2)
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"the two sets have {a.shape[1]} and {b.shape[1]} tasks; compare them on the same tasks"
        )
    _check_bootstrap(reps, level)
    generator = np.random.default_rng(seed)
    pairs = (np.sign(a[:, None] - b[None]) + 1) / 2  # [S, R, N]
    draws = np.empty(reps)
    for k in range(reps):
        task = generator.integers(a.shape[1], size=a.shape[1])
        rows = generator.integers(a.shape[0], size=a.shape)
        columns = generator.integers(b.shape[0], size=b.shape)
        draws[k] = pairs[rows[:, None], columns[None], task].mean()
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(pairs.mean()), float(low), float(high))


def _checked(values: np.ndarray, rank: int) -> np.ndarray:
    values = np.asarray(values, float)
    axes = ("seed", "task", "trial")[:rank]
    if values.ndim != rank or not values.size:
        raise ValueError(f"expected a non-empty array [{', '.join(axes)}], got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(
            f"{int((~np.isfinite(values)).sum())} of {values.size} values are not finite; drop or mend them"
        )
    return values


def _check_bootstrap(reps: int, level: float) -> None:
    if reps < 1 or not 0 < level < 1:
        raise ValueError(f"reps={reps} and level={level} must satisfy reps >= 1 and 0 < level < 1")
