"""GAE by hand: failure, time limits, and the trace that either cuts."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from resetta.agents import advantages

GAMMA, LAMBDA = 0.9, 0.5


def column(*values, dtype=jnp.float32):
    return jnp.asarray(values, dtype)[:, None]


estimate = jax.jit(advantages)


def gae(rewards, values, last, terminated, truncated, final):
    out = estimate(
        column(*rewards),
        column(*values),
        jnp.asarray([last], jnp.float32),
        column(*terminated, dtype=bool),
        column(*truncated, dtype=bool),
        column(*final),
        GAMMA,
        LAMBDA,
    )
    return np.asarray(out[:, 0])


def test_an_uninterrupted_sequence():
    # delta_1 = 2 + .9*4 - 3 = 2.6; delta_0 = 1 + .9*3 - 2 = 1.7; A_0 = 1.7 + .45*2.6
    out = gae([1, 2], [2, 3], 4, [0, 0], [0, 0], [0, 0])
    np.testing.assert_allclose(out, [1.7 + 0.45 * 2.6, 2.6], rtol=1e-6)


def test_failure_has_no_future_and_cuts_the_trace():
    out = gae([1, 2], [2, 3], 4, [1, 0], [0, 0], [99, 99])
    np.testing.assert_allclose(out, [1 - 2, 2.6], rtol=1e-6)


def test_a_time_limit_bootstraps_the_final_observation_not_the_next_trial():
    out = gae([1, 2], [2, 3], 4, [0, 0], [1, 0], [7, 99])
    np.testing.assert_allclose(out, [1 + 0.9 * 7 - 2, 2.6], rtol=1e-6)


def test_a_time_limit_at_the_last_step_ignores_the_next_value():
    out = gae([1, 2], [2, 3], 4, [0, 0], [0, 1], [99, 5])
    last = 2 + 0.9 * 5 - 3
    np.testing.assert_allclose(out, [1.7 + 0.45 * last, last], rtol=1e-6)


def test_failure_at_the_last_step():
    out = gae([1, 2], [2, 3], 4, [0, 0], [0, 1], [99, 5])
    failed = gae([1, 2], [2, 3], 4, [0, 1], [0, 0], [99, 5])
    np.testing.assert_allclose(failed, [1.7 + 0.45 * (2 - 3), 2 - 3], rtol=1e-6)
    assert not np.allclose(out, failed)


def reference(rewards, values, last, terminated, truncated, final):
    """Equation 11 of the paper summed forwards, in float64: no recursion to share a mistake with."""
    steps = len(rewards)
    deltas = np.empty(steps)
    for t in range(steps):
        following = final[t] if truncated[t] else (values[t + 1] if t + 1 < steps else last)
        deltas[t] = rewards[t] + GAMMA * (0.0 if terminated[t] else following) - values[t]
    out = np.zeros(steps)
    for t in range(steps):
        weight = 1.0
        for u in range(t, steps):
            out[t] += weight * deltas[u]
            if terminated[u] or truncated[u]:
                break
            weight *= GAMMA * LAMBDA
    return out


@given(st.integers(0, 10**6))
def test_agrees_with_the_definition(seed):
    rng = np.random.default_rng(seed)
    steps = 12
    rewards, values, final = rng.normal(size=(3, steps))
    end = rng.random(steps) < 0.3
    kind = rng.random(steps) < 0.5
    args = (rewards, values, rng.normal(), end & kind, end & ~kind, final)
    np.testing.assert_allclose(gae(*args), reference(*args), atol=2e-5)
