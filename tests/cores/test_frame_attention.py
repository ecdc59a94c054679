"""FrameAttention against the same attention written out in float64, its condition, and what it asks for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.cores import frame_attention, make_core
from resetta.cores.frame_attention import head_slopes

T, B, H, W, C = 9, 2, 3, 2, 5
WINDOW, HEADS, FEATURES = 4, 2, 16


def _inputs(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(T, B, H, W, C)).astype(np.float32)
    reset = np.zeros((T, B), bool)
    reset[6, 1] = True
    return x, reset


def _core(**options):
    return make_core("frame_attention", features=FEATURES, num_heads=HEADS, window=WINDOW, **options)


def _made(core, x, reset, cond=None, seed=0):
    carry = core.initial_carry(B, (H, W))
    variables = core.init(jax.random.key(seed), carry, x, reset, cond)
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    # so that no scale is one and no bias zero
    leaves = [leaf + 0.1 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return carry, jax.tree.unflatten(tree, leaves)


def _turn(x, at, theta=10000.0):
    """Rotary positions of `[D]` at a place: channel d turns with channel d + D / 2."""
    half = len(x) // 2
    angles = at * theta ** (-np.arange(half) / half)
    a, b = x[:half], x[half:]
    return np.concatenate([a * np.cos(angles) - b * np.sin(angles), a * np.sin(angles) + b * np.cos(angles)])


def _positions(vector, t, row, column):
    pairs = len(vector) // 2
    time = max(pairs // 4, 1)
    rows = (pairs - time) // 2
    parts = np.split(vector, [2 * time, 2 * (time + rows)])
    return np.concatenate([_turn(p, at) for p, at in zip(parts, (t, row, column), strict=True)])


def _norm(x, scale=1.0, bias=0.0, eps=1e-6):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) * scale + bias


def _rms(x, scale, eps=1e-6):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * scale


def _gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def _written_out(params, x, reset, decay=None):
    """A pre-norm layer after another, token by token."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])
    x = np.asarray(x, np.float64) @ p["encoder"]["kernel"] + p["encoder"]["bias"]
    segment = np.cumsum(reset, 0)
    tokens = [(row, column) for row in range(H) for column in range(W)]
    for i in range(2):
        layer = jax.tree.map(lambda leaf, i=i: leaf[i], p["layers"])
        h = _norm(x, **layer["norm_attention"])
        q, k, v = np.split(h @ layer["qkv"]["kernel"], 3, -1)
        q, k, v = (part.reshape(T, B, H, W, HEADS, -1) for part in (q, k, v))
        q, k = _rms(q, layer["norm_q"]["scale"]), _rms(k, layer["norm_k"]["scale"])
        y = np.zeros_like(q)
        for b in range(B):
            for t in range(T):
                seen = [
                    (s, *token)
                    for s in range(max(0, t - WINDOW + 1), t + 1)
                    if segment[s, b] == segment[t, b]
                    for token in tokens
                ]
                for head in range(HEADS):
                    keys = np.stack([_positions(k[s, b, r, c, head], s, r, c) for s, r, c in seen])
                    values = np.stack([v[s, b, r, c, head] for s, r, c in seen])
                    ages = np.array([t - s for s, *_ in seen])
                    for r, c in tokens:
                        query = _positions(q[t, b, r, c, head], t, r, c)
                        scores = keys @ query / np.sqrt(len(query))
                        if decay is not None:
                            scores = scores - decay[head] * ages
                        weights = np.exp(scores - scores.max())
                        y[t, b, r, c, head] = weights @ values / weights.sum()
        x = x + y.reshape(x.shape) @ layer["out"]["kernel"]
        h = _gelu(_norm(x, **layer["norm_mlp"]) @ layer["up"]["kernel"] + layer["up"]["bias"])
        x = x + h @ layer["down"]["kernel"] + layer["down"]["bias"]
    return _norm(x, **p["norm"])


@pytest.mark.parametrize("decay", [None, (0.3, 0.0)])
def test_the_equations(decay):
    x, reset = _inputs()
    core = _core(decay=decay)
    carry, params = _made(core, x, reset)
    y = core.apply(params, carry, x, reset)[1]
    np.testing.assert_allclose(y, _written_out(params, x, reset, decay), atol=1e-4)


def test_one_decay_is_that_of_every_head():
    x, reset = _inputs()
    carry, params = _made(_core(), x, reset)
    one, each = (_core(decay=d).apply(params, carry, x, reset)[1] for d in (0.5, (0.5, 0.5)))
    np.testing.assert_array_equal(one, each)
    assert np.abs(one - _core().apply(params, carry, x, reset)[1]).max() > 1e-2


def test_geometric_slopes_are_those_of_alibi():
    assert head_slopes(1.0, "geometric", 8) == tuple(2.0**-h for h in range(1, 9))
    assert head_slopes(0.5, "geometric", 2) == (0.5 / 16, 0.5 / 256)
    assert head_slopes(0.5, "equal", 2) == (0.5, 0.5)
    assert head_slopes(None, "geometric", 2) is None
    x, reset = _inputs()
    carry, params = _made(_core(), x, reset)
    made, given = (
        _core(**options).apply(params, carry, x, reset)[1]
        for options in ({"decay": 4.0, "slopes": "geometric"}, {"decay": (0.25, 0.015625)})
    )
    np.testing.assert_array_equal(made, given)


def test_a_longer_window_takes_the_same_parameters_and_sees_more():
    """So that a model can be evaluated with more context than it was trained on."""
    x, reset = _inputs()
    carry, params = _made(_core(), x, reset)
    short = _core().apply(params, carry, x, reset)[1]
    far = make_core("frame_attention", features=FEATURES, num_heads=HEADS, window=4 * WINDOW)
    long = far.apply(params, far.initial_carry(B, (H, W)), x, reset)[1]
    np.testing.assert_allclose(long[:WINDOW], short[:WINDOW], atol=1e-5)
    assert np.abs(long[-1, 0] - short[-1, 0]).max() > 1e-3


def test_frame_by_frame_is_the_same_as_all_at_once():
    x, reset = _inputs()
    core = _core()
    carry, params = _made(core, x, reset)
    end, whole = core.apply(params, carry, x, reset)
    for t in range(T):  # past the window twice, and over a reset
        carry, y = core.apply(params, carry, x[t : t + 1], reset[t : t + 1])
        np.testing.assert_allclose(y[0], whole[t], atol=1e-5)
    np.testing.assert_array_equal(carry["valid"], end["valid"])
    assert end["valid"].tolist() == [[1, 1, 1], [1, 1, 1]]


def test_a_frame_sees_all_of_itself_and_nothing_that_comes():
    x, reset = _inputs()
    core = _core()
    carry, params = _made(core, x, reset)

    def at(t, x):
        return core.apply(params, carry, x, reset)[1][t, :, 0, 0]

    for t in (0, 5, 8):
        seen = np.abs(jax.jacobian(lambda x, t=t: at(t, x))(jnp.asarray(x)))
        seen = seen.sum((0, 1, -1))  # [T, B, H, W]
        assert (seen[t] > 0).all()
        assert (seen[t + 1 :] == 0).all()
        reach = max(0, t - 2 * (WINDOW - 1))  # two layers
        assert (seen[:reach] == 0).all()
        first = 6 if t == 8 else 0
        assert (seen[:first, 1] == 0).all()


def test_a_condition_starts_as_the_identity():
    x, reset = _inputs()
    x = np.pad(x, ((0, 0),) * 4 + ((0, FEATURES - C),))
    cond = np.random.default_rng(1).normal(size=(T, B, 7)).astype(np.float32)
    core = _core()
    carry = core.initial_carry(B, (H, W))
    params = core.init(jax.random.key(0), carry, x, reset, cond)
    np.testing.assert_array_equal(core.apply(params, carry, x, reset, cond)[1], x)


def test_a_condition_is_its_own_frames():
    x, reset = _inputs()
    cond = np.random.default_rng(1).normal(size=(T, B, 7)).astype(np.float32)
    core = _core()
    carry, params = _made(core, x, reset, cond)
    before = core.apply(params, carry, x, reset, cond)[1]
    cond[4, 0] += 1.0
    moved = np.abs(core.apply(params, carry, x, reset, cond)[1] - before).max((2, 3, 4)) > 1e-6
    assert not moved[:, 1].any()
    assert not moved[:4, 0].any()
    assert moved[4:8, 0].all()  # by its keys and values, those that follow


def test_long_pieces_go_block_by_block_and_start_anywhere(monkeypatch):
    """Whatever the length, and however long ago a sequence began, and however small the blocks are."""
    core = _core()
    rng = np.random.default_rng(3)
    x = rng.normal(size=(2 * T + 1, B, H, W, C)).astype(np.float32)
    reset = np.zeros((len(x), B), bool)
    carry, params = _made(core, x, reset)
    whole = core.apply(params, carry, x, reset)[1]
    # of two layers, the last 2 (WINDOW - 1) frames are all that matters
    late = core.apply(params, carry, x[8:], reset[8:])[1]
    np.testing.assert_allclose(late[6:], whole[14:], atol=1e-5)
    monkeypatch.setattr(frame_attention, "BLOCK_TOKENS", 2 * H * W)
    np.testing.assert_allclose(core.apply(params, carry, x, reset)[1], whole, atol=1e-5)


def test_mistakes_are_sentences():
    with pytest.raises(ValueError, match="window=0 must count the current frame; use 1 or more"):
        make_core("frame_attention", features=24, window=0)
    with pytest.raises(ValueError, match=r"features=20 must be an even multiple of num_heads=3; use .*=18"):
        make_core("frame_attention", features=20, num_heads=3)
    with pytest.raises(ValueError, match=r"leaves 4 channels a head .* use features=24 or fewer heads"):
        make_core("frame_attention", features=16, num_heads=4)
    with pytest.raises(ValueError, match="decay has 1 numbers for num_heads=2; give one each"):
        make_core("frame_attention", features=24, num_heads=2, decay=(0.1,))
    for decay in (-0.1, "much", True, (0.1, None)):
        with pytest.raises(ValueError, match="must be a number of 0 or more, or one a head; use null"):
            make_core("frame_attention", features=24, num_heads=2, decay=decay)
    with pytest.raises(ValueError, match="slopes='alibi' must be one of equal, geometric"):
        make_core("frame_attention", slopes="alibi")
    with pytest.raises(ValueError, match="slopes=geometric makes the heads' slopes from one number"):
        make_core("frame_attention", features=24, num_heads=2, decay=(0.1, 0.2), slopes="geometric")
    with pytest.raises(TypeError, match="use initial_carry"):
        make_core("frame_attention").initial_carry(2)
