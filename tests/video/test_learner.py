"""The optimiser step: what it averages, skips, accumulates and carries on."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.video.clip import ActionSpace, Clip
from resetta.video.learner import Learner, trained
from resetta.video.models import make_model

SIZE, T, B = 8, 5, 4


@pytest.fixture(scope="module")
def model():
    options = {"name": "conv_s5", "features": 4, "num_layers": 1, "widths": [4], "patch": 2}
    return make_model(options, size=SIZE, channels=1, actions=ActionSpace())


def _clip(seed=0):
    frames = np.random.default_rng(seed).integers(0, 256, (T, B, SIZE, SIZE, 1)).astype(np.uint8)
    reset = np.zeros((T, B), bool)
    reset[0] = True
    return Clip(frames, None, reset)


def _close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def test_accumulated_parts_equal_the_whole_batch(model):
    whole = Learner(model, batch=B, total_steps=10, stream=True)
    parts = dataclasses.replace(whole, accumulate=2)
    state = jax.jit(whole.init)()
    loss, memory, gradient = jax.jit(whole._gradient)(
        state.params, (), state.memory, _clip(), jax.random.key(0)
    )
    again = jax.jit(parts._gradient)(state.params, (), state.memory, _clip(), jax.random.key(0))
    np.testing.assert_allclose(again[0], loss, rtol=1e-5)
    _close(again[1], memory, atol=1e-5)
    _close(again[2], gradient, atol=1e-5)


def test_a_step_that_is_not_finite_changes_nothing_and_clears_the_memory(model):
    learner = Learner(model, batch=B, total_steps=10, stream=True)
    state = jax.jit(learner.init)()
    update = jax.jit(learner.update)
    state, _ = update(state, (), _clip())
    carry = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), state.memory.carry)
    clip = _clip()._replace(reset=np.zeros((T, B), bool))  # nothing resets the poisoned memory
    after, metrics = update(state.replace(memory=state.memory._replace(carry=carry)), (), clip)
    assert not np.isfinite(metrics["loss"])
    assert int(after.bad_in_a_row) == 1
    _close(after.params, state.params, rtol=0)
    _close(after.ema, state.ema, rtol=0)
    _close(after.memory, model.initial_memory(B), rtol=0)
    healthy, metrics = update(after, (), _clip(1))
    assert np.isfinite(metrics["loss"])
    assert int(healthy.bad_in_a_row) == 0


def test_the_average_follows_the_parameters(model):
    learner = Learner(model, batch=B, total_steps=10, ema=0.9)
    state = jax.jit(learner.init)()
    after, _ = jax.jit(learner.update)(state, (), _clip())
    expected = jax.tree.map(
        lambda new, old: 0.1 * old + 0.9 * new, after.params, state.params
    )  # 1/10 at first
    _close(trained(after), expected, atol=1e-6)
    plain = dataclasses.replace(learner, ema=0.0)
    assert trained(plain.init()) is not None


def test_the_rate_warms_up_and_falls(model):
    learner = Learner(model, batch=B, total_steps=110, lr=1e-2, lr_final=1e-3, warmup=10)
    rates = [float(learner.schedule(step)) for step in (0, 5, 10, 60, 110)]
    np.testing.assert_allclose(rates, [0.0, 5e-3, 1e-2, 5.5e-3, 1e-3], rtol=1e-5, atol=1e-9)
    constant = dataclasses.replace(learner, lr_final=None)
    assert float(constant.schedule(100)) == pytest.approx(1e-2)


def test_the_loss_falls(model):
    learner = Learner(model, batch=B, total_steps=60, lr=1e-2)
    state, update = jax.jit(learner.init)(), jax.jit(learner.update)
    losses = []
    for _ in range(60):
        state, metrics = update(state, (), _clip())
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.8 * losses[0]


def test_mistakes_are_sentences(model):
    with pytest.raises(ValueError, match="batch=4 is not divisible by accumulate=3; use 3 or 6"):
        Learner(model, batch=B, total_steps=1, accumulate=3)
