import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resetta.cores import scan
from resetta.cores.scan import linear_scan

ENGINES = [engine for engine in scan.ENGINES if engine != "chunked"]  # kernels: test_scan_kernels.py
SAFE = [engine for engine in ENGINES if engine != "paper"]  # the yardstick may leak what a reset discards


def oracle(gain, inputs, reset, carry):
    """The definition, one step at a time, in complex128."""
    state, states = np.array(carry, complex), []
    for t in range(len(inputs)):
        g = gain[t] if np.ndim(gain) == inputs.ndim else gain
        column = reset[t].reshape(reset[t].shape + (1,) * (inputs.ndim - 2))
        state = g * np.where(column, 0, state) + inputs[t]
        states.append(state)
    return np.stack(states)


def as_complex(value):
    return np.asarray(value[0], np.float64) + 1j * np.asarray(value[1]) if isinstance(value, tuple) else value


def as_pair(value, dtype=jnp.float32):
    if np.iscomplexobj(value):
        return jnp.asarray(value.real, dtype), jnp.asarray(value.imag, dtype)
    return jnp.asarray(value, dtype)


def problem(kind, length, seed, lanes=(2,)):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return rng.normal(size=shape) + (0 if kind.startswith("real") else 1j * rng.normal(size=shape))

    gain = 0.6 * draw(*((length, 2, *lanes) if kind.endswith("varying") else lanes))
    return (
        gain,
        draw(length, 2, *lanes),
        rng.random((length, 2)) < 0.3,
        draw(2, *lanes),
        draw(length, 2, *lanes),
    )


KINDS = ("real fixed", "complex fixed", "complex varying")


@partial(jax.jit, static_argnames="engine")
def value_and_gradients(gain, inputs, reset, carry, weights, engine):
    def loss(gain, inputs, carry):
        last, states = linear_scan(gain, inputs, reset, carry, engine)
        pieces = jax.tree.map(lambda w, s, c: jnp.sum(w * s) + jnp.sum(c), weights, states, last)
        return sum(jax.tree.leaves(pieces)), (last, states)

    return jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(gain, inputs, carry)


def differences(arguments, reset, weights):
    """Central differences of the same loss on the float64 oracle, (d/d re) + i (d/d im) for each argument."""

    def loss(gain, inputs, carry):
        states = oracle(gain, inputs, reset, carry)
        return np.sum((np.conj(weights) * states).real) + np.sum(states[-1].real + states[-1].imag)

    out = []
    for i, argument in enumerate(arguments):
        gradient = np.zeros(argument.shape, complex)
        for at in np.ndindex(argument.shape):
            for unit in (1.0, 1j) if np.iscomplexobj(argument) else (1.0,):
                ends = []
                for sign in (1, -1):
                    moved = [a.copy() for a in arguments]
                    moved[i][at] += sign * 1e-5 * unit
                    ends.append(loss(*moved))
                gradient[at] += unit * (ends[0] - ends[1]) / 2e-5
        out.append(gradient)
    return out


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=6, deadline=None)
@given(length=st.sampled_from([1, 2, 5]), seed=st.integers(0, 1000))
def test_values_and_gradients_match_a_float64_oracle(engine, kind, length, seed):
    gain, inputs, reset, carry, weights = problem(kind, length, seed)
    gradients, (last, states) = value_and_gradients(
        as_pair(gain), as_pair(inputs), jnp.asarray(reset), as_pair(carry), as_pair(weights), engine
    )
    expected = oracle(gain, inputs, reset, carry)
    np.testing.assert_allclose(as_complex(states), expected, atol=1e-5)
    np.testing.assert_allclose(as_complex(last), expected[-1], atol=1e-5)
    for found, wanted in zip(gradients, differences((gain, inputs, carry), reset, weights), strict=True):
        np.testing.assert_allclose(as_complex(found), wanted, atol=2e-4)


@pytest.mark.parametrize("engine", ENGINES)
def test_by_hand(engine):
    reset = jnp.array([[False], [False], [True], [False]])
    last, states = linear_scan(jnp.array([0.5]), jnp.ones((4, 1, 1)), reset, jnp.array([[8.0]]), engine)
    np.testing.assert_allclose(states[:, 0, 0], [5.0, 3.5, 1.0, 1.5])
    assert last[0, 0] == 1.5
    # a quarter turn per step: 1 -> i -> -1, and nothing after the reset
    zeros, one = jnp.zeros((4, 1, 1)), jnp.ones((1, 1))
    quarter = jnp.array([0.0]), jnp.array([1.0])
    _, (re, im) = linear_scan(quarter, (zeros, zeros), reset, (one, 0 * one), engine)
    np.testing.assert_allclose(re[:, 0, 0], [0.0, -1.0, 0.0, 0.0])
    np.testing.assert_allclose(im[:, 0, 0], [1.0, 0.0, 0.0, 0.0])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("shape", [(2,), (5, 2, 1, 1, 2), (5, 1, 2, 3, 1)])
def test_gain_broadcasts_over_spatial_lanes(engine, shape):
    _, inputs, reset, carry, weights = problem("complex", 5, 3, lanes=(2, 3, 2))
    rng = np.random.default_rng(4)
    gain = 0.5 * (rng.normal(size=shape) + 1j * rng.normal(size=shape))
    arguments = as_pair(inputs), jnp.asarray(reset), as_pair(carry), as_pair(weights)
    narrow, (_, states) = value_and_gradients(as_pair(gain), *arguments, engine)
    wide = np.broadcast_to(gain, inputs.shape)
    np.testing.assert_allclose(as_complex(states), oracle(wide, inputs, reset, carry), atol=1e-5)
    # the narrow gain's gradient is the wide one's, summed over what was broadcast
    full = as_complex(value_and_gradients(as_pair(wide), *arguments, engine)[0][0])
    padded = (1,) * (full.ndim - len(shape)) + shape
    summed = full.sum(tuple(i for i, n in enumerate(padded) if n == 1), keepdims=True).reshape(shape)
    np.testing.assert_allclose(as_complex(narrow[0]), summed, atol=1e-4)


@pytest.mark.parametrize("engine", SAFE)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_nothing_crosses_a_reset(engine, kind, poison):
    gain, inputs, _, carry, weights = problem(kind, 5, 1)
    reset = np.zeros((5, 2), bool)
    reset[3] = True
    weights[:3] = 0
    clean = value_and_gradients(
        as_pair(gain), as_pair(inputs), jnp.asarray(reset), as_pair(carry), as_pair(weights), engine
    )
    carry[:], inputs[1] = poison, poison
    dirty = value_and_gradients(
        as_pair(gain), as_pair(inputs), jnp.asarray(reset), as_pair(carry), as_pair(weights), engine
    )
    for before, after in zip(jax.tree.leaves(clean[1]), jax.tree.leaves(dirty[1]), strict=True):
        np.testing.assert_array_equal(after[-2:], before[-2:])
    _, d_inputs, d_carry = dirty[0]
    for x in jax.tree.leaves((jax.tree.map(lambda x: x[:3], d_inputs), d_carry)):
        np.testing.assert_array_equal(x, 0.0)
    for x, y in zip(jax.tree.leaves(d_inputs), jax.tree.leaves(clean[0][1]), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("engine", SAFE)
@pytest.mark.parametrize("length", [1, 4])
def test_a_poisoned_carry_that_is_reset_at_once_leaves_all_gradients_clean(engine, length):
    gain, inputs, _, carry, weights = problem("complex fixed", length, 2)
    reset = jnp.zeros((length, 2), bool).at[0].set(True)
    arguments = as_pair(gain), as_pair(inputs), reset
    clean = value_and_gradients(*arguments, as_pair(carry), as_pair(weights), engine)
    dirty = value_and_gradients(*arguments, as_pair(carry * np.nan), as_pair(weights), engine)
    jax.tree.map(np.testing.assert_array_equal, dirty, clean)


@pytest.mark.parametrize("engine", SAFE)
def test_a_poisoned_gain_stays_before_the_reset_too(engine):
    gain, inputs, _, carry, weights = problem("complex varying", 5, 1)
    reset = np.zeros((5, 2), bool)
    reset[3] = True
    weights[:3] = 0
    arguments = as_pair(inputs), jnp.asarray(reset), as_pair(carry), as_pair(weights)
    clean = value_and_gradients(as_pair(gain), *arguments, engine)
    gain[:2] = np.nan
    dirty = value_and_gradients(as_pair(gain), *arguments, engine)
    after = jax.tree.map(
        lambda x: x[-2:], ((dirty[0][0], dirty[0][1], dirty[1]), (clean[0][0], clean[0][1], clean[1]))
    )
    jax.tree.map(np.testing.assert_array_equal, *after)


@pytest.mark.parametrize("engine", SAFE)
def test_chunks_and_single_steps_equal_the_whole(engine):
    gain, inputs, reset, carry, _ = (as_pair(x) for x in problem("complex fixed", 7, 5))
    reset = reset.astype(bool)
    run = jax.jit(partial(linear_scan, engine=engine))
    last, states = run(gain, inputs, reset, carry)
    for cuts in ([0, 0, 3, 7], list(range(8))):
        state, pieces = carry, []
        for a, b in itertools.pairwise(cuts):
            state, piece = run(gain, jax.tree.map(lambda x: x[a:b], inputs), reset[a:b], state)  # noqa: B023
            pieces.append(as_complex(piece))
        np.testing.assert_allclose(np.concatenate(pieces), as_complex(states), atol=1e-5)
        np.testing.assert_allclose(as_complex(state), as_complex(last), atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_one_step_is_not_a_scan(engine):
    gain, inputs, reset, carry, _ = (as_pair(x) for x in problem("complex fixed", 1, 0))
    jaxpr = jax.make_jaxpr(partial(linear_scan, engine=engine))(gain, inputs, reset.astype(bool), carry)
    assert {e.primitive.name for e in jaxpr.eqns}.isdisjoint(
        {"scan", "while", "concatenate", "custom_vjp_call"}
    )


@pytest.mark.parametrize("engine", SAFE)
def test_second_derivatives_equal_plain_autodiff(engine):
    gain, inputs, reset, carry, _ = (as_pair(x) for x in problem("complex fixed", 4, 8))

    def slope(gain, engine):
        def loss(gain):
            return sum(jnp.sum(x**3) for x in linear_scan(gain, inputs, reset.astype(bool), carry, engine)[1])

        return sum(jnp.sum(x**2) for x in jax.grad(loss)(gain))

    second = jax.jit(jax.grad(slope), static_argnames="engine")
    for found, wanted in zip(second(gain, engine), second(gain, "paper"), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-4)


@pytest.mark.parametrize("engine", ENGINES)
def test_vmap_over_seeds_is_a_loop_over_seeds(engine):
    problems = [jax.tree.map(as_pair, problem("complex fixed", 4, seed)) for seed in (0, 1)]
    problems = [(g, u, r.astype(bool), c, w) for g, u, r, c, w in problems]
    single = [value_and_gradients(*p, engine) for p in problems]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *problems)
    both = jax.vmap(lambda *p: value_and_gradients(*p, engine))(*stacked)
    for i in (0, 1):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x[i], y, atol=1e-5), both, single[i])  # noqa: B023


def test_a_real_gain_serves_complex_inputs():
    _, inputs, reset, carry, _ = problem("complex", 4, 6)
    gain = np.array([0.5, -0.25])
    for engine in ENGINES:
        run = jax.jit(partial(linear_scan, engine=engine))
        _, states = run(as_pair(gain), as_pair(inputs), jnp.asarray(reset), as_pair(carry))
        np.testing.assert_allclose(as_complex(states), oracle(gain, inputs, reset, carry), atol=1e-5)


@pytest.mark.parametrize("length", [1, 3])
def test_states_are_float32_for_bfloat16_inputs(length):
    gain, inputs, reset, carry, _ = problem("real fixed", length, 0)
    last, states = linear_scan(
        jnp.asarray(gain), as_pair(inputs, jnp.bfloat16), jnp.asarray(reset), as_pair(carry, jnp.bfloat16)
    )
    assert last.dtype == states.dtype == jnp.float32


def test_errors_name_the_value_and_the_cure():
    g, u, r, c = jnp.ones(2), jnp.ones((3, 4, 2)), jnp.zeros((3, 4), bool), jnp.ones((4, 2))
    with pytest.raises(
        ValueError, match=r"unknown scan engine 'fast'; choose from sequential, associative, chunked, paper"
    ):
        linear_scan(g, u, r, c, "fast")
    with pytest.raises(ValueError, match=r"it must be inputs without their first axis"):
        linear_scan(g, u, r, jnp.ones((3, 2)))
    with pytest.raises(ValueError, match=r"it must be inputs without their first axis"):
        linear_scan(g, u, r, (c, c))
    with pytest.raises(ValueError, match=r"must be \[T, B\] = \(3, 4\)"):
        linear_scan(g, u, r.T, c)
    with pytest.raises(ValueError, match="complex gain needs complex inputs"):
        linear_scan((g, g), u, r, c)
    for shape in ((3,), (4, 2), (2, 4, 2), (1, 4, 2)):
        with pytest.raises(ValueError, match=r"gain .* inputs"):
            linear_scan(jnp.ones(shape), u, r, c)
