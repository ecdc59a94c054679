"""The autoencoder: its loss, its statistics, and that it learns to draw."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from resetta.video.autoencoder import Autoencoder, AutoencoderNet
from resetta.video.clip import Clip, to_float

SIZE = 16
SMALL = Autoencoder(SIZE, 1, widths=(8, 8), patch=2, latent_channels=3)


def _squares(length=4, batch=4, seed=0):
    """Clips of one bright square each, wherever, on black."""
    rng = np.random.default_rng(seed)
    frames = np.zeros((length, batch, SIZE, SIZE, 1), np.uint8)
    for t in range(length):
        for b in range(batch):
            y, x = rng.integers(0, SIZE - 6, 2)
            frames[t, b, y : y + 6, x : x + 6] = 255
    return Clip(frames, None, np.zeros((length, batch), bool))


@pytest.fixture(scope="module")
def params():
    return jax.jit(SMALL.init)(jax.random.key(0))


def test_latents_of_real_frames_have_unit_variance_per_channel(params):
    frames = to_float(jnp.asarray(_squares(5, 14).frames))  # 70: more than one block, and a rest
    frozen = jax.jit(SMALL.freeze)(params, frames)
    latents = np.asarray(SMALL.encode(frozen, frames), np.float64)
    assert latents.shape == (5, 14, SMALL.grid, SMALL.grid, 3)
    np.testing.assert_allclose(latents.mean((0, 1, 2, 3)), 0.0, atol=1e-4)
    np.testing.assert_allclose(latents.var((0, 1, 2, 3)), 1.0, rtol=1e-3)
    raw = AutoencoderNet(SMALL).apply(params, frames.reshape(-1, SIZE, SIZE, 1), method="encode")
    raw = np.asarray(raw, np.float64)
    np.testing.assert_allclose(frozen["mean"], raw.mean((0, 1, 2)), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(frozen["std"], raw.std((0, 1, 2)), rtol=1e-3)


def test_a_channel_that_never_varies_stays_finite(params):
    dead = jax.tree.map(lambda leaf: leaf, params)
    kernel = dead["params"]["latents"]["kernel"]
    dead["params"]["latents"]["kernel"] = kernel.at[..., 1].set(0.0)
    frames = to_float(jnp.asarray(_squares().frames))
    frozen = SMALL.freeze(dead, frames)
    assert frozen["std"][1] == 1.0
    latents = SMALL.encode(frozen, frames)
    np.testing.assert_array_equal(latents[..., 1], 0.0)
    assert np.isfinite(latents).all()


def test_decoding_latents_is_the_network_on_their_frames(params):
    """What `encode` takes off, `decode` puts back, whatever leading axes there are."""
    frames = to_float(jnp.asarray(_squares().frames))
    frozen = {"params": params, "mean": jnp.array([1.0, -2.0, 3.0]), "std": jnp.array([0.5, 2.0, 4.0])}
    drawn = SMALL.decode(frozen, SMALL.encode(frozen, frames))
    assert drawn.shape == frames.shape
    whole = AutoencoderNet(SMALL).apply(params, frames.reshape(-1, SIZE, SIZE, 1))
    np.testing.assert_allclose(drawn.reshape(whole.shape), whole, atol=1e-5)
    alone = SMALL.decode(frozen, SMALL.encode(frozen, frames[2, 3]))
    np.testing.assert_allclose(alone, drawn[2, 3], atol=1e-5)


def test_the_loss_is_what_its_docstring_says(params):
    clip = _squares()
    loss, memory = SMALL.loss({"params": params, "frozen": ()}, (), clip, jax.random.key(0))
    frames = clip.frames.reshape(-1, SIZE, SIZE, 1) / 127.5 - 1.0
    drawn = AutoencoderNet(SMALL).apply(params, jnp.asarray(frames, jnp.float32))
    errors = np.asarray(drawn, np.float64) - frames
    np.testing.assert_allclose(loss, np.abs(errors).mean() + (errors**2).mean(), rtol=1e-5)
    assert memory == SMALL.initial_memory(4) == ()


def test_a_few_steps_draw_better_than_the_mean_image(params):
    optimiser = optax.adam(5e-3)
    clips = [_squares(4, 8, seed) for seed in range(4)]

    @jax.jit
    def update(params, state, clip):
        def loss(params):
            return SMALL.loss({"params": params, "frozen": ()}, (), clip, jax.random.key(0))[0]

        updates, state = optimiser.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    state = optimiser.init(params)
    for step in range(120):
        params, state = update(params, state, clips[step % 4])
    seen = np.concatenate([clip.frames for clip in clips]) / 127.5 - 1.0
    unseen = to_float(jnp.asarray(_squares(4, 8, seed=9).frames))
    frozen = SMALL.freeze(params, unseen)
    drawn = SMALL.decode(frozen, SMALL.encode(frozen, unseen))
    error = ((drawn - unseen) ** 2).mean()
    of_mean_image = ((seen.mean((0, 1)) - unseen) ** 2).mean()
    assert error < 0.5 * of_mean_image


def test_bfloat16_keeps_parameters_and_latents_in_float32():
    half = Autoencoder(SIZE, 1, widths=(8,), patch=4, latent_channels=2, dtype=jnp.bfloat16)
    params = half.init(jax.random.key(0))
    frames = to_float(jnp.asarray(_squares().frames))
    frozen = half.freeze(params, frames)
    latents = half.encode(frozen, frames)
    loss, _ = half.loss({"params": params, "frozen": ()}, (), _squares(), jax.random.key(0))
    kept = [*jax.tree.leaves(frozen), latents, half.decode(frozen, latents), loss]
    assert {leaf.dtype for leaf in kept} == {jnp.dtype(jnp.float32)}


def test_the_default_has_64_latents_a_frame_of_64_pixels():
    assert Autoencoder(64, 3).grid ** 2 == 64


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"size": 20, "widths": (8, 8), "patch": 4}, "size=20 is not divisible by 8.*use 16 or 24"),
        ({"size": 4, "widths": (8, 8), "patch": 4}, "use 8 or 16"),
        ({"size": 16, "latent_channels": 0}, "latent_channels=0 keeps nothing"),
    ],
)
def test_mistakes_are_sentences(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        Autoencoder(channels=1, **options)


def test_frames_of_another_size_are_refused():
    SMALL.check(SIZE, 1)
    with pytest.raises(ValueError, match="for frames of 16 x 16 x 1, and the data's are 32 x 32 x 1"):
        SMALL.check(32, 1)
