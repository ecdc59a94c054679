"""The committed scores against fresh measurements, and what normalising does without a yardstick."""

import csv
import json
from importlib.resources import files
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.envs.registry import env_names, make_env
from resetta.envs.scores import (
    _trials,
    frozen_lake_optimum,
    main,
    measure_controller,
    measure_random,
    normalize,
    observation_rms,
    score,
)

CHEAP = ["cartpole", "cartpole_catch", "dark_room", "bernoulli_bandit", "point_mass", "bsuite_catch"]


def test_every_registered_environment_has_an_entry_and_nothing_else_has():
    table = json.loads(files("resetta.envs").joinpath("scores.json").read_text())
    assert sorted(table) == env_names()
    for name in env_names():
        known = score(name)
        assert known.note
        assert known.kind in ("optimum", "controller", "trained", "published", None)
        assert (known.kind is None) == (known.reference is None)
        assert (known.random is None) == (known.random_episodes == 0)
        if known.random is not None and known.reference is not None:
            assert known.reference > known.random
        assert "seed" in table[name]["random"]["measured"] or known.random is None


@pytest.mark.parametrize("name", CHEAP)
def test_random_scores_can_be_measured_again(name):
    known, fresh = score(name), measure_random(name, 512, seed=12345)
    error = np.hypot(known.random_std_error, fresh["std_error"])
    assert abs(fresh["mean"] - known.random) < 5 * error
    assert fresh["episodes"] == 512


@pytest.mark.parametrize(
    ("name", "expected"), [("dark_room", 0.217), ("point_mass", 12.35), ("bernoulli_bandit", 5.0)]
)
def test_random_scores_agree_with_independent_figures(name, expected):
    # From a separate NumPy simulation of the same rules; the bandit's is exact.
    known = score(name)
    assert abs(known.random - expected) < 5 * known.random_std_error + 0.02 * expected


@pytest.mark.parametrize("name", ["pendulum", "mountain_car", "cartpole_catch", "point_mass"])
def test_controllers_reach_their_scores(name):
    known, fresh = score(name), measure_controller(name, 256, seed=99)
    # The committed value rests on four times as many trials: half the standard error.
    assert abs(fresh["mean"] - known.reference) < 5 * np.hypot(1, 0.5) * max(fresh["std_error"], 1e-3)


def test_cartpoles_controller_attains_the_optimum():
    assert measure_controller("cartpole", 64, seed=1)["mean"] == score("cartpole").reference == 500


def test_squares_of_what_is_observed():
    """What is summed over a trial, against the same trial played step by step."""
    cartpole = make_env("cartpole")
    trials = _trials(cartpole, (), lambda carry, _, o: (carry, jnp.int32(o[2] > 0)), 3, 5)
    np.testing.assert_array_equal(trials.steps, trials.returns)  # 1 a step
    key_task, key_reset, key = jax.random.split(jax.random.split(jax.random.key(5), 3)[1], 3)
    params = cartpole.sample_task(key_task, cartpole.params)
    observation, state = cartpole.reset(key_reset, params)
    squares, done = 0.0, False
    for step in range(500):
        if done:
            break
        squares = squares + np.asarray(observation, np.float64) ** 2
        _, key_step = jax.random.split(jax.random.fold_in(key, step))
        action = jnp.int32(observation[2] > 0)
        observation, state, _, done, _ = cartpole.step(key_step, state, action, params)
    np.testing.assert_allclose(trials.squares[1], squares, rtol=1e-3)


def test_observation_sizes_are_known_of_the_control_suite():
    finger = np.array(observation_rms("dm_finger_spin"))
    assert finger.shape == (9,)
    assert (finger > 0).all()
    cos_sin = np.array(observation_rms("dm_pendulum_swingup"))[:2]
    np.testing.assert_allclose((cos_sin**2).sum(), 1, rtol=1e-3)
    with pytest.raises(ValueError, match="what dark_room observes under random actions was never measured"):
        observation_rms("dark_room")


def test_a_missing_controller_is_said():
    with pytest.raises(ValueError, match="dark_room has no controller"):
        measure_controller("dark_room", 1, 0)


def test_frozen_lake_by_backward_induction():
    # Gymnasium's 4x4 map has a known optimum of 14/17 without a limit; 100 steps cost a little of it.
    assert 0.7 < frozen_lake_optimum() < 14 / 17
    assert score("frozen_lake").reference == pytest.approx(frozen_lake_optimum(), abs=1e-5)


def test_trained_references_are_the_best_of_what_was_trained():
    path = Path(__file__).parents[2] / "docs/results/h100/brax_expert/experts.csv"
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    trained = {name for name in env_names() if score(name).kind == "trained"}
    assert trained == {row["env"] for row in rows} - {"brax_inverted_pendulum"}  # whose optimum is known
    for name in trained:
        of_it = [row for row in rows if row["env"] == name]
        assert score(name).reference == max(float(row["mean"]) for row in of_it)
        # random play, in evaluation and as measured, differs by chance alone
        assert abs(float(of_it[0]["random"]) - score(name).random) < 5 * 1.5 * score(name).random_std_error


def test_normalizing():
    known = score("cartpole")
    np.testing.assert_allclose(normalize("cartpole", np.array([known.random, 500.0])), [0, 1])
    assert normalize("pendulum", 0.0) > 1
    assert normalize("minatar_seaquest", np.zeros(3)) is None
    assert normalize("brax_humanoid", 1.0) is None
    assert normalize("my_module:MyEnv", 1.0) is None
    with pytest.raises(ValueError, match="my_module:MyEnv has no scores"):
        score("my_module:MyEnv")


def test_the_command_writes_what_it_measures(tmp_path, monkeypatch, capsys):
    path = tmp_path / "scores.json"
    monkeypatch.setattr("resetta.envs.scores._PATH", path)
    main(["bernoulli_bandit", "--episodes", "32", "--seed", "3"])
    entry = json.loads(path.read_text())["bernoulli_bandit"]
    assert entry["random"]["episodes"] == 32
    assert entry["random"]["measured"].startswith("seed 3, jax ")
    assert entry["reference"]["kind"] == "optimum"
    assert "bernoulli_bandit" in capsys.readouterr().out
