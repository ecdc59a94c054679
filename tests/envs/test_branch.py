"""Work done always, or only where it is needed: the same result."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.envs import make_meta_env
from resetta.envs.branch import if_any


def program(env, states, action):
    return str(jax.make_jaxpr(env.step)(jax.random.key(0), states, action))


def test_an_accelerator_steps_without_branches_and_to_the_same_states(monkeypatch):
    env = make_meta_env({"repeat_previous_easy": {}}, num_envs=3, trials=1)
    states, _ = env.reset(jax.random.key(1))
    action = jnp.zeros(3, jnp.int32)
    assert "cond[" in program(env, states, action)

    def play():
        def step(states, key):
            states, inputs, outcome = env.step(key, states, action)
            return states, (inputs, outcome)

        return jax.jit(lambda s: jax.lax.scan(step, s, jax.random.split(jax.random.key(2), 60)))(states)

    skipping = play()
    assert int(skipping[1][1].trial_end.sum()) >= 3, "some trials end"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "cond[" not in program(env, states, action)
    jax.tree.map(np.testing.assert_array_equal, skipping, play())


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_a_decomposition_is_skipped_everywhere(backend, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)

    def change(matrix):
        return jnp.linalg.qr(matrix)[0]

    text = str(jax.make_jaxpr(lambda m: if_any(m.sum() > 0, change, m))(jnp.eye(3)))
    assert "cond[" in text
    assert if_any(jnp.asarray(False), change, 2 * jnp.eye(2)).tolist() == [[2, 0], [0, 2]]
