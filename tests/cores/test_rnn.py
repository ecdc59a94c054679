"""GRU and LSTM: the hand-written backward passes are those of the equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.cores import make_core, rnn
from resetta.cores.rnn import gru, lstm

T, B, D = 9, 3, 4
RESET = np.zeros((T, B), bool)
RESET[0, 0] = RESET[4, 0] = RESET[5, 0] = RESET[8, 1] = True


def _plain_gru(u, kernel, bias, h, reset):
    """The equations in `gru`'s docstring, one step at a time."""
    hs = []
    for t in range(T):
        h = jnp.where(reset[t][:, None], 0.0, h)
        ur, uz, un = jnp.split(u[t], 3, axis=-1)
        kr, kz, kn = jnp.split(kernel, 3, axis=-1)
        r, z = jax.nn.sigmoid(ur + h @ kr), jax.nn.sigmoid(uz + h @ kz)
        h = (1 - z) * jnp.tanh(un + r * (h @ kn + bias)) + z * h
        hs.append(h)
    return jnp.stack(hs)


def _plain_lstm(u, kernel, h, c, reset):
    hs = []
    for t in range(T):
        h, c = (jnp.where(reset[t][:, None], 0.0, a) for a in (h, c))
        i, f, g, o = jnp.split(u[t] + h @ kernel, 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        hs.append(h)
    return jnp.stack(hs), c


def _arguments(cell, dtype):
    rng = np.random.default_rng(0)
    gates = 3 if cell == "gru" else 4
    shapes = [(T, B, gates * D), (D, gates * D), (D,) if cell == "gru" else (B, D), (B, D)]
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def _value_and_gradients(function, arguments):
    weights = jax.tree.map(
        lambda s: np.random.default_rng(1).normal(size=s.shape), jax.eval_shape(function, *arguments, RESET)
    )

    def loss(*arguments):
        y = function(*arguments, jnp.asarray(RESET))
        return jax.tree.reduce(jnp.add, jax.tree.map(lambda a, w: (a * w).sum(), y, weights))

    return jax.jit(jax.value_and_grad(loss, tuple(range(4))))(*arguments)


@pytest.mark.parametrize(
    ("cell", "fast", "plain"), [("gru", gru, _plain_gru), ("lstm", lstm, _plain_lstm)], ids=["gru", "lstm"]
)
def test_values_and_gradients_are_those_of_the_equations(cell, fast, plain, monkeypatch):
    with jax.enable_x64(True):
        expected = _value_and_gradients(plain, _arguments(cell, jnp.float64))
        for keep in (True, False):  # as on a CPU, and as on a GPU
            monkeypatch.setattr(rnn, "_saves_gates", lambda keep=keep: keep)
            exact = _value_and_gradients(fast, _arguments(cell, jnp.float64))
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), exact, expected
            )
    single = _value_and_gradients(fast, _arguments(cell, jnp.float32))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), single, expected)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_nan_in_a_state_that_is_reset_reaches_no_gradient(cell):
    arguments = _arguments(cell, jnp.float32)
    poisoned = [a.at[0].set(jnp.nan) if a.shape == (B, D) else a for a in arguments]  # row 0 resets at once
    function = {"gru": gru, "lstm": lstm}[cell]
    clean, dirty = _value_and_gradients(function, arguments), _value_and_gradients(function, poisoned)
    jax.tree.map(np.testing.assert_array_equal, dirty, clean)


def test_birth():
    x, reset = jnp.zeros((2, B, 5)), jnp.zeros((2, B), bool)
    for name, gates in (("gru", 3), ("lstm", 4)):
        core = make_core(name, features=D, num_layers=2)
        params = core.init(jax.random.key(0), core.initial_carry(B), x, reset)["params"]
        assert params["input_0"]["kernel"].shape == (5, gates * D)
        for square in np.split(np.asarray(params["recurrent_1"]), gates, axis=1):
            np.testing.assert_allclose(square.T @ square, np.eye(D), atol=1e-5)
    np.testing.assert_array_equal(params["input_0"]["bias"], np.repeat([0.0, 1.0, 0.0, 0.0], D))


def test_the_carry_is_batch_first():
    assert make_core("gru", features=D, num_layers=2).initial_carry(B).shape == (B, 2, D)
    carry = make_core("lstm", features=D, num_layers=2).initial_carry(B)
    assert {name: a.shape for name, a in carry.items()} == {"hidden": (B, 2, D), "cell": (B, 2, D)}
