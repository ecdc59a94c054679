"""LongFAR against its equations in float64, its cache against no cache, and how it is trained."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.video.autoencoder import Autoencoder
from resetta.video.clip import ActionSpace, Clip
from resetta.video.flow import noised
from resetta.video.long_context import LongFAR

SIZE, GRID, PATCH, CHANNELS, WINDOW, HEADS, FEATURES = 16, 4, 2, 3, 4, 2, 16
AUTOENCODER = Autoencoder(SIZE, 1, widths=(4,), patch=4, latent_channels=CHANNELS)
DISCRETE, CONTINUOUS, NONE = ActionSpace("discrete", 3), ActionSpace("continuous", 2), ActionSpace()


def _model(actions=DISCRETE, cls=LongFAR, **options):
    sizes = {"features": FEATURES, "num_layers": 2, "num_heads": HEADS}
    context = {"window": WINDOW, "coarse_patch": PATCH, "capacity": 40, "euler_steps": 3}
    return cls(AUTOENCODER, SIZE, 1, actions, **(sizes | context | options))


def _drawn(init, seed):
    """Parameters of `init`'s shapes, none of them special: no gate is closed and no frame like another."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name = path[-1].key
        scale = leaf.shape[-2] ** -0.5 if name == "kernel" and len(leaf.shape) < 4 else 0.2
        return ((name == "scale") + scale * rng.normal(size=leaf.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(init, jax.random.key(0)))


@functools.lru_cache
def _frozen():
    of = np.full(CHANNELS, 0.1, np.float32)
    return {"params": _drawn(AUTOENCODER.init, 1), "mean": of, "std": of + 0.5}


@functools.lru_cache
def _variables(actions=DISCRETE):
    return {"params": _drawn(_model(actions).init, 0), "frozen": _frozen()}


@functools.lru_cache
def _jitted(model, name) -> Any:
    """A method, compiled once for all tests."""
    return jax.jit(getattr(model, name), static_argnums=7 if name == "velocity" else None)


def _clip(length, batch=2, actions=DISCRETE, seed=0):
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (length, batch, SIZE, SIZE, 1), dtype=np.uint8)
    made = {
        "discrete": rng.integers(0, 3, (length, batch), dtype=np.int32),
        "continuous": rng.normal(size=(length, batch, 2)).astype(np.float32),
        "none": None,
    }
    reset = np.zeros((length, batch), bool)
    reset[0] = True
    return Clip(frames, made[actions.kind], reset)


def _inputs(length, batch=2, seed=0):
    """All that `velocity` asks for, of discrete actions."""
    rng = np.random.default_rng(seed)
    latents = rng.normal(size=(length, batch, GRID, GRID, CHANNELS)).astype(np.float32)
    sigma = rng.uniform(size=(length, batch)).astype(np.float32)
    clean, known = rng.random((2, length, batch)) < [[[0.3]], [[0.7]]]
    leading = rng.integers(-1, 3, (length, batch), dtype=np.int32)
    reset = np.zeros((length, batch), bool)
    return latents, sigma, clean, leading, known, reset


# The equations, token by token, in float64.


def _silu(x):
    return x / (1 + np.exp(-x))


def _gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def _norm(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)


def _dense(x, p):
    return x @ p["kernel"] + p.get("bias", 0.0)


def _turn(x, at, theta=10000.0):
    half = len(x) // 2
    angles = at * theta ** (-np.arange(half) / half)
    a, b = x[:half], x[half:]
    return np.concatenate([a * np.cos(angles) - b * np.sin(angles), a * np.sin(angles) + b * np.cos(angles)])


def _placed(vector, at):
    pairs = len(vector) // 2
    time = max(pairs // 4, 1)
    rows = (pairs - time) // 2
    parts = np.split(vector, [2 * time, 2 * (time + rows)])
    return np.concatenate([_turn(part, place) for part, place in zip(parts, at, strict=True)])


def _written_out(params, latents, sigma, clean, leading, known, reset, coarse, capacity, slopes):
    """One row's velocity `[F, h, w, D]`; the tokens are a list of (frame, row, column, kind)."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])
    angle = 1000.0 * sigma[:, None] * 10000.0 ** (-np.arange(128) / 128)
    level = _dense(np.concatenate([np.cos(angle), np.sin(angle)], -1), p["level"]["in"])
    level = np.where(clean[:, None], p["level"]["clean"], _dense(_silu(level), p["level"]["out"]))
    level[:coarse] = p["coarse"]
    told = known & (leading >= 0)
    embedded = p["action"]["embed"]["embedding"][np.maximum(leading, 0)]
    condition = level + np.where(told[:, None], embedded, p["action"]["unknown"])

    tokens, x = [], []
    for t, image in enumerate(latents.astype(np.float64)):
        side = PATCH if t < coarse else 1
        kind = "coarse" if t < coarse else "fine"
        for r in range(0, GRID, side):
            for c in range(0, GRID, side):
                patch = image[r : r + side, c : c + side].reshape(-1)
                tokens.append((t, r + (side - 1) / 2, c + (side - 1) / 2, kind))
                x.append(_dense(patch, p[f"{kind}_tokens"]))
    segment = np.cumsum(reset)

    def sees(i, j):
        (t, *_, kind), (s, *_, other) = tokens[i], tokens[j]
        if segment[s] != segment[t] or s > t:
            return False
        newest = t if kind == "coarse" else coarse - 1  # the last coarse frame that counts
        return other == "fine" or s > newest - capacity

    layers = [jax.tree.map(lambda leaf: leaf[0], p["layers"]), p["last_layer"]]
    for n, layer in enumerate(layers):

        def modulated(name, i, layer=layer):
            made = _dense(_silu(condition[tokens[i][0]]), layer[name]["condition"])
            return np.split(made, 3)

        q, k, v = {}, {}, {}
        for i, (t, row, column, kind) in enumerate(tokens):
            shift, scale, _ = modulated("attention", i)
            h = _norm(x[i]) * (1 + scale) + shift
            if n and kind == "coarse":
                parts = [None, *np.split(_dense(h, layer["coarse_kv"]), 2)]
            else:
                parts = np.split(_dense(h, layer[f"{kind}_qkv"]), 3)
            for name, made, part in zip("qkv", (q, k, v), parts, strict=True):
                if part is None:
                    continue
                heads = part.reshape(HEADS, -1)
                if name != "v":
                    heads = heads / np.sqrt((heads**2).mean(-1, keepdims=True) + 1e-6)
                    heads = heads * layer[f"{kind}_norm_{name}"]["scale"]
                    heads = np.stack([_placed(head, (t, row, column)) for head in heads])
                made[i] = heads
        for i, query in q.items():
            seen = [j for j in range(len(tokens)) if sees(i, j)]
            keys, values = np.stack([k[j] for j in seen]), np.stack([v[j] for j in seen])
            ages = tokens[i][0] - np.array([tokens[j][0] for j in seen])
            scores = np.einsum("hd,shd->hs", query, keys) / np.sqrt(query.shape[-1])
            scores = scores - np.asarray(slopes)[:, None] * ages
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            y = np.einsum("hs,shd->hd", weights / weights.sum(-1, keepdims=True), values).reshape(-1)
            x[i] = x[i] + modulated("attention", i)[2] * _dense(y, layer[f"{tokens[i][3]}_out"])
            shift, scale, gate = modulated("mlp", i)
            h = _dense(_gelu(_dense(_norm(x[i]) * (1 + scale) + shift, layer["up"])), layer["down"])
            x[i] = x[i] + gate * h
    out = []
    for i, (t, *_, kind) in enumerate(tokens):
        if kind == "fine":
            shift, scale = np.split(_dense(_silu(condition[t]), p["head"]["shift_scale"]), 2)
            out.append(_dense(_norm(x[i]) * (1 + scale) + shift, p["velocity"]))
    return np.reshape(out, (-1, GRID, GRID, CHANNELS))


@pytest.mark.parametrize(
    ("capacity", "options", "slopes"),
    [(40, {}, (0, 0)), (3, {"decay": 0.5, "slopes": "geometric"}, (0.5 / 16, 0.5 / 256))],
)
def test_the_equations(capacity, options, slopes):
    inputs = _inputs(9)
    inputs[-1][2, 0] = inputs[-1][7, 1] = True  # among the coarse frames, and in the window
    model, variables = _model(capacity=capacity, **options), _variables()
    v = _jitted(model, "velocity")(variables, *inputs, 5)
    assert v.shape == (4, 2, GRID, GRID, CHANNELS)
    for b in range(2):
        row = [np.asarray(leaf)[:, b] for leaf in inputs]
        expected = _written_out(variables["params"], *row, 5, capacity, slopes)
        np.testing.assert_allclose(v[:, b], expected, atol=2e-4 * np.abs(expected).max())


# The law: what is drawn with the cache is what would be drawn without it.


def _close(a, b):
    np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max(), rtol=0)


@pytest.mark.parametrize(
    ("actions", "capacity", "guidance", "context", "decay"),
    [(DISCRETE, 40, 1.0, 2, 0.1), (CONTINUOUS, 3, 1.5, 6, None), (NONE, 2, 1.0, 1, None)],
)
def test_a_cached_step_is_an_uncached_one(actions, capacity, guidance, context, decay):
    """Over frames far more than the window has, and then more than are remembered."""
    model = _model(actions, capacity=capacity, guidance=guidance, decay=decay)
    variables, last = _variables(actions), 14
    clip = _clip(last, actions=actions)
    given = jax.tree.map(lambda leaf: leaf[:context], clip)
    latents = np.asarray(AUTOENCODER.encode(_frozen(), given.frames / 127.5 - 1.0))
    memory = _jitted(model, "condition")(variables, given)
    step, recall = _jitted(model, "step"), _jitted(model, "recall")
    cached, uncached = _jitted(model, "cached_velocity"), _jitted(model, "velocity")
    nothing = actions.nothing(1, 2)
    leading = None if nothing is None else np.concatenate([nothing, clip.actions[:-1]])
    known = np.zeros((last, 2), bool)
    known[1:] = actions.kind != "none"

    def velocities(t, levels, x, sigma, action, knows):
        """Of frame t, without the cache; those with it are the same."""
        noisy = np.arange(t + 1)[:, None] == t
        hides = np.where(noisy, knows, known[: t + 1])
        before = None if leading is None else leading[: t + 1]
        frames = np.concatenate([latents, x[None]]), noisy * sigma, np.broadcast_to(~noisy, hides.shape)
        v = uncached(variables, *frames, before, hides, clip.reset[: t + 1], max(t + 1 - WINDOW, 0))[-1]
        _close(cached(variables, levels, x, sigma, action, hides[t]), v)
        return v

    for t in range(context, last):
        action = None if leading is None else leading[t]
        x = np.asarray(jax.random.normal(jax.random.key(t), latents.shape[1:]))
        checked = t in (context, last - 1)
        levels = recall(variables, memory) if checked else None
        for i in range(model.euler_steps if checked else 0):
            sigma = np.full(2, 1.0 - i / model.euler_steps, np.float32)
            v = velocities(t, levels, x, sigma, action, known[t])
            if guidance != 1.0:
                unknown = velocities(t, levels, x, sigma, action, False)
                assert np.abs(v - unknown).max() > 1e-3
                v = unknown + guidance * (v - unknown)
            x = np.asarray(x - v / model.euler_steps)
        memory, _ = step(variables, memory, action, jax.random.key(t))
        drawn = np.asarray(memory.latents[:, -1])
        if checked:
            _close(drawn, x)
        latents = np.concatenate([latents, drawn[None]])


def test_a_context_with_another_clip_inside_is_the_part_after_it():
    model, variables = _model(capacity=5), _variables()
    clip = _clip(11)
    clip.reset[4, 0] = clip.reset[9, 1] = True
    condition, step = _jitted(model, "condition"), _jitted(model, "step")
    memory = condition(variables, clip)
    assert memory.valid.sum(1).tolist() == [3, 2]
    for k in range(3):
        memory, frame = step(variables, memory, clip.actions[k], jax.random.key(k))
        if k == 0:
            first = frame
    assert first.shape == (2, SIZE, SIZE, 1)
    for b, start in ((0, 4), (1, 9)):
        alone = condition(variables, jax.tree.map(lambda leaf, s=start: leaf[s:], clip))
        for k in range(3):
            alone, drawn = step(variables, alone, clip.actions[k], jax.random.key(k))
            if k == 0:
                _close(drawn[b], first[b])
        _close(drawn[b], frame[b])


def test_a_step_costs_the_same_however_far_it_is():
    model, variables = _model(euler_steps=1, capacity=5), _variables()
    step: Any = jax.jit(model.step)
    memory = first = model.initial_memory(2)
    for t in range(100):
        memory, frame = step(variables, memory, np.zeros(2, np.int32), jax.random.key(t))
    assert step._cache_size() == 1
    assert jax.tree.structure(memory) == jax.tree.structure(first)
    for old, new in zip(jax.tree.leaves(first), jax.tree.leaves(memory), strict=True):
        assert (old.shape, old.dtype) == (new.shape, new.dtype)
    assert memory.count.tolist() == [100, 100]
    assert memory.stored.all()
    assert np.isfinite(frame).all()


def test_an_action_left_out_is_one_that_is_not_known():
    model, variables = _model(), _variables()
    memory, step = model.initial_memory(2), _jitted(model, "step")
    without, drawn = step(variables, memory, None, jax.random.key(0))
    nothing, same = step(variables, memory, DISCRETE.nothing(2), jax.random.key(0))
    other = step(variables, memory, np.ones(2, np.int32), jax.random.key(0))[1]
    np.testing.assert_array_equal(drawn, same)
    np.testing.assert_array_equal(without.leading, nothing.leading)
    assert without.known.sum() == 0
    assert np.abs(drawn - other).max() > 1e-4


# How it is trained.


class _Recorded(LongFAR):
    """Predicts no velocity, and keeps what it was asked."""

    seen: Any = ()

    def velocity(self, *inputs):
        _Recorded.seen = inputs[1:]
        return jnp.zeros_like(inputs[1][inputs[-1] :])


def test_a_frame_before_the_cut_might_as_well_not_be_there():
    inputs, model, variables = _inputs(9), _model(capacity=3), _variables()
    *inputs, reset = inputs
    velocity = _jitted(model, "velocity")
    whole = velocity(variables, *inputs, reset, 5)
    for start in (3, 6):
        begins = reset.copy()
        begins[start] = True
        poisoned = inputs[0].copy()
        poisoned[:start] = np.nan
        cut = velocity(variables, poisoned, *inputs[1:], begins, 5)[max(start - 5, 0) :]
        rest = [leaf[start:] for leaf in (*inputs, reset)]
        _close(cut, velocity(variables, *rest, max(5 - start, 0)))
        assert np.abs(cut - whole[max(start - 5, 0) :]).max() > 1e-3


def test_the_loss_is_that_of_the_noisy_frames_of_the_window():
    batch, length = 32, 9
    model = _model(cls=_Recorded, clean_probability=0.5, action_dropout=0.3)
    variables, clip, key = _variables(), _clip(length, batch), jax.random.key(3)
    clip.reset[6, :4] = True
    loss, memory = model.loss(variables, "memory", clip, key)
    assert memory == "memory"
    x, sigma, clean, leading, known, reset, coarse = (
        np.asarray(leaf) if i < 6 else leaf for i, leaf in enumerate(_Recorded.seen)
    )
    assert coarse == length - WINDOW
    latents = np.asarray(AUTOENCODER.encode(_frozen(), clip.frames / 127.5 - 1.0))
    np.testing.assert_allclose(x[:coarse], latents[:coarse], atol=1e-5)
    assert clean[:coarse].all()
    # every length from the window's to the clip's
    begins = reset & ~clip.reset
    begins[0] = reset[0] & ~begins.any(0)
    starts = begins.argmax(0)
    assert (begins.sum(0) == 1).all()
    assert set(starts) == set(range(length - WINDOW + 1))
    assert reset[6, :4].all()
    assert not known[reset].any()
    assert 0.6 < known[~reset].mean() < 0.8
    np.testing.assert_array_equal(leading[1:], clip.actions[:-1])
    # what noise there was follows from x; the target is noise - latents
    near, fine = x[coarse:], latents[coarse:]
    target = (near - fine) / np.where(clean[coarse:], 1.0, sigma[coarse:])[..., None, None, None]
    errors = (target**2).mean((2, 3, 4))
    noisy = ~clean[coarse:]
    assert 0.3 < noisy.mean() < 0.7
    np.testing.assert_allclose(near[~noisy], fine[~noisy], atol=1e-5)
    expected = np.mean([errors[noisy[:, b], b].mean() if noisy[:, b].any() else 0.0 for b in range(batch)])
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    assert abs(noised(jnp.asarray(fine), key).sigma.mean() - sigma[coarse:].mean()) < 0.15


def test_a_clip_no_longer_than_the_window_is_fine_throughout():
    model = _model(cls=_Recorded)
    clip = _clip(WINDOW)
    model.loss(_variables(), (), clip, jax.random.key(0))
    assert _Recorded.seen[-1] == 0
    np.testing.assert_array_equal(_Recorded.seen[5], clip.reset)


def test_layers_recomputed_have_the_same_gradient_and_none_is_dead():
    variables, clip = _variables(), _clip(6)
    grads = []
    for remat in (False, True):
        model = _model(remat=remat)

        def loss(params, model=model):
            return model.loss({**variables, "params": params}, (), clip, jax.random.key(0))[0]

        grads.append(jax.jit(jax.grad(loss))(variables["params"]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max()), *grads)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads[0]))


def test_bfloat16_keeps_its_memory_in_float32():
    half, exact, variables, inputs = _model(dtype=jnp.bfloat16), _model(), _variables(), _inputs(9)
    memory = half.initial_memory(2)
    assert jax.eval_shape(half.recall, variables, memory)[0].keys.dtype == jnp.bfloat16
    after = jax.eval_shape(half.step, variables, memory, np.zeros(2, np.int32), jax.random.key(0))[0]
    assert [leaf.dtype for leaf in after] == [leaf.dtype for leaf in exact.initial_memory(2)]
    v, expected = (_jitted(model, "velocity")(variables, *inputs, 5) for model in (half, exact))
    assert v.dtype == jnp.float32
    assert 0 < np.abs(v - expected).max() < 0.1 * np.abs(expected).max()


def test_mistakes_are_sentences():
    with pytest.raises(ValueError, match=r"coarse_patch=3 does not divide the 4 x 4 .* use one of 1, 2, 4"):
        _model(coarse_patch=3)
    with pytest.raises(ValueError, match="capacity=0 remembers no coarse frame; use 1 or more"):
        _model(capacity=0)
    with pytest.raises(ValueError, match="window=0 must count the current frame"):
        _model(window=0)
    with pytest.raises(ValueError, match="features=18 must be an even multiple of num_heads=2"):
        _model(features=18)
    with pytest.raises(ValueError, match="clean_probability=2 must be from 0 to 1"):
        _model(clean_probability=2)
    with pytest.raises(ValueError, match="num_layers=0 leaves no attention"):
        _model(num_layers=0)
