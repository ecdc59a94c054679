"""Attention: the window, the ring, the blocks and the masks, against the plain definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.cores import attention, frame_attention, make_core
from resetta.cores.attention import Places, attend, attend_blocks, attend_in_turns
from resetta.cores.rope import positions, rotate

B, H, D = 2, 2, 4


def _inputs(length, window, seed=0):
    """Random q, k, v over `window` past entries and `length` new ones, with a few resets."""
    rng = np.random.default_rng(seed)
    q = rng.normal(size=(B, length, H, D)).astype(np.float32)
    k, v = rng.normal(size=(2, B, window + length, H, D)).astype(np.float32)
    time = np.broadcast_to(np.arange(length), (B, length))
    segment = np.cumsum(rng.random((B, length)) < 0.15, axis=1)
    past_time = np.stack([rng.permutation(window) - window for _ in range(B)])  # the ring is in no order
    past_segment = np.where(rng.random((B, window)) < 0.3, -1, 0)  # and not full
    key = Places(np.concatenate([past_time, time], 1), np.concatenate([past_segment, segment], 1))
    return q, k, v, Places(time, segment), key


def _definition(q, k, v, query, key, window):
    y = np.zeros(q.shape)
    for b, t, h in np.ndindex(q.shape[:3]):
        age = query.time[b, t] - key.time[b]
        seen = (age >= 0) & (age < window) & (key.segment[b] == query.segment[b, t])
        scores = k[b, seen, h].astype(np.float64) @ q[b, t, h] / np.sqrt(D)
        weights = np.exp(scores - scores.max())
        y[b, t, h] = weights / weights.sum() @ v[b, seen, h]
    return y


@pytest.mark.parametrize(("length", "window"), [(5, 8), (8, 8), (1, 3), (13, 4), (12, 4), (3, 1)])
@pytest.mark.parametrize("over", [attend, attend_blocks])
def test_both_forms_are_the_definition(over, length, window):
    inputs = _inputs(length, window)
    np.testing.assert_allclose(over(*inputs, window), _definition(*inputs, window), atol=2e-6)


@pytest.mark.parametrize(("length", "window"), [(13, 6), (12, 20), (9, 9)])
def test_turns_are_the_definition_and_so_are_their_gradients(length, window, monkeypatch):
    monkeypatch.setattr(attention, "_QUERIES", 4)
    q, k, v, query, key = _inputs(length, window)
    empty = Places(key.time, np.where(np.arange(window + length) < window, -1, key.segment))

    def run(over, key):
        def loss(*inputs):
            y = over(*inputs, query, key, window)
            return (y**2).sum(), y

        return jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(q, k, v)

    for key_places in (key, empty):  # a past, and none
        found, expected = run(attend_in_turns, key_places), run(attend, key_places)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=3e-6), found, expected)
    np.testing.assert_allclose(
        run(attend_in_turns, key)[0][1], _definition(q, k, v, query, key, window), atol=2e-6
    )


@pytest.mark.parametrize("over", [attend, attend_blocks])
@pytest.mark.parametrize("poison", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["key", "value"])
def test_an_entry_that_is_not_finite_is_never_attended(over, poison, where):
    q, k, v, query, key = _inputs(9, 4)
    bad = 4 + 2  # the third new entry
    dirty = [np.array(k), np.array(v)]
    dirty[where == "value"][:, bad, 1, 0] = poison
    absent = Places(key.time, np.array(key.segment))
    absent.segment[:, bad] = -1

    def run(q, k, v, key):
        return jax.value_and_grad(lambda *a: (over(*a, query, key, 4) ** 2).sum(), (0, 1, 2))(q, k, v)

    jax.tree.map(np.testing.assert_array_equal, run(q, *dirty, key), run(q, k, v, absent))


def test_a_row_that_may_attend_to_nothing_is_zero_and_so_is_its_gradient():
    q, k, v, query, key = _inputs(3, 4)
    nothing = Places(key.time, np.full_like(key.segment, -1))
    y, gradients = jax.value_and_grad(
        lambda *a: (attend(*a, query, nothing, 4) ** 2).sum() + attend(*a, query, nothing, 4).sum(), (0, 1, 2)
    )(q, k, v)
    assert y == 0
    assert all((g == 0).all() for g in gradients)


def test_positions_count_from_the_reset():
    reset = np.array([[0, 0, 1, 0, 0], [1, 0, 0, 1, 1]], bool)
    np.testing.assert_array_equal(positions(jnp.array([3, 7]), reset), [[3, 4, 0, 1, 2], [0, 1, 2, 0, 0]])


def test_rotated_products_depend_on_the_distance_only():
    q, k = np.random.default_rng(0).normal(size=(2, 1, 5, 1, 8)).astype(np.float32)
    at = jnp.arange(5)[None]

    def products(shift):
        return jnp.einsum("bthd,bshd->ts", rotate(q, at + shift, 100.0), rotate(k, at + shift, 100.0))

    np.testing.assert_allclose(products(0), products(1000), atol=1e-3)
    assert np.abs(products(0) - jnp.einsum("bthd,bshd->ts", q, k)).max() > 0.1


def _core(**options):
    core = make_core("attention", **{"features": 8, "num_heads": 2, **options})
    x = np.random.default_rng(0).normal(size=(23, B, 8)).astype(np.float32)
    never = np.zeros((23, B), bool)
    params = jax.jit(core.init)(jax.random.key(0), core.initial_carry(B), x, never)
    return jax.jit(core.apply), params, core.initial_carry(B), x, never


def test_the_memory_reaches_exactly_its_horizon():
    apply, params, carry, x, never = _core(num_layers=2, window=4)
    by_x = jax.jit(jax.grad(lambda x: apply(params, carry, x, never)[1][20].sum() ** 2))(x)
    reach = np.abs(by_x).max((1, 2)) > 0
    # Two layers of window 4 reach back 6 steps.
    np.testing.assert_array_equal(np.flatnonzero(reach), np.arange(14, 21))


def test_the_ring_after_a_reset_is_that_of_a_fresh_start():
    apply, params, carry, x, never = _core(window=5)
    stale = apply(params, carry, x, never)[0]
    for length in (1, 3, 9):  # less than, and more than, the window
        reset = never[:length].copy()
        reset[0] = True
        cleared = apply(params, stale, x[:length], reset)[0]
        fresh = apply(params, carry, x[:length], never[:length])[0]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), cleared, fresh)


def test_a_poisoned_ring_without_a_reset_is_passed_over():
    apply, params, carry, x, never = _core(window=5)
    filled = apply(params, carry, x, never)[0]
    poisoned = {**filled, "value": filled["value"].at[:, :, 2].set(jnp.nan)}
    assert np.isfinite(apply(params, poisoned, x, never)[1]).all()


def _sizes(jaxpr):
    """The sizes of everything a program computes."""
    for equation in jaxpr.eqns:
        yield from (v.aval.size for v in equation.outvars)
        for inner in jax.tree.leaves(
            equation.params, is_leaf=lambda a: hasattr(a, "eqns") or hasattr(a, "jaxpr")
        ):
            if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                yield from _sizes(getattr(inner, "jaxpr", inner))


def _program(length, trained=False, name="attention", **options):
    core = make_core(name, features=12, num_heads=2, **options)
    size = (2, 2) if core.spatial else None
    carry = core.initial_carry(1, size)
    x, reset = jnp.zeros((length, 1, *(size or ()), 12)), jnp.zeros((length, 1), bool)
    params = jax.eval_shape(core.init, jax.random.key(0), carry, x, reset)

    def loss(*inputs):
        return core.apply(*inputs)[1].sum()

    apply = jax.grad(loss) if trained else core.apply
    return list(_sizes(jax.make_jaxpr(apply)(params, carry, x, reset).jaxpr))


def test_memory_is_linear_in_time_beyond_the_window():
    short, long = (max(_program(length, window=16)) for length in (64, 256))
    assert long == 4 * short


@pytest.mark.parametrize("name", ["attention", "frame_attention"])
@pytest.mark.parametrize("trained", [False, True])
def test_memory_is_linear_in_time_with_a_window_as_long(trained, name, monkeypatch):
    monkeypatch.setattr(frame_attention, "BLOCK_TOKENS", 8)
    monkeypatch.setattr(attention, "_QUERIES", 16)
    monkeypatch.setattr(attention, "_MANY_SCORES", 0)
    short, long = (max(_program(length, trained, name, window=length)) for length in (64, 256))
    assert long == 4 * short


def test_the_program_is_no_larger_for_more_layers():
    assert len(_program(4, num_layers=2)) == len(_program(4, num_layers=7))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"features": 30, "num_heads": 4},
            "features=30 cannot be cut into num_heads=4 heads of even width; use features=24 or 32",
        ),
        ({"features": 4, "num_heads": 4}, "use features=8"),
        ({"window": 0}, "window=0 leaves nothing to attend to"),
    ],
)
def test_errors_say_what_to_do(options, message):
    with pytest.raises(ValueError, match=message):
        make_core("attention", **options)
