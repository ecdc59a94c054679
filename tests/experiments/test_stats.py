import numpy as np
import pytest
import scipy.stats

from resetta.experiments.stats import (
    adaptation_curve,
    difference,
    improvement,
    interquartile_mean,
    mean,
    probability_of_improvement,
    stratified_bootstrap,
    total,
)


def test_interquartile_mean_by_hand():
    # Eight values: two cut from each end, the mean of 3, 4, 5, 6 remains.
    assert interquartile_mean(np.array([[1.0, 3, 5, 700], [-900, 4, 6, 8]])) == pytest.approx(4.5)
    # Six values: floor(6/4) = 1 cut from each end.
    assert interquartile_mean(np.array([[0.0, 1, 2, 3, 4, 50]])) == pytest.approx(2.5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (3, 5), (4, 16), (10, 7)])
def test_interquartile_mean_is_scipys(shape):
    values = np.random.default_rng(0).standard_t(2, size=shape)
    assert interquartile_mean(values) == pytest.approx(scipy.stats.trim_mean(values.ravel(), 0.25), abs=1e-12)


def test_statistics_are_vectorised_over_leading_axes():
    values = np.random.default_rng(1).normal(size=(6, 3, 8))
    for statistic in (interquartile_mean, mean):
        np.testing.assert_allclose(statistic(values), [statistic(v) for v in values])


def coverage(statistic, resample_tasks):
    """How often a nominal 95 % interval holds the truth, 0, over independent data sets."""
    generator = np.random.default_rng(7)
    trials, hits = 300, 0
    for k in range(trials):
        values = generator.normal(size=(4, 20))
        if resample_tasks:
            values = values + generator.normal(size=20)
        found = stratified_bootstrap(values, statistic, reps=300, seed=k, resample_tasks=resample_tasks)
        hits += found.low <= 0 <= found.high
    return hits / trials


@pytest.mark.parametrize("statistic", [mean, interquartile_mean])
@pytest.mark.parametrize("resample_tasks", [True, False])
def test_intervals_cover(statistic, resample_tasks):
    # At least .9, within two standard errors: a percentile bootstrap of small samples is a little narrow.
    assert coverage(statistic, resample_tasks) >= 0.9 - 2 * np.sqrt(0.95 * 0.05 / 300)


def test_forgetting_the_tasks_is_overconfident():
    # Tasks differ: an interval that holds them fixed does not cover the mean over the distribution of tasks.
    generator = np.random.default_rng(3)
    values = generator.normal(size=(1, 40)) + 0.1 * generator.normal(size=(8, 40))
    free = stratified_bootstrap(values, mean)
    fixed = stratified_bootstrap(values, mean, resample_tasks=False)
    assert (free.high - free.low) > 3 * (fixed.high - fixed.low)


def test_agents_that_play_every_task_are_resampled_whole():
    # A good agent is good on all tasks: drawing runs per task averages that away and covers far too rarely.
    generator = np.random.default_rng(5)
    hits = {True: 0, False: 0}
    for k in range(100):
        values = generator.normal(size=(10, 1)) + generator.normal(size=(10, 30))
        for shared in hits:
            found = stratified_bootstrap(values, mean, reps=200, seed=k, shared_runs=shared)
            hits[shared] += found.low <= 0 <= found.high
    assert hits[False] < 70
    assert hits[True] >= 85


def test_stratified_resampling_keeps_every_task():
    # With identical runs nothing can vary unless tasks are resampled.
    values = np.tile(np.arange(10.0), (3, 1))
    fixed = stratified_bootstrap(values, mean, resample_tasks=False)
    assert fixed.low == fixed.value == fixed.high == pytest.approx(4.5)


def test_the_bootstrap_is_deterministic_and_depends_on_its_seed():
    values = np.random.default_rng(0).normal(size=(3, 12))
    assert stratified_bootstrap(values, seed=1) == stratified_bootstrap(values, seed=1)
    assert stratified_bootstrap(values, seed=1) != stratified_bootstrap(values, seed=2)


def test_adaptation_curve():
    generator = np.random.default_rng(0)
    returns = generator.uniform(size=(3, 40, 1)) * 0.2 + np.array([0.1, 0.5, 0.7])
    curve = adaptation_curve(returns, reps=200)
    assert curve.iqm.shape == curve.mean.shape == curve.low.shape == curve.high.shape == (3,)
    np.testing.assert_allclose(curve.iqm, [interquartile_mean(returns[..., k]) for k in range(3)])
    assert (curve.low <= curve.iqm).all()
    assert (curve.iqm <= curve.high).all()
    assert np.allclose(np.diff(curve.mean), [0.4, 0.2])


def test_improvement_is_paired():
    # Tasks differ by far more than the trials do: only a paired interval sees the gain.
    generator = np.random.default_rng(0)
    first = 100 * generator.normal(size=(2, 60))
    gain = 1 + 0.1 * generator.normal(size=(2, 60))
    found = improvement(np.stack([first, np.zeros_like(first), first + gain], -1), 0, 2)
    assert found.value == pytest.approx(gain.mean())
    assert 0.9 < found.low < found.value < found.high < 1.1


def test_a_total_is_summed_within_a_task():
    returns = np.zeros((2, 3, 4))
    returns[..., 1] = [[1.0, 2, 3], [1, 2, 3]]
    returns[..., 2] = 4 - returns[..., 1]
    assert total(returns, 1, 2).value == 2
    both = total(returns, 2, 3)
    assert (both.low, both.value, both.high) == (4, 4, 4)  # what varies between trials does not in their sum
    assert total(returns, 2, 2).high > 2


def test_a_difference_pairs_tasks_and_not_seeds():
    generator = np.random.default_rng(3)
    tasks = 10 * generator.normal(size=40)  # tasks differ far more than agents
    a, b = tasks + generator.normal(size=(5, 40)), tasks + 1 + generator.normal(size=(3, 40))
    found = difference(a, b)
    assert found.value == pytest.approx(a.mean() - b.mean())
    assert found.low < found.value < found.high
    assert found.high < 0  # certain, though either mean alone is known to about 3
    assert found.high - found.low < 1.5
    same = difference(a, a)
    assert same.low < same.value == 0 < same.high  # seeds are not paired
    with pytest.raises(ValueError, match="40 and 39 tasks"):
        difference(a, b[:, 1:])


def test_probability_of_improvement():
    generator = np.random.default_rng(0)
    a, b = generator.normal(0.5, 1, size=(5, 30)), generator.normal(size=(4, 30))
    found = probability_of_improvement(a, b, reps=200)
    by_task = [scipy.stats.mannwhitneyu(a[:, n], b[:, n]).statistic / 20 for n in range(30)]
    assert found.value == pytest.approx(np.mean(by_task))
    assert found.low < found.value < found.high
    assert probability_of_improvement(a, a, reps=10).value == pytest.approx(0.5)
    assert probability_of_improvement(b + 100, b, reps=10).low == 1.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(3), r"\[seed, task\], got shape \(3,\)"),
        (np.zeros((0, 3)), "non-empty"),
        (np.array([[1.0, np.nan]]), "1 of 2 values are not finite"),
    ],
)
def test_bad_values(values, message):
    with pytest.raises(ValueError, match=message):
        stratified_bootstrap(values)


def test_bad_options():
    with pytest.raises(ValueError, match="level=95"):
        stratified_bootstrap(np.zeros((2, 2)), level=95)
    with pytest.raises(ValueError, match="3 and 4 tasks"):
        probability_of_improvement(np.zeros((2, 3)), np.zeros((2, 4)))
