"""ConvLSTM against the equations written out in float64, and what it asks for."""

import jax
import numpy as np
import pytest

from resetta.cores import make_core

T, B, H, W, D = 5, 2, 4, 3, 4


def _conv(x, kernel):
    """SAME convolution of `[H, W, C]` with `[3, 3, C, O]`, in float64."""
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    out = np.zeros((*x.shape[:2], kernel.shape[-1]))
    for i in range(3):
        for j in range(3):
            out += padded[i : i + x.shape[0], j : j + x.shape[1]] @ kernel[i, j]
    return out


def _sigmoid(a):
    return 1 / (1 + np.exp(-a))


def test_the_equations():
    core = make_core("conv_lstm", features=D, num_layers=1, nonlinearity="none")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(T, B, H, W, D)).astype(np.float32)
    reset = np.zeros((T, B), bool)
    reset[3, 1] = True
    carry = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), core.initial_carry(B, (H, W)))
    params = core.init(jax.random.key(0), carry, x, reset)
    end, y = core.apply(params, jax.tree.map(np.float32, carry), x, reset)
    p = jax.tree.map(lambda leaf: np.asarray(leaf[0], np.float64), params["params"]["layers"])
    assert p["input"]["bias"].reshape(4, D).tolist() == [[0] * D, [1] * D, [0] * D, [0] * D]
    for b in range(B):
        h, c = carry["hidden"][b, 0], carry["cell"][b, 0]
        for t in range(T):
            if reset[t, b]:
                h, c = np.zeros_like(h), np.zeros_like(c)
            a = _conv(x[t, b], p["input"]["kernel"]) + p["input"]["bias"] + _conv(h, p["recurrent"])
            i, f, g, o = np.split(a, 4, axis=-1)
            c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
            h = _sigmoid(o) * np.tanh(c)
            z = x[t, b] + h
            z = (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 1e-6)
            np.testing.assert_allclose(y[t, b], z * p["norm"]["scale"] + p["norm"]["bias"], atol=1e-4)
        np.testing.assert_allclose(end["hidden"][b, 0], h, atol=1e-5)
        np.testing.assert_allclose(end["cell"][b, 0], c, atol=1e-5)


def test_it_needs_the_size_of_a_frame():
    with pytest.raises(TypeError, match="initial_carry"):
        make_core("conv_lstm").initial_carry(2)


def test_mistakes_are_sentences():
    with pytest.raises(ValueError, match="unknown nonlinearity 'relu'"):
        make_core("conv_lstm", nonlinearity="relu")
