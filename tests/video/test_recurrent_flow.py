"""The recurrent flow: packed clips cost what they cost alone, and sampling remembers clean frames."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.video import recurrent_flow
from resetta.video.clip import ActionSpace, Clip, to_float
from resetta.video.flow import Noised
from resetta.video.models import make_model

SIZE, B = 16, 2
DISCRETE = ActionSpace("discrete", 3)
CORES = {
    "grid": {"core": "conv_s5", "core_options": {"state_size": 8}},
    "pooled": {"core": "gru"},
    "patch": {"core": "s5", "core_options": {"state_size": 8}},
}


def _model(tokens, /, **options):
    small = {"widths": [8], "patch": 4, "latent_channels": 3, "features": 8, "num_layers": 1}
    denoiser = {"denoiser_features": 8, "denoiser_layers": 1, "euler_steps": 2, "action_dropout": 0.0}
    given = {"name": "recurrent_flow", **CORES[tokens], **small, **denoiser, "tokens": tokens, **options}
    return make_model(given, size=SIZE, channels=1, actions=DISCRETE)


def _clip(length, seed):
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (length, B, SIZE, SIZE, 1)).astype(np.uint8)
    reset = np.zeros((length, B), bool)
    reset[0] = True
    return Clip(frames, rng.integers(0, 3, (length, B)).astype(np.int32), reset)


def _variables(model):
    """Parameters of which none is zero: at initialisation the velocity is 0."""
    leaves, tree = jax.tree.flatten(jax.jit(model.init)(jax.random.key(0)))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noisy = [a + 0.2 * jax.random.normal(key, a.shape) for a, key in zip(leaves, keys, strict=True)]
    autoencoder = jax.jit(model.autoencoder.init)(jax.random.key(2))
    frozen = model.autoencoder.freeze(autoencoder, to_float(jnp.asarray(_clip(4, 9).frames)))
    return {"params": jax.tree.unflatten(tree, noisy), "frozen": frozen}


@pytest.fixture(scope="module", params=list(CORES))
def made(request):
    model = _model(request.param)
    return model, _variables(model)


def test_packed_clips_cost_what_they_cost_alone(made, monkeypatch):
    model, variables = made

    # the same noise level and target whatever the length, so that losses can be compared
    def half(latents, key):
        return Noised(0.5 * latents, jnp.full(latents.shape[:-3], 0.5), latents)

    monkeypatch.setattr(recurrent_flow, "noised", half)
    first, second = _clip(5, 0), _clip(4, 1)
    packed = jax.tree.map(lambda *leaves: np.concatenate(leaves), first, second)
    loss = jax.jit(model.loss)
    empty, key = model.initial_memory(B), jax.random.key(3)
    alone = [loss(variables, empty, clip, key) for clip in (first, second)]
    together, memory = loss(variables, empty, packed, key)
    # 4 and 3 frames follow another; the one at the boundary follows none
    np.testing.assert_allclose(together, (4 * alone[0][0] + 3 * alone[1][0]) / 7, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), memory, alone[1][1])


def test_a_stream_in_pieces_and_a_context_at_once_end_in_the_same_memory(made):
    model, variables = made
    clip = _clip(6, 2)
    whole = jax.jit(model.condition)(variables, clip)
    carry = model.initial_memory(B).carry
    latents = model.autoencoder.encode(variables["frozen"], to_float(jnp.asarray(clip.frames)))
    known = jnp.ones((1, B), bool)
    for t in range(5):
        carry, _ = model.remember(
            variables, carry, latents[t : t + 1], clip.actions[t : t + 1], known, clip.reset[t : t + 1]
        )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), whole.carry, carry)
    np.testing.assert_allclose(whole.latents, latents[-1], atol=1e-5)


def test_a_sampled_frame_is_remembered_clean_whatever_noise_it_came_from(made):
    model, variables = made
    memory = jax.jit(model.condition)(variables, _clip(3, 4))
    step, action = jax.jit(model.step), jnp.array([0, 2])
    (one, frame), (two, other) = (step(variables, memory, action, jax.random.key(k)) for k in (0, 1))
    assert frame.shape == (B, SIZE, SIZE, 1)
    assert not np.allclose(frame, other)  # another noise, another frame
    # the core has consumed the frame before, with the action, and nothing of the noise
    jax.tree.map(np.testing.assert_array_equal, one.carry, two.carry)
    no = jnp.zeros((1, B), bool)
    carry, _ = model.remember(variables, memory.carry, memory.latents[None], action[None], ~no, no)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one.carry, carry)
    decoded = model.autoencoder.decode(variables["frozen"], one.latents)
    np.testing.assert_allclose(frame, decoded, atol=1e-5)
    shapes = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), m) for m in (memory, one)]
    assert shapes[0] == shapes[1]


def test_guidance_changes_the_frame_and_not_what_is_remembered():
    plain, guided = _model("patch"), _model("patch", guidance=3.0, action_dropout=0.1)
    variables = _variables(plain)
    memory = jax.jit(plain.condition)(variables, _clip(3, 5))
    action, key = jnp.array([0, 2]), jax.random.key(0)
    (one, frame), (two, other) = (jax.jit(m.step)(variables, memory, action, key) for m in (plain, guided))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one.carry, two.carry)
    assert not np.allclose(frame, other, atol=1e-3)


def test_mistakes_are_sentences():
    with pytest.raises(ValueError, match="does not go with tokens=grid; use tokens=pooled"):
        _model("pooled", tokens="grid")
    with pytest.raises(ValueError, match="samples_per_frame=0 trains nothing"):
        _model("grid", samples_per_frame=0)
