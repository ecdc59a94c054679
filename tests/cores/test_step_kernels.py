import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.cores import gpu_kernels, make_core, scan, ssm, step_kernels
from resetta.cores.step_kernels import Blocks

ROWS, FEATURES = 32, 32


@pytest.fixture(autouse=True)
def interpreter(monkeypatch):
    """The kernels themselves, run by Pallas' interpreter, in several tiles along every axis."""
    monkeypatch.setattr(step_kernels, "default_blocks", lambda rows: Blocks(16, 16, 16, 4, 1))
    with gpu_kernels.interpreted():
        yield


def example(core, dtype=jnp.float32, seed=0):
    """Parameters, a carry that is NaN where a reset discards it, inputs and resets of one step."""
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.normal(size=(1, ROWS, FEATURES)), dtype)
    reset = jnp.asarray(rng.random((1, ROWS)) < 0.3)
    empty = core.initial_carry(ROWS)
    carry = jax.tree.map(
        lambda c: jnp.where(reset[0][:, None, None], jnp.nan, rng.normal(size=c.shape)), empty
    )
    shapes = jax.eval_shape(core.init, jax.random.key(0), empty, x, reset)["params"]
    params = jax.tree.map(lambda s: jnp.asarray(0.3 * rng.normal(size=s.shape), jnp.float32), shapes)
    params["states"] = ssm.DiscreteStates(core.space, core.num_layers).init(jax.random.key(0))["params"]
    return {"params": params}, carry, x, reset


def both(**options):
    """The core that steps by kernels, and the plain one."""
    return tuple(make_core("s5", features=FEATURES, step=step, **options) for step in ("kernels", "plain"))


def check_close(got, wanted, tolerance):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert a.dtype == b.dtype
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, atol=tolerance * max(1.0, np.abs(b).max()))


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        ({"num_layers": 2, "gate": "half_glu"}, jnp.float32),
        ({"num_layers": 1, "gate": "half_glu"}, jnp.bfloat16),
        ({"num_layers": 1, "gate": "full_glu", "norm": "none", "feedthrough": False}, jnp.float32),
        ({"num_layers": 1, "gate": "input", "conj_sym": False}, jnp.float32),
        ({"num_layers": 1, "gate": "gelu", "norm": "none"}, jnp.float32),
        ({"num_layers": 1, "gate": "none", "discretization": "bilinear"}, jnp.float32),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else value.__name__,
)
def test_the_kernels_step_as_the_plain_step_does(options, dtype):
    kernels, plain = both(**options)
    inputs = example(plain, dtype)
    assert "step_states" in str(jax.make_jaxpr(kernels.apply)(*inputs))
    got, wanted = jax.jit(kernels.apply)(*inputs), jax.jit(plain.apply)(*inputs)
    assert np.isfinite(np.asarray(got[1], np.float32)).all()
    check_close(got, wanted, 3e-2 if dtype == jnp.bfloat16 else 1e-5)


def test_gradients_are_those_of_the_plain_step():
    kernels, plain = both(num_layers=1)
    params, carry, x, reset = example(plain)

    def gradient(core):
        def loss(params, carry, x):
            (re, im), y = core.apply(params, carry, x, reset)
            return jnp.sum(y**2) + jnp.sum(re * im)

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(params, carry, x)

    check_close(gradient(kernels), gradient(plain), 1e-4)


def test_several_agents_step_at_once():
    kernels, plain = both(num_layers=1, gate="gelu")
    inputs = [jax.tree.map(lambda *x: jnp.stack(x), *(example(plain, seed=seed) for seed in (0, 1)))]
    got, wanted = (jax.jit(jax.vmap(core.apply))(*inputs[0]) for core in (kernels, plain))
    check_close(got, wanted, 1e-5)


@pytest.mark.parametrize(
    ("options", "rows", "length", "why"),
    [
        ({}, ROWS + 1, 1, "it needs a multiple of 16 rows and there are 33"),
        ({"norm_states": True}, ROWS, 1, "it is written for prenorm=True and norm_states=False"),
        ({"features": 48}, ROWS, 1, "it needs a power of 2 as features, 16 or more, and there are 48"),
        ({}, ROWS, 2, None),  # a sequence: there is nothing to say
        ({"step": None}, ROWS, 1, None),  # not the default
    ],
)
def test_elsewhere_the_plain_step_runs(options, rows, length, why, caplog):
    core = make_core("s5", **{"features": FEATURES, "num_layers": 1, "step": "kernels", **options})
    x, reset = jnp.zeros((length, rows, core.features)), jnp.zeros((length, rows), bool)
    carry = core.initial_carry(rows)
    params = jax.eval_shape(core.init, jax.random.key(0), carry, x, reset)
    scan.say_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        program = str(jax.make_jaxpr(core.apply)(params, carry, x, reset))
    assert "step_states" not in program
    assert caplog.messages == (
        [] if why is None else [f"step='kernels' cannot run here: {why}; 'plain' runs instead"]
    )


def test_all_kernels_lower_for_a_gpu(monkeypatch):
    monkeypatch.setattr(gpu_kernels, "_interpreted", False)
    monkeypatch.setattr(gpu_kernels, "obstacle", lambda: None)
    jax.clear_caches()  # what was traced outside is interpreted
    kernels, plain = both(num_layers=1)
    lowered = jax.jit(kernels.apply).trace(*example(plain)).lower(lowering_platforms=("cuda",))
    for name in ("step_states", "step_outputs", "step_gate"):
        assert name in lowered.as_text()


def test_an_unknown_step_is_an_error():
    with pytest.raises(ValueError, match="unknown step 'fast'; choose from plain, kernels"):
        make_core("s5", step="fast")
