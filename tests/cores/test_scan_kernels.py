import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.cores import gpu_kernels, make_core, scan, scan_kernels
from resetta.cores.scan import linear_scan, packed_scan, resolve_engine
from resetta.cores.scan_kernels import Tiling
from resetta.testing import check_core

# lanes, unroll, buffers, chunks: one chunk and several, with steps left over behind the last block
ONE, MANY = Tiling(16, 4, 1, 1), Tiling(16, 2, 2, 3)


@pytest.fixture(autouse=True)
def interpreter():
    """The kernels themselves, run by Pallas' interpreter."""
    jax.clear_caches()  # what was compiled outside holds no kernels
    with gpu_kernels.interpreted():
        yield
    jax.clear_caches()


def problem(kind, length, seed, lanes=(16,)):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return rng.normal(size=shape) + (0 if kind.startswith("real") else 1j * rng.normal(size=shape))

    gain = 0.6 * draw(*((length, 2, *lanes) if kind.endswith("varying") else lanes))
    inputs, carry, weights = draw(length, 2, *lanes), draw(2, *lanes), draw(length, 2, *lanes)
    return gain, inputs, rng.random((length, 2)) < 0.2, carry, weights


def pair(value):
    if np.iscomplexobj(value):
        return jnp.asarray(value.real, jnp.float32), jnp.asarray(value.imag, jnp.float32)
    return jnp.asarray(value, jnp.float32 if value.dtype != bool else bool)


def together(value):
    return np.asarray(value[0], np.float64) + 1j * np.asarray(value[1]) if isinstance(value, tuple) else value


def loss_of(states, weights):
    """A real number of which every state has a share, and the last one two."""
    return np.sum((np.conj(weights) * states).real) + np.sum(states[-1].real + states[-1].imag)


def oracle(gain, inputs, reset, carry):
    """The definition, one step at a time, in complex128."""
    state, states = np.array(carry, complex), []
    for t in range(len(inputs)):
        g = gain[t] if np.ndim(gain) == inputs.ndim else gain
        column = reset[t].reshape(reset[t].shape + (1,) * (inputs.ndim - 2))
        state = g * np.where(column, 0, state) + inputs[t]
        states.append(state)
    return np.stack(states)


def value_and_gradients(gain, inputs, reset, carry, weights, engine="chunked"):
    @jax.jit
    def run(gain, inputs, carry):
        def loss(gain, inputs, carry):
            last, states = linear_scan(gain, inputs, reset, carry, engine)
            pieces = jax.tree.map(lambda w, s, c: jnp.sum(w * s) + jnp.sum(c), weights, states, last)
            return sum(jax.tree.leaves(pieces)), (last, states)

        return jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(gain, inputs, carry)

    return run(gain, inputs, carry)


@pytest.fixture
def tiling(request, monkeypatch):
    monkeypatch.setattr(scan_kernels, "default_tiling", lambda *_: request.param)
    return request.param


@pytest.mark.parametrize("tiling", [ONE, MANY], indirect=True, ids=["one chunk", "many"])
@pytest.mark.parametrize("kind", ["real fixed", "complex fixed", "complex varying", "real varying"])
def test_values_and_gradients_match_a_float64_oracle(kind, tiling):
    gain, inputs, reset, carry, weights = arguments = problem(kind, 15, 3)
    gradients, (last, states) = value_and_gradients(*map(pair, arguments))
    expected = oracle(gain, inputs, reset, carry)
    np.testing.assert_allclose(together(states), expected, atol=2e-5)
    np.testing.assert_allclose(together(last), expected[-1], atol=2e-5)
    # the slope along a direction in which all entries of one argument change
    rng = np.random.default_rng(5)
    for i, gradient in enumerate(gradients):
        ends, direction = [], rng.normal(size=(gain, inputs, carry)[i].shape)
        if np.iscomplexobj(inputs):
            direction = direction + 1j * rng.normal(size=direction.shape)
        for sign in (1, -1):
            moved = [gain, inputs, carry]
            moved[i] = moved[i] + sign * 1e-6 * direction
            ends.append(loss_of(oracle(moved[0], moved[1], reset, moved[2]), weights))
        found = np.sum((np.conj(together(gradient)) * direction).real)
        np.testing.assert_allclose(found, (ends[0] - ends[1]) / 2e-6, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("tiling", [MANY], indirect=True)
def test_gains_of_spatial_lanes(tiling):
    _, inputs, reset, carry, weights = problem("complex", 9, 3, lanes=(2, 3, 16))
    rng = np.random.default_rng(4)
    for shape in ((3, 16), (9, 2, 1, 1, 16)):
        gain = 0.5 * (rng.normal(size=shape) + 1j * rng.normal(size=shape))
        arguments = [pair(x) for x in (gain, inputs, reset, carry, weights)]
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4),
            value_and_gradients(*arguments),
            value_and_gradients(*arguments, engine="sequential"),
        )


@pytest.mark.parametrize("tiling", [ONE, MANY], indirect=True, ids=["one chunk", "many"])
@pytest.mark.parametrize("kind", ["complex fixed", "real varying"])
def test_nothing_crosses_a_reset(kind, tiling):
    gain, inputs, reset, carry, weights = problem(kind, 13, 1)
    reset[:] = False
    reset[9] = True
    weights[:9] = 0
    clean = value_and_gradients(*map(pair, (gain, inputs, reset, carry, weights)))
    carry[:], inputs[1] = np.nan, np.nan
    dirty = value_and_gradients(*map(pair, (gain, inputs, reset, carry, weights)))
    for before, after in zip(jax.tree.leaves(clean[1][1]), jax.tree.leaves(dirty[1][1]), strict=True):
        np.testing.assert_array_equal(after[9:], before[9:])
    jax.tree.map(np.testing.assert_array_equal, dirty[1][0], clean[1][0])
    for x, y in zip(jax.tree.leaves(dirty[0][1:]), jax.tree.leaves(clean[0][1:]), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("tiling", [MANY], indirect=True)
def test_vmap_is_a_loop_and_second_derivatives_are_those_of_the_sequential_engine(tiling):
    problems = [[pair(x) for x in problem("complex fixed", 9, seed)] for seed in (0, 1)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *problems)
    both = jax.vmap(lambda *p: value_and_gradients(*p))(*stacked)
    for i, single in enumerate(problems):
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x[i], y, atol=1e-5),  # noqa: B023
            both,
            value_and_gradients(*single),
        )

    gain, inputs, reset, carry, _ = problems[0]

    def slope(gain, engine):
        def loss(gain):
            return sum(jnp.sum(x**3) for x in linear_scan(gain, inputs, reset, carry, engine)[1])

        return sum(jnp.sum(x**2) for x in jax.grad(loss)(gain))

    second = jax.jit(jax.grad(slope), static_argnames="engine")
    for found, wanted in zip(second(gain, "chunked"), second(gain, "sequential"), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=5e-4)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("tiling", [MANY], indirect=True)
def test_packed_numbers_keep_their_dtype_and_states_float32_inside(tiling, dtype):
    gain, inputs, reset, carry, _ = map(pair, problem("complex fixed", 13, 2))
    packed = jnp.concatenate(inputs, -1).astype(dtype)

    def outcome(engine):
        def loss(gain, packed, carry):
            (re, im), states = packed_scan(gain, packed, reset, carry, engine)
            wide = states.astype(jnp.float32)
            return (wide * jnp.sin(jnp.arange(wide.size)).reshape(wide.shape)).sum() + (re - im).sum(), (
                re,
                states,
            )

        return jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(gain, packed, carry)

    (kernel, (last, states)), (plain, (wanted, others)) = outcome("chunked"), outcome("sequential")
    assert states.dtype == others.dtype == dtype
    assert last.dtype == jnp.float32
    np.testing.assert_allclose(last, wanted, atol=1e-5)
    np.testing.assert_allclose(
        states.astype(np.float32),
        others.astype(np.float32),
        rtol=1e-2 if dtype == jnp.bfloat16 else 1e-5,
        atol=1e-5,
    )
    for x, y in zip(jax.tree.leaves(kernel), jax.tree.leaves(plain), strict=True):
        x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
        np.testing.assert_allclose(x, y, atol=(3e-2 if dtype == jnp.bfloat16 else 1e-4) * np.abs(y).max())


def test_a_core_on_the_kernels_keeps_the_laws():
    core = make_core("s5", features=32, num_layers=1, engine="chunked")
    assert check_core(core, width=3, exempt=(8, 9)) == []


def test_both_kernels_lower_for_a_gpu(monkeypatch):
    gain, inputs, reset, carry, weights = map(pair, problem("complex fixed", 300, 0, (32,)))
    monkeypatch.setattr(gpu_kernels, "_interpreted", False)
    monkeypatch.setattr(gpu_kernels, "obstacle", lambda: None)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")

    def loss(inputs):
        return sum(
            jnp.vdot(w, s) for w, s in zip(weights, linear_scan(gain, inputs, reset, carry)[1], strict=True)
        )

    lowered = jax.jit(jax.grad(loss)).trace(inputs).lower(lowering_platforms=("cuda",))
    text = lowered.as_text()
    assert "scan_states" in text
    assert "scan_adjoint" in text


def test_where_kernels_cannot_run_one_sentence_says_so(caplog, monkeypatch):
    monkeypatch.setattr(gpu_kernels, "_interpreted", False)
    scan.say_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert resolve_engine(None) == "sequential"  # a CPU's own: nothing to say
        assert [resolve_engine("chunked", 32), resolve_engine("chunked", 32)] == ["sequential"] * 2
    assert caplog.messages == [
        "scan engine 'chunked' cannot run here: it is written for NVIDIA's GPUs and this is cpu; "
        "'sequential' runs instead"
    ]

    class Old:
        platform, compute_capability = "gpu", "7.5"

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "devices", lambda *_: [Old()])
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert [resolve_engine(None, 32), resolve_engine(None, 32)] == ["associative"] * 2
    assert caplog.messages == [
        "scan engine 'chunked' cannot run here: it needs an NVIDIA GPU of compute capability 8.0 or more and "
        "this one has 7.5; 'associative' runs instead"
    ]
    Old.compute_capability = "9.0"
    monkeypatch.setattr(gpu_kernels, "_try", lambda device: None)
    assert resolve_engine(None, 32) == "chunked"
    assert resolve_engine(None, 24) == "associative"
    assert scan_kernels.obstacle(24) == "it needs a multiple of 16 lanes and there are 24"
    Old.compute_capability = "gfx942"
    assert "gfx942" in scan_kernels.obstacle(32)


def test_the_smallest_kernel_is_tried_once_and_says_what_fails(monkeypatch):
    device, tried = jax.devices()[0], []

    def call(kernel, *names, **options):
        tried.append(names)
        return kernel_call(kernel, *names, **options)

    kernel_call = gpu_kernels.kernel_call
    monkeypatch.setattr(gpu_kernels, "kernel_call", call)
    monkeypatch.setattr(gpu_kernels, "_failed_trial", functools.cache(gpu_kernels._failed_trial.__wrapped__))

    @jax.jit
    def traced(x):  # a trial runs while something else is traced
        assert gpu_kernels._failed_trial(device) is None
        assert gpu_kernels._failed_trial(device) is None
        return x

    with gpu_kernels.interpreted():
        traced(jnp.zeros(2))
    assert len(tried) == 1

    def refuse(*_, **__):
        def run(x):
            raise jax.errors.JaxRuntimeError("INTERNAL: ptxas too old\nmore of it")

        return run

    monkeypatch.setattr(gpu_kernels, "kernel_call", refuse)
    why = gpu_kernels._failed_trial.__wrapped__(device)
    assert why == "cpu refuses the smallest of such kernels (INTERNAL: ptxas too old)"
