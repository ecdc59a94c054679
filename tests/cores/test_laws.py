"""Every registered core, with every option that changes what it computes, obeys the ten laws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resetta.cores import core_names, make_core
from resetta.testing import check_core, check_learning

STACK = {"pattern": "s5 attention", "options": {"attention": {"window": 5}}}

# Engines are compared (law 9, which compiles every engine) once per scan core; here by name, but for the
# sequential one, which the other cases run on a CPU.
CASES = [
    ("gru", {}),
    ("gru", {"num_layers": 3, "unroll": 2, "layer_norm": True}),
    ("lstm", {}),
    ("lstm", {"num_layers": 2, "unroll": 3, "layer_norm": True}),
    ("none", {}),
    ("none", {"num_layers": 1, "glu": False}),
    ("attention", {"window": 1, "num_layers": 1}),
    ("attention", {"window": 3, "num_layers": 1, "num_heads": 1, "glu": False}),  # T is four windows
    ("attention", {"window": 5}),  # neither T nor the chunks are multiples of it
    ("attention", {"window": 64, "num_layers": 1, "num_heads": 2}),  # longer than anything here
    ("stack", STACK),
    ("stack", {"pattern": "none lstm none"}),
    ("s5", {}),
    ("s5", {"gate": "full_glu", "norm": "none"}),
    ("s5", {"gate": "input", "prenorm": False}),
    ("s5", {"gate": "gelu", "feedthrough": False}),
    ("s5", {"gate": "none", "num_layers": 1, "engine": "associative", "norm_states": True}),
    ("s5", {"engine": "paper", "num_layers": 1}),
    (
        "mamba",
        {"conv": 3, "state_size": 2, "num_layers": 1},
    ),  # chunks shorter than the convolution, and longer
    ("mamba", {"select_step": False, "gate": "none", "num_layers": 1, "state_size": 2, "expand": 2}),
    ("fast_weights", {"num_heads": 2}),
    ("conv_s5", {"num_layers": 1}),
    ("conv_lstm", {}),
    # neither T nor the chunks are multiples of the window
    ("frame_attention", {"num_heads": 1, "window": 5, "decay": 1.0, "slopes": "geometric"}),
    ("frame_attention", {"num_heads": 1, "window": 1, "num_layers": 1}),
    ("frame_attention", {"num_heads": 1, "window": 64, "num_layers": 1, "decay": 0.1, "remat": True}),
    ("conv_lstm", {"num_layers": 1, "nonlinearity": "none", "remat": True, "unroll": 2}),
]


def _name(case):
    name, options = case
    return "-".join([name, *(f"{k}={v}" for k, v in options.items())])


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_laws(case):
    name, options = case
    findings = check_core(make_core(name, features=8, **options), width=5, size=(2, 3), exempt=(9,))
    assert not findings, [str(f) for f in findings]


@pytest.mark.parametrize("name", ["s5", "mamba", "conv_s5"])
def test_engines_agree(name):
    findings = check_core(make_core(name, features=8, num_layers=1), width=5, exempt=range(1, 9))
    assert not findings, [str(f) for f in findings]


def test_every_core_is_here():
    assert {name for name, _ in CASES} == set(core_names())


# --- laws 1 to 3 again, on whatever hypothesis thinks of ----------------------------------------------------

T, B, PIECES = 12, 2, (5, 1)


@functools.cache
def _compiled(name, options):
    core = make_core(name, features=8, **dict(options))
    size = ((2, 2),) if core.spatial else ()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(T, B, *((2, 2) if core.spatial else ()), 5)).astype(np.float32)
    empty = core.initial_carry(B, *size)
    apply = jax.jit(core.apply)
    params = jax.jit(core.init)(jax.random.key(1), empty, x, np.zeros((T, B), bool))
    return apply, params, empty, x


def _run(compiled, x, reset, lengths):
    apply, params, carry, _ = compiled
    outputs, start = [], 0
    for length in lengths:
        carry, y = apply(params, carry, x[start : start + length], reset[start : start + length])
        outputs.append(np.asarray(y))
        start += length
    return np.concatenate(outputs)


resets = st.lists(st.booleans(), min_size=T * B, max_size=T * B).map(lambda r: np.array(r).reshape(T, B))


@st.composite
def splits(draw):
    """T as a sum of a few lengths, each of which compiles once."""
    lengths, left = [], T
    while left:
        lengths.append(draw(st.sampled_from([p for p in PIECES if p <= left])))
        left -= lengths[-1]
    return lengths


PROPERTY_CASES = [
    ("s5", ()),
    ("conv_s5", (("num_layers", 1),)),
    ("gru", ()),
    ("lstm", ()),
    ("attention", (("window", 4),)),
    ("none", ()),
    ("stack", (("pattern", "gru attention"),)),
]


@pytest.mark.parametrize("case", PROPERTY_CASES, ids=lambda case: case[0])
@given(reset=resets, lengths=splits())
def test_any_split_of_any_resets(case, reset, lengths):
    compiled = _compiled(*case)
    x = compiled[-1]
    whole = _run(compiled, x, reset, (T,))
    np.testing.assert_allclose(_run(compiled, x, reset, lengths), whole, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("case", PROPERTY_CASES, ids=lambda case: case[0])
@given(reset=resets, start=st.integers(0, T - 1))
def test_a_reset_is_a_fresh_start(case, reset, start):
    compiled = _compiled(*case)
    x = compiled[-1]
    reset[start] = True
    y = _run(compiled, x, reset, (T,))
    # The same inputs moved to the front of a new run; what follows them is of no matter.
    moved, again = np.roll(x, -start, axis=0), np.roll(reset, -start, axis=0)
    again[0] = False
    fresh = _run(compiled, moved, again, (T,))
    np.testing.assert_allclose(y[start:], fresh[: T - start], rtol=1e-4, atol=2e-5)


# --- law 10 -------------------------------------------------------------------------------------------------

LEARNERS = [
    ("s5", {}),
    ("mamba", {"num_layers": 1}),
    ("conv_s5", {"num_layers": 1}),
    ("conv_lstm", {}),
    ("frame_attention", {"num_heads": 1, "window": 64, "num_layers": 1, "decay": 0.1, "remat": True}),
    ("conv_lstm", {"num_layers": 1, "nonlinearity": "none", "remat": True, "unroll": 2}),
    ("gru", {}),
    ("lstm", {}),
    ("fast_weights", {"num_layers": 1}),
    ("attention", {"window": 16, "num_layers": 1}),
    ("stack", {"pattern": "none gru"}),
]


@pytest.mark.parametrize("case", LEARNERS, ids=_name)
def test_a_memory_learns_to_recall(case):
    name, options = case
    # its gates alone, on a plane of one pixel: two layers of convolutions are slow to train
    size = (1, 1) if case == ("conv_lstm", {}) else (2, 2)
    findings = check_learning(make_core(name, features=16, **options), size=size)
    assert not findings, [str(f) for f in findings]


def test_a_core_without_memory_cannot_recall():
    (finding,) = check_learning(make_core("none", features=16))
    assert "below 0.9" in str(finding)


def test_a_window_shorter_than_the_delay_cannot_recall():
    # Two layers of window 4 reach back 6 steps.
    (finding,) = check_learning(make_core("attention", features=16, window=4), delay=10)
    assert "below 0.9" in str(finding)


def test_every_core_learns_or_has_no_memory():
    assert {name for name, _ in LEARNERS} | {"none"} == set(core_names())


@pytest.mark.parametrize(
    "case",
    [
        ("conv_s5", {}),
        ("conv_lstm", {}),
        ("frame_attention", {"num_heads": 1, "window": 4}),
        ("s5", {}),
        ("mamba", {}),
        ("attention", {"window": 4}),
        ("fast_weights", {}),
    ],
    ids=_name,
)
def test_recomputing_layers_saves_memory_and_changes_nothing(case):
    name, options = case
    size = (4, 4) if make_core(name, features=16).spatial else None
    x = jax.random.normal(jax.random.key(0), (24, 2, *(size or ()), 16))
    reset = jnp.zeros((24, 2), bool).at[7, 1].set(True)
    planned, gradients = [], []
    for remat in (False, True):
        core = make_core(name, features=16, num_layers=4, remat=remat, **options)
        carry = core.initial_carry(2, size)
        if not remat:  # the parameters are the same ones
            params = jax.jit(core.init)(jax.random.key(1), carry, x, reset)

        def loss(params, core=core, carry=carry):
            return jnp.mean(core.apply(params, carry, x, reset)[1] ** 2)

        compiled = jax.jit(jax.grad(loss)).lower(params).compile()
        planned.append(compiled.memory_analysis().temp_size_in_bytes)
        gradients.append(compiled(params))
    assert planned[1] < 0.5 * planned[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *gradients)


def test_programs_do_not_grow_with_depth():
    def size(name, depth):
        core = make_core(name, features=16, num_layers=depth)
        size = (4, 4) if core.spatial else None
        carry, x = core.initial_carry(2, size), jnp.zeros((6, 2, *(size or ()), 16))
        reset = jnp.zeros((6, 2), bool)
        params = jax.eval_shape(core.init, jax.random.key(0), carry, x, reset)
        return len(str(jax.make_jaxpr(core.apply)(params, carry, x, reset)).splitlines())

    scanned = ("s5", "conv_s5", "mamba", "conv_lstm", "frame_attention", "attention", "fast_weights")
    sizes = {name: (size(name, 5), size(name, 16)) for name in scanned}
    assert all(deep <= 1.1 * shallow for shallow, deep in sizes.values()), sizes
