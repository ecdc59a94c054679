"""Predictors over any core: shapes, streaming, conditioning and stepping are one computation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.video.clip import NO_ACTION, ActionSpace, Clip
from resetta.video.encoder import depth_to_space, space_to_depth
from resetta.video.models import make_model, model_names

SIZE, T, B = 16, 7, 2
SMALL = {"size": "tiny", "features": 8, "num_layers": 1, "widths": [8, 8], "patch": 2}
CASES = [
    {"name": "conv_s5"},
    {"name": "conv_lstm"},
    {"name": "transformer", "core_options": {"num_heads": 2, "window": 64}},
    {"name": "conv_s5", "core": "gru", "tokens": "pooled"},
    {"name": "conv_s5", "core": "s5", "tokens": "patch"},
]


def _model(case, actions=None):
    space = actions or ActionSpace("discrete", 3)
    return make_model({**SMALL, **case}, size=SIZE, channels=1, actions=space)


def _clip(length=T, seed=0, resets=()):
    rng = np.random.default_rng(seed)
    reset = np.zeros((length, B), bool)
    reset[0] = True
    for t, b in resets:
        reset[t, b] = True
    frames = rng.integers(0, 256, (length, B, SIZE, SIZE, 1)).astype(np.uint8)
    return Clip(frames, rng.integers(0, 3, (length, B)).astype(np.int32), reset)


def _part(clip, start, stop):
    return jax.tree.map(lambda leaf: leaf[start:stop], clip)


@pytest.fixture(scope="module", params=range(len(CASES)), ids=lambda i: "-".join(map(str, CASES[i].values())))
def built(request):
    model = _model(CASES[request.param])
    return model, {"params": jax.jit(model.init)(jax.random.key(0)), "frozen": ()}


def test_a_context_and_steps_equal_teacher_forcing(built):
    """Stepping on true frames predicts what one parallel pass over the whole clip predicts."""
    model, variables = built
    clip = _clip()
    frames = clip.frames / 127.5 - 1.0
    _, whole = model.apply(
        variables,
        model.initial_memory(B).carry,
        jnp.asarray(frames[:-1], jnp.float32),
        clip.actions[:-1],
        clip.reset[:-1],
    )
    memory = jax.jit(model.condition)(variables, _part(clip, 0, 4))
    step = jax.jit(model.step)
    for t in range(3, T - 1):
        memory, predicted = step(variables, memory, clip.actions[t], jax.random.key(0))
        np.testing.assert_allclose(predicted, whole[t], atol=2e-5)
        memory = memory._replace(frame=jnp.asarray(frames[t + 1], jnp.float32))


def test_the_last_action_of_a_context_is_not_used(built):
    model, variables = built
    clip = _clip(4)
    other = clip._replace(actions=clip.actions.copy())
    other.actions[-1] = NO_ACTION
    condition = jax.jit(model.condition)
    jax.tree.map(np.testing.assert_array_equal, condition(variables, clip), condition(variables, other))


def test_actions_matter_to_what_follows(built):
    model, variables = built
    memory = model.condition(variables, _clip(4))
    _, left = model.step(variables, memory, np.array([0, 0], np.int32), jax.random.key(0))
    _, right = model.step(variables, memory, np.array([0, 1], np.int32), jax.random.key(0))
    np.testing.assert_array_equal(left[0], right[0])
    assert np.abs(left[1] - right[1]).max() > 1e-6


def test_chunks_of_a_stream_have_the_loss_of_the_whole(built):
    """Two chunks that share a frame, the memory carried on, weigh together what the whole clip weighs."""
    model, variables = built
    clip = _clip(resets=[(3, 1)])
    loss, key = jax.jit(model.loss), jax.random.key(0)
    whole, end = loss(variables, model.initial_memory(B), clip, key)
    first, memory = loss(variables, model.initial_memory(B), _part(clip, 0, 4), key)
    second, memory = loss(variables, memory, _part(clip, 3, T), key)
    counts = [(~clip.reset[1:4]).sum(), (~clip.reset[4:]).sum()]
    np.testing.assert_allclose(whole, np.average([first, second], weights=counts), rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), memory, end)


def test_packed_clips_have_the_loss_of_separate_clips(built):
    """A stream of two clips with a reset between equals each alone: the frame between them costs nothing."""
    model, variables = built
    one, two = _clip(4, seed=1), _clip(5, seed=2)
    packed = jax.tree.map(lambda a, b: np.concatenate([a, b]), one, two)
    loss, key = jax.jit(model.loss), jax.random.key(0)
    separate = [float(loss(variables, model.initial_memory(B), clip, key)[0]) for clip in (one, two)]
    together, _ = loss(variables, model.initial_memory(B), packed, key)
    np.testing.assert_allclose(together, np.average(separate, weights=[3, 4]), rtol=1e-5)


def test_the_loss_is_what_its_docstring_says():
    model = _model({"name": "conv_s5", "mse_weight": 0.25}, ActionSpace())
    clip = _clip()._replace(actions=None)
    variables = {"params": model.init(jax.random.key(0)), "frozen": ()}
    frames = jnp.asarray(clip.frames, jnp.float32) / 127.5 - 1.0
    _, predicted = model.apply(variables, model.initial_memory(B).carry, frames[:-1], None, clip.reset[:-1])
    error = np.asarray(predicted - frames[1:], np.float64)
    expected = 0.25 * (error**2).mean() + 0.75 * np.abs(error).mean()
    np.testing.assert_allclose(
        model.loss(variables, model.initial_memory(B), clip, None)[0], expected, rtol=1e-5
    )


def test_bfloat16_keeps_parameters_and_memory_in_float32():
    options = {**SMALL, "name": "conv_s5"}
    model = make_model(options, size=SIZE, channels=1, actions=ActionSpace(), dtype=jnp.bfloat16)
    params = model.init(jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    clip = _clip()._replace(actions=None)
    loss, memory = model.loss({"params": params, "frozen": ()}, model.initial_memory(B), clip, None)
    assert loss.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(memory.carry)} == {jnp.dtype(jnp.float32)}
    assert memory.frame.dtype == model.initial_memory(B).frame.dtype == jnp.bfloat16


def test_patches_are_put_back_where_they_were():
    x = jax.random.normal(jax.random.key(0), (2, 8, 12, 3))
    stacked = space_to_depth(x, 4)
    assert stacked.shape == (2, 2, 3, 48)
    np.testing.assert_array_equal(stacked[0, 1, 2].reshape(4, 4, 3), x[0, 4:8, 8:12])
    np.testing.assert_array_equal(depth_to_space(stacked, 4), x)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"name": "conv_s6"}, "did you mean 'conv_s5'"),
        ({"name": "conv_s5", "size": "huge"}, "model.size='huge' must be one of tiny, small, paper"),
        ({"name": "conv_s5", "width": [8]}, "no option 'width'.*did you mean 'widths'"),
        ({"name": "conv_s5", "core": "gru", "tokens": "grid"}, "use tokens=pooled"),
        ({"name": "conv_s5", "tokens": "patch"}, "use tokens=grid"),
        ({"name": "conv_s5", "patch": 3}, "size=16 is not divisible by 6"),
        ({"name": "conv_s5", "num_layer": 2}, "no option 'num_layer' .did you mean 'num_layers'"),
        ({"name": "conv_s5", "num_layers": 0}, "model.num_layers=0 must be more than 0"),
        ({"name": "conv_s5", "patch": "two"}, "model.patch='two' must be a whole number"),
        ({"name": "conv_s5", "widths": 8}, "model.widths=8 must be a list of whole numbers"),
        ({"name": "conv_s5", "mse_weight": 2}, "mse_weight=2.0 must be from 0 to 1"),
        ({"name": "conv_s5", "own_frames": 1.5}, "own_frames=1.5 must be from 0 to 1"),
        ({"name": "conv_s5", "own_passes": 0}, "model.own_passes=0 must be more than 0"),
        ({"name": "conv_s5", "core_options": 3}, "model.core_options=3 must be a mapping"),
        ({"name": "conv_s5", "window": 4}, "core 'conv_s5' has no option 'window'"),
    ],
)
def test_mistakes_are_sentences(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_model({**SMALL, **options}, size=SIZE, channels=1, actions=ActionSpace())


def test_every_name_is_listed():
    assert set(model_names()) == {"conv_s5", "conv_lstm", "transformer", "far", "far_long", "recurrent_flow"}


def test_own_frames_are_those_of_a_rollout():
    """After as many passes as frames, what training is fed is what generating from the true frames gives."""
    model = _model({"name": "conv_s5", "own_frames": 1.0, "own_passes": T})
    variables = {"params": jax.jit(model.init)(jax.random.key(0)), "frozen": ()}
    clip = _clip()
    true = jnp.asarray(clip.frames / 127.5 - 1.0, jnp.float32)
    carry = model.initial_memory(B).carry
    reset = jnp.asarray(clip.reset)

    def inputs(variables, true):
        def predict(frames):
            return model.apply(variables, carry, frames, clip.actions, reset)

        return model._own_inputs(predict, true, reset, jax.random.key(3))

    mixed = jax.jit(inputs)(variables, true)
    kept = np.array(jnp.all(mixed == true, (2, 3, 4)).sum(0))
    assert kept.min() >= 1
    assert kept.min() < T
    step = jax.jit(model.step)
    for row, count in enumerate(kept):
        np.testing.assert_array_equal(mixed[:count, row], true[:count, row])
        memory = model.condition(variables, _part(clip, 0, int(count)))
        for t in range(count, T):
            memory, predicted = step(variables, memory, clip.actions[t - 1], jax.random.key(0))
            np.testing.assert_allclose(mixed[t, row], predicted[row], atol=2e-5)


def test_a_clip_begins_with_a_true_frame_and_no_gradient_reaches_own_ones():
    model = _model({"name": "conv_s5", "own_frames": 1.0})
    variables = {"params": jax.jit(model.init)(jax.random.key(0)), "frozen": ()}
    clip = _clip(resets=[(3, 0), (5, 1)])
    true = jnp.asarray(clip.frames / 127.5 - 1.0, jnp.float32)
    carry, reset = model.initial_memory(B).carry, jnp.asarray(clip.reset)

    def inputs(variables, key):
        def predict(frames):
            return model.apply(variables, carry, frames, clip.actions, reset)

        return model._own_inputs(predict, true, reset, key)

    mixed = jax.jit(jax.vmap(inputs, (None, 0)))(variables, jax.random.split(jax.random.key(0), 8))
    for one in mixed:
        np.testing.assert_array_equal(one[clip.reset], true[clip.reset])
    assert jnp.any(mixed != true)
    gradient = jax.grad(lambda variables: inputs(variables, jax.random.key(0)).sum())(variables)
    assert all(not leaf.any() for leaf in jax.tree.leaves(gradient))
