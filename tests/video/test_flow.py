"""Rectified flow: the path, its target, the way back, and what a denoiser is told."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resetta.video.clip import NO_ACTION, ActionSpace
from resetta.video.flow import (
    LeadingAction,
    Modulated,
    NoiseLevel,
    check_flow,
    euler,
    guided,
    noised,
    twice,
)


def _disturbed(params, seed=1):
    """Nothing is zero any more."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    moved = [leaf + 0.3 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, moved)


def test_the_path_is_straight_from_latents_to_noise():
    """From x and the target alone: the latents at sigma = 0, and noise that knows nothing of them at 1."""
    latents = 3.0 + jax.random.normal(jax.random.key(0), (40, 10, 4, 4, 2))
    sample = noised(latents, jax.random.key(1))
    x, target = (np.asarray(a, np.float64) for a in (sample.x, sample.target))
    sigma = np.asarray(sample.sigma, np.float64)[..., None, None, None]
    np.testing.assert_allclose(x - sigma * target, latents, atol=1e-5)
    noise = x + (1.0 - sigma) * target
    np.testing.assert_allclose(noise - target, latents, atol=1e-5)
    # 12 800 draws: four standard errors of mean, variance and correlation
    assert abs(noise.mean()) < 0.036
    assert abs(noise.var() - 1.0) < 0.05
    assert abs(np.corrcoef(noise.ravel(), np.asarray(latents).ravel())[0, 1]) < 0.036


def test_every_frame_has_a_level_of_its_own_from_a_logit_normal():
    sigma = np.asarray(noised(jnp.zeros((100, 50, 1, 1, 1)), jax.random.key(0)).sigma, np.float64)
    assert sigma.shape == (100, 50)
    assert np.unique(sigma).size > 4900
    logit = np.log(sigma / (1.0 - sigma))
    assert abs(logit.mean()) < 0.06
    assert abs(logit.std() - 1.0) < 0.05
    assert abs(np.corrcoef(logit[1:].ravel(), logit[:-1].ravel())[0, 1]) < 0.06


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 12), st.integers(0, 99))
def test_euler_finds_a_single_frame_exactly_in_any_number_of_steps(steps, seed):
    """Where all data is one frame x0 the velocity is (x - x0) / sigma, which is never asked for at 0."""
    key_noise, key_frame = jax.random.split(jax.random.key(seed))
    frame = jax.random.normal(key_frame, (2, 3, 3, 2))
    noise = jax.random.normal(key_noise, frame.shape)
    found = euler(lambda x, sigma: (x - frame) / sigma[:, None, None, None], noise, steps)
    np.testing.assert_allclose(found, frame, atol=1e-5)


def test_euler_asks_at_the_beginning_of_every_step():
    """The integral of sigma from 1 to 0 by left sums: (n + 1) / 2n; growth at rate a: (1 - a / n)^n."""
    start = jnp.ones((2, 1, 1, 1))
    level = euler(lambda x, sigma: jnp.broadcast_to(sigma[:, None, None, None], x.shape), start, 4)
    np.testing.assert_allclose(level, 1.0 - 5 / 8, rtol=1e-6)
    np.testing.assert_allclose(euler(lambda x, _: 0.5 * x, start, 4), (1 - 0.125) ** 4, rtol=1e-6)


def test_guidance_goes_from_the_unknown_past_the_known():
    known, unknown = np.full((2, 1, 1, 1), 3.0), np.full((2, 1, 1, 1), 1.0)
    both = jnp.concatenate([jnp.asarray(known), jnp.asarray(unknown)])
    for guidance, expected in ((0.0, 1.0), (1.0, 3.0), (1.5, 4.0), (3.0, 7.0)):
        np.testing.assert_allclose(guided(both, guidance), np.full((2, 1, 1, 1), expected))


def test_twice_repeats_whole_batches_and_leaves_nothing_alone():
    doubled, none = twice((jnp.array([[1], [2]]), None))
    np.testing.assert_array_equal(doubled, [[1], [2], [1], [2]])
    assert none is None


def test_a_noise_level_is_an_mlp_of_its_sinusoids():
    level, sigma = NoiseLevel(5), np.array([[0.0, 0.3], [0.71, 1.0]])
    params = _disturbed(level.init(jax.random.key(0), jnp.asarray(sigma, jnp.float32)))
    weights = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])
    angle = 1000.0 * sigma[..., None] / 10_000.0 ** (np.arange(128) / 128)
    h = np.concatenate([np.cos(angle), np.sin(angle)], -1) @ weights["in"]["kernel"] + weights["in"]["bias"]
    expected = (h / (1.0 + np.exp(-h))) @ weights["out"]["kernel"] + weights["out"]["bias"]
    made = level.apply(params, jnp.asarray(sigma, jnp.float32))
    np.testing.assert_allclose(made, expected, atol=2e-3)  # float32 angles up to 1000


def test_a_clean_frame_has_a_tag_of_its_own():
    level, sigma = NoiseLevel(5), jnp.array([0.0, 0.3, 0.7])
    clean = jnp.array([True, False, True])
    params = level.init(jax.random.key(0), sigma, clean)
    made = level.apply(params, sigma, clean)
    tag = params["params"]["clean"]
    np.testing.assert_array_equal(made[::2], [tag, tag])
    noisy = level.apply(params, sigma, jnp.zeros(3, bool))
    np.testing.assert_allclose(made[1], noisy[1], rtol=1e-6)
    assert np.abs(noisy[0] - tag).max() > 1e-2


def test_an_action_is_unknown_where_it_is_hidden_missing_or_outside():
    module = LeadingAction(ActionSpace("discrete", 3), 4)
    actions, known = jnp.array([0, 2, NO_ACTION, 3, 1]), jnp.array([True, True, True, True, False])
    params = module.init(jax.random.key(0), actions, known)
    made = np.asarray(module.apply(params, actions, known))
    table, unknown = params["params"]["embed"]["embedding"], params["params"]["unknown"]
    np.testing.assert_array_equal(made, [table[0], table[2], unknown, unknown, unknown])
    np.testing.assert_array_equal(module.apply(params, None, known), np.stack([unknown] * 5))


def test_continuous_actions_of_zero_are_known():
    module = LeadingAction(ActionSpace("continuous", 2), 4)
    actions, known = jnp.array([[0.0, 0.0], [1.0, -2.0], [1.0, -2.0]]), jnp.array([True, True, False])
    params = _disturbed(module.init(jax.random.key(0), actions, known))
    own = params["params"]
    made = module.apply(params, actions, known)
    np.testing.assert_allclose(made[0], own["embed"]["bias"], atol=1e-6)
    kernel = own["embed"]["kernel"]
    np.testing.assert_allclose(made[1], kernel[0] - 2 * kernel[1] + own["embed"]["bias"], atol=1e-5)
    np.testing.assert_array_equal(made[2], own["unknown"])


def test_a_world_without_actions_costs_nothing():
    module = LeadingAction(ActionSpace(), 4)
    assert module.init(jax.random.key(0), None, jnp.zeros((2, 3), bool)) == {}
    assert module.apply({}, None, jnp.zeros((2, 3), bool)) == 0.0


def test_modulation_shifts_and_scales_a_layer_norm_frame_by_frame():
    module = Modulated()
    x = 2.0 + 3.0 * jax.random.normal(jax.random.key(0), (2, 3, 4, 4, 6))
    condition = jax.random.normal(jax.random.key(1), (2, 3, 5))
    params = module.init(jax.random.key(2), x, condition)
    wide = np.asarray(x, np.float64)
    normed = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(module.apply(params, x, condition), normed, atol=1e-4)
    params = _disturbed(params)
    weights = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"]["shift_scale"])
    h = np.asarray(condition, np.float64)
    both = (h / (1.0 + np.exp(-h))) @ weights["kernel"] + weights["bias"]
    shift, scale = both[..., None, None, :6], both[..., None, None, 6:]
    np.testing.assert_allclose(module.apply(params, x, condition), normed * (1 + scale) + shift, atol=1e-4)


def test_only_worlds_with_actions_are_guided():
    discrete = ActionSpace("discrete", 2)
    assert check_flow(discrete, 1, 1.5, 0.1)
    assert not check_flow(discrete, 1, 1.0, 0.0)
    assert not check_flow(ActionSpace(), 1, 1.5, 0.0)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((0, 1.0, 0.1), "euler_steps=0 never leaves the noise; use 1 or more"),
        ((5, 1.0, 1.0), "action_dropout=1.0 must be at least 0 and below 1"),
        ((5, 1.5, 0.0), "guidance=1.5 compares with.*use guidance=1 or action_dropout=0.1"),
    ],
)
def test_mistakes_are_sentences(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        check_flow(ActionSpace("discrete", 2), *options)
