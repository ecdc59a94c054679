"""Attention's kernels, run by Pallas' interpreter, against the definition in float64 and its gradient."""

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.cores import attention_kernels, gpu_kernels, make_core, scan
from resetta.cores.attention import Places
from resetta.cores.attention_kernels import Blocks, Tiling
from resetta.testing import check_core

B, H, D = 2, 2, 4
# Several blocks along every axis, and none of the three passes cut as another.
TILING = Tiling(Blocks(16, 32, 4, 2), Blocks(32, 16, 4, 2), Blocks(16, 16, 4, 2))


@pytest.fixture(autouse=True)
def interpreter():
    with gpu_kernels.interpreted():
        yield


def problem(length, window, seed=0):
    """q, k, v and a cotangent, over a ring in no order and not full, and a chunk with a few resets."""
    rng = np.random.default_rng(seed)
    q, y_bar = rng.normal(size=(2, B, length, H, D)).astype(np.float32)
    k, v = rng.normal(size=(2, B, window + length, H, D)).astype(np.float32)
    time = np.broadcast_to(np.arange(length), (B, length))
    segment = np.cumsum(rng.random((B, length)) < 2 / length, axis=1)
    past_time = np.stack([rng.permutation(window) - window for _ in range(B)])
    past_segment = np.where(rng.random((B, window)) < 0.3, -1, 0)
    key = Places(np.concatenate([past_time, time], 1), np.concatenate([past_segment, segment], 1))
    return (q, k, v), y_bar, Places(time, segment), key


@functools.cache
def kernels(window):
    """`(q, k, v), y_bar, query, key` -> what comes out, and the gradients of q, k and v."""

    def both(inputs, y_bar, query, key):
        y, back = jax.vjp(
            lambda q, k, v: attention_kernels.attend(q, k, v, query, key, window, TILING), *inputs
        )
        return y, *back(y_bar)

    return jax.jit(both)


def definition(inputs, y_bar, query, key, window):
    """The same in float64, pair by pair."""
    q, k, v = (np.asarray(a, np.float64) for a in inputs)
    y, q_bar, k_bar, v_bar = (np.zeros_like(a) for a in (q, q, k, v))
    for b, t, h in np.ndindex(q.shape[:3]):
        age = query.time[b, t] - key.time[b]
        seen = (age >= 0) & (age < window) & (key.segment[b] == query.segment[b, t])
        if not seen.any():
            continue
        scores = k[b, seen, h] @ q[b, t, h] / np.sqrt(D)
        weights = np.exp(scores - scores.max())
        weights /= weights.sum()
        y[b, t, h] = weights @ v[b, seen, h]
        weights_bar = v[b, seen, h] @ y_bar[b, t, h]
        scores_bar = weights * (weights_bar - weights @ weights_bar) / np.sqrt(D)
        q_bar[b, t, h] = scores_bar @ k[b, seen, h]
        k_bar[b, seen, h] += np.outer(scores_bar, q[b, t, h])
        v_bar[b, seen, h] += np.outer(weights, y_bar[b, t, h])
    return y, q_bar, k_bar, v_bar


# windows shorter than a block, no multiple of one, longer than the chunk, and of one step
@pytest.mark.parametrize(("length", "window"), [(70, 9), (64, 40), (20, 50), (35, 1)])
def test_the_kernels_are_the_definition_and_so_are_their_gradients(length, window):
    given = problem(length, window)
    for got, wanted in zip(kernels(window)(*given), definition(*given, window), strict=True):
        np.testing.assert_allclose(got, wanted, atol=4e-6)


def test_bfloat16_is_multiplied_and_float32_summed():
    (q, k, v), y_bar, query, key = problem(64, 40)
    short = jax.tree.map(lambda a: jnp.asarray(a, jnp.bfloat16), (q, k, v, y_bar))
    got = kernels(40)((short[0], k, v), short[3], query, key)
    assert [a.dtype for a in got] == [jnp.bfloat16, jnp.bfloat16, jnp.float32, jnp.float32]
    wanted = definition(short[:3], np.asarray(short[3], np.float64), query, key, 40)
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(np.asarray(a, np.float64), b, atol=1e-2 * np.abs(b).max())


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_an_entry_that_is_not_finite_is_never_attended(poison):
    (q, k, v), y_bar, query, key = problem(70, 9)
    absent = Places(key.time, np.array(key.segment))
    dirty = [np.array(k), np.array(v)]
    for of, place in ((0, 3), (1, 9 + 5), (0, 9 + 40)):  # the ring, and the chunk
        dirty[of][:, place, 1, 0] = poison
        absent.segment[:, place] = -1
    got, wanted = (
        kernels(9)(*a) for a in (((q, *dirty), y_bar, query, key), ((q, k, v), y_bar, query, absent))
    )
    jax.tree.map(np.testing.assert_array_equal, got, wanted)
    assert (np.asarray(got[2])[:, [3, 14, 49]] == 0).all()


def test_a_query_that_may_attend_to_nothing_gives_zero_and_so_is_every_gradient():
    given, y_bar, query, key = problem(70, 9)
    nothing = Places(key.time, np.full_like(key.segment, -1))
    assert all((np.asarray(a) == 0).all() for a in kernels(9)(given, y_bar, query, nothing))


def test_several_agents_attend_at_once():
    problems = [problem(20, 9, seed) for seed in (0, 1)]
    got = jax.vmap(kernels(9))(*jax.tree.map(lambda *a: np.stack(a), *problems))
    for i, one in enumerate(problems):
        for each, wanted in zip(got, definition(*one, 9), strict=True):
            np.testing.assert_allclose(each[i], wanted, atol=4e-6)


def test_blocks_that_no_query_of_a_block_sees_are_not_walked():
    # Selecting non-finite entries away is done outside: what is walked inside shows.
    plan = attention_kernels._Plan(Tiling(*[Blocks(16, 16, 4, 2)] * 3), 16, 64, 16, 16)
    at = jnp.arange(64)[None]
    places = attention_kernels._Places(at - 15, jnp.full((1, 16), attention_kernels._NEVER), at)
    past, chunk = jnp.full((1, 16, 1, 16), jnp.nan), jnp.ones((1, 64, 1, 16)).at[:, 16:32].set(jnp.nan)
    y = jax.jit(functools.partial(attention_kernels._attend, plan))(chunk, (past,) * 2, (chunk,) * 2, places)
    assert [bool(jnp.isfinite(y[0, at : at + 16]).all()) for at in (0, 16, 32, 48)] == [
        True,
        False,
        False,
        True,
    ]


def test_a_core_on_the_kernels_keeps_the_laws():
    core = make_core("attention", features=8, num_heads=1, num_layers=1, window=5, attend="kernels")
    assert check_core(core, width=3, exempt=(9,)) == []


def program(core, length=4, dtype=jnp.float32, text=str):
    x, reset = jnp.zeros((length, 1, core.features), dtype), jnp.zeros((length, 1), bool)
    carry = core.initial_carry(1)
    params = jax.eval_shape(core.init, jax.random.key(0), carry, x, reset)

    def loss(params):
        return core.apply(params, carry, x, reset)[1].astype(jnp.float32).sum()

    return text(jax.jit(jax.grad(loss)).trace(params))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_all_kernels_lower_for_a_gpu(dtype, monkeypatch):
    monkeypatch.setattr(gpu_kernels, "_interpreted", False)
    monkeypatch.setattr(gpu_kernels, "obstacle", lambda: None)
    core = make_core("attention", features=96, num_heads=2, window=100, attend="kernels")
    text = program(core, 40, dtype, lambda traced: traced.lower(lowering_platforms=("cuda",)).as_text())
    for name in ("forward", "queries", "keys"):
        assert f"attention_{name}" in text


@pytest.mark.parametrize(
    ("options", "length", "why"),
    [
        ({"features": 320}, 4, "it is written for heads of up to 128 channels and these have 160"),
        ({"features": 16, "kernels": False}, 4, "it is written for NVIDIA's GPUs and this is cpu"),
        ({"features": 16}, 1, None),  # a step: there is nothing to say
        ({"features": 16, "attend": None}, 4, None),  # a CPU's own
    ],
)
def test_elsewhere_the_plain_way_runs(options, length, why, caplog, monkeypatch):
    options = {"num_heads": 2, "num_layers": 1, "window": 3, "attend": "kernels", **options}
    monkeypatch.setattr(gpu_kernels, "_interpreted", options.pop("kernels", True))
    scan.say_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        made = program(make_core("attention", **options), length, text=lambda traced: str(traced.jaxpr))
    assert "attention_forward" not in made
    assert caplog.messages == (
        [] if why is None else [f"attend='kernels' cannot run here: {why}; 'plain' runs instead"]
    )


def test_on_an_accelerator_the_kernels_are_the_default(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    core = make_core("attention", features=16, num_heads=2, num_layers=1, window=3)
    assert "attention_forward" in program(core, text=lambda traced: str(traced.jaxpr))


def test_an_unknown_way_is_an_error():
    with pytest.raises(ValueError, match="unknown attend 'fast'; choose from plain, kernels"):
        make_core("attention", attend="fast")
