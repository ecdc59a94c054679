"""brax's environments: fresh resets, true last observations, spring by default, and swimmer mended."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.envs.base import Continuous
from resetta.envs.brax import BraxEnvironment
from resetta.envs.make import make_meta_env
from resetta.envs.registry import make_env


def test_brax_is_quiet_and_spring_by_default(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        base_env = make_env("brax_inverted_pendulum")
    assert capsys.readouterr().out == ""
    assert base_env.env.brax_env.backend == "spring"
    assert base_env.observation_shape == (4,)
    assert base_env.action == Continuous(1, (-1.0,), (1.0,))
    assert (base_env.max_steps, base_env.truncates) == (1000, True)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("brax_swimmer", {"backend": "spring"}, "brax_swimmer has no backend 'spring'; use generalized"),
        ("brax_fast", {"backend": "warp"}, "brax_fast has no backend 'warp'; use generalized or mjx or"),
        ("brax_hopper", {"healthy": 1}, "brax_hopper has no option 'healthy'; valid names are healthy_"),
        ("brax_cheetah", {}, "did you mean brax_halfcheetah"),
    ],
)
def test_mistakes(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_env(name, **options)


def test_options_reach_brax():
    assert make_env("brax_inverted_pendulum", backend="positional").env.brax_env.backend == "positional"
    assert make_env("brax_fast", max_steps_in_episode=7).max_steps == 7


def test_the_limit_truncates():
    base_env = make_env("brax_fast", max_steps_in_episode=3)
    _, state = base_env.reset(jax.random.key(0), base_env.params)

    def step(state, _):
        out = base_env.step(jax.random.key(0), state, jnp.ones(1), base_env.params)
        return out[1], (out[0], *out[2:])

    _, (observation, reward, terminated, truncated) = jax.lax.scan(step, state, None, 4)
    assert truncated.tolist() == [False, False, True, True]
    assert not terminated.any()
    assert observation.shape == (4, 2)
    assert reward.dtype == jnp.float32


def test_falling_terminates_with_the_true_last_observation_and_starts_are_fresh():
    base_env = make_env("brax_inverted_pendulum")

    @jax.jit
    def run(key):
        first, state = base_env.reset(key, base_env.params)

        def step(state, _):
            out = base_env.step(key, state, jnp.ones(1), base_env.params)
            return out[1], (out[0], *out[2:])

        return first, jax.lax.scan(step, state, None, 60)[1]

    first, (observation, _, terminated, truncated) = run(jax.random.key(0))
    again, _ = run(jax.random.key(1))
    assert not np.allclose(first, again)
    end = int(np.argmax(terminated))
    assert terminated.any()
    assert not truncated.any()
    # brax ends a trial where the pole leans more than .2 rad: the last observation shows it, none before.
    assert np.abs(observation[end, 1]) > 0.2
    assert (np.abs(observation[:end, 1]) <= 0.2).all()


@pytest.mark.slow
def test_swimmer_swims_again():
    import inspect

    base_env = make_env("brax_swimmer")

    @jax.jit
    def run(key):
        first, state = base_env.reset(key, base_env.params)
        return first, base_env.step(key, state, jnp.array([0.5, -0.5]), base_env.params)

    first, (observation, _, reward, terminated, _) = run(jax.random.key(0))
    assert first.shape == observation.shape == base_env.observation_shape
    assert np.isfinite(observation).all()
    assert np.isfinite(reward)
    assert not np.allclose(first, observation)
    assert not terminated
    assert jnp.clip(jnp.float32(-1), min=0) == 0  # jax.numpy itself is as it was
    assert "a_min" not in inspect.signature(jnp.clip).parameters


def test_making_projected_bodies_resets_none(monkeypatch):
    """To trace a simulator's reset takes seconds, and how wide its observations are nobody asks yet."""

    def reset(self, key):
        raise AssertionError("a reset was traced")

    monkeypatch.setattr(BraxEnvironment, "_reset", reset)
    lanes = {"brax_inverted_pendulum": {}, "brax_fast": {}}
    widths = {"observation_width": 7, "action_width": 2}
    env = make_meta_env(lanes, num_envs=2, trials=1, projection="orthogonal", **widths)
    assert env.observation_shape == (7,)
    assert env.action.size == 2
    with pytest.raises(AssertionError, match="a reset was traced"):
        make_meta_env(lanes, num_envs=2, trials=1, **widths)


def test_a_width_is_found_by_tracing_alone(monkeypatch):
    """Constants that are folded on the way are programs of their own: ten times as long, for a large body."""
    folded, own = [], BraxEnvironment._reset

    def reset(self, key):
        folded.append(not isinstance(jnp.zeros(()) + 1.0, jax.core.Tracer))
        return own(self, key)

    monkeypatch.setattr(BraxEnvironment, "_reset", reset)
    base_env = make_env("brax_fast")
    assert base_env.observation_shape == (2,)
    assert folded == [False]
