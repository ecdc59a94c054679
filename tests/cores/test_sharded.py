"""A core on eight virtual devices against the same on one; run as a script, this file is what they run."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from resetta.cores import gpu_kernels, make_core
from resetta.cores.sharded import by_heads, make_mesh, sequence_scan

FLAGS = {"XLA_FLAGS": f"--xla_force_host_platform_device_count=8 {os.environ.get('XLA_FLAGS', '')}"}
T, B = 32, 4
ATTENTION = {"features": 32, "num_layers": 1, "num_heads": 8, "window": 6}


def drawn(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def resets():
    """At a stretch's first step, at its last, two in one stretch; none in row 1, at the start in row 3."""
    at = np.zeros((T, B), bool)
    at[[8, 15, 20, 22], 0] = at[31, 2] = at[[0, 4], 3] = True
    return jnp.asarray(at)


def scans():
    """`name -> (function of arrays, arrays)`; values and gradients of the recurrence of every kind."""
    u, carry, w = (
        tuple(drawn(s + k, *shape) for k in (0, 1))
        for s, shape in ((0, (T, B, 3)), (2, (B, 3)), (4, (T, B, 3)))
    )
    gains = {
        "real fixed": 0.9 * jnp.tanh(drawn(6, 3)),
        "complex fixed": tuple(0.7 * jnp.tanh(drawn(s, 3)) for s in (7, 8)),
        "complex varying": tuple(0.6 * drawn(s, T, B, 3) for s in (9, 10)),
    }

    def loss(gain, u, carry):
        last, states = sequence_scan(gain, u, resets(), carry)
        total = sum(jnp.sum(a * b) for a, b in zip(w, states, strict=True))
        return total + sum(jnp.sum(jnp.sin(x)) for x in last), states

    def run(gain, u, carry):
        return jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(gain, u, carry)

    return {name: (run, (gain, u, carry)) for name, gain in gains.items()}


def cores():
    """The same of whole cores."""
    made = {
        "s5": (make_core("s5", features=4, num_layers=1), (3,)),
        "conv_s5": (make_core("conv_s5", features=4, num_layers=1, nonlinearity="gelu"), (2, 2, 4)),
        "attention": (make_core("attention", **ATTENTION), (32,)),
        "attention kernels": (make_core("attention", **ATTENTION, attend="kernels"), (32,)),
    }

    def case(core, shape):
        x, carry = drawn(20, T, B, *shape), core.initial_carry(B, *([shape[:2]] if core.spatial else []))
        params = core.init(jax.random.key(0), carry, x[:1], resets()[:1])

        def loss(params, carry, x):
            after, y = core.apply(params, carry, x, resets())
            return jnp.sum(jnp.sin(y)) + sum(jnp.sum(leaf) for leaf in jax.tree.leaves(after)), (after, y)

        def run(params, carry, x):
            return jax.value_and_grad(loss, argnums=(0, 2), has_aux=True)(params, carry, x)

        return run, (params, carry, x)

    return {name: case(*of) for name, of in made.items()}


def error(a, b):
    """The largest difference of two trees, against the largest entry of each leaf."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(jax.device_get(b)), strict=True)
    return max(float(np.max(np.abs(x - y)) / (1e-6 + np.max(np.abs(x)))) for x, y in pairs)


def sharded(mesh, tree):
    """Leaves `[T, B, ...]` shared out over the mesh, the others on every device."""
    whole, shared = NamedSharding(mesh, P()), NamedSharding(mesh, P("sequence", "data"))
    return jax.tree.map(lambda x: jax.device_put(x, shared if x.shape[:2] == (T, B) else whole), tree)


def poisoned():
    """Row 0 is NaN until the step before its reset, in the stretch before or in the same one; row 1 isn't."""
    u = drawn(0, T, B, 3).at[:20, 0].set(jnp.nan)
    gain = jnp.full(3, 0.5)

    def loss(u):
        states = sequence_scan(gain, u, resets().at[:20].set(False), drawn(2, B, 3))[1]
        return jnp.where(jnp.arange(T)[:, None, None] >= 20, states, 0.0).sum(), states

    return jax.grad(loss, has_aux=True), u


def say(text):
    """What an error says."""
    try:
        text()
    except ValueError as error:
        return str(error)


def on_eight_devices():
    found = {}
    of_cores = cores()
    kernels = {"attention kernels": of_cores.pop("attention kernels")}
    for shape, cases in (((2, 4), scans()), ((1, 8), of_cores), ((2, 4), kernels)):
        mesh = make_mesh(*shape)
        for name, (run, arguments) in cases.items():
            alone = jax.device_get(jax.jit(run)(*arguments))
            with jax.set_mesh(mesh):
                traced = jax.jit(run).trace(*sharded(mesh, arguments))
                found[name] = {"kernels": "attention_forward" in str(traced.jaxpr)}
                compiled = traced.lower().compile()
                got = compiled(*jax.device_put(sharded(mesh, arguments), compiled.input_shardings[0]))
            found[name] |= {"error": error(alone, got), "program": compiled.as_text()}
    mesh = make_mesh(2, 4)
    with jax.set_mesh(mesh):
        run, u = poisoned()
        gradient, states = jax.device_get(jax.jit(run)(sharded(mesh, u)))
        found["poisoned"] = {
            "after": bool(np.isfinite(states[20:]).all() and np.isfinite(states[:, 1:]).all()),
            "before": bool(np.isnan(states[:20, 0]).all()),
            "gradient": np.abs(gradient[:20, 0]).max().item(),
        }
        steps = jnp.zeros((30, 4, 3)), jnp.zeros((30, 4), bool), jnp.zeros((4, 3))
        found["stretches"] = say(lambda: sequence_scan(jnp.ones(3), *steps))
        found["heads"] = say(lambda: by_heads(lambda q: q, (jnp.zeros((4, 8, 6, 2)),), ()))
        one_step = jax.jit(lambda u, r, c: sequence_scan(jnp.ones(3), u, r, c)[1])
        step = jnp.zeros((1, 4, 3)), jnp.zeros((1, 4), bool), jnp.zeros((4, 3))
        found["step"] = one_step.lower(*step).compile().as_text()
    return found


@pytest.fixture(scope="module")
def found():
    done = subprocess.run([sys.executable, __file__], env=os.environ | FLAGS, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "name",
    [
        *("real fixed", "complex fixed", "complex varying"),
        *("s5", "conv_s5", "attention", "attention kernels"),
    ],
)
def test_eight_devices_give_the_values_and_gradients_of_one(found, name):
    assert found[name]["error"] < 1e-5
    assert "all-gather" in found[name]["program"] or "all-to-all" in found[name]["program"], (
        "nothing was shared"
    )


def test_each_device_attends_to_its_heads_by_kernels(found):
    assert found["attention kernels"]["kernels"]
    assert not found["attention"]["kernels"]


def test_a_scan_exchanges_the_ends_of_stretches_and_nothing_longer(found):
    lines = [x for x in found["s5"]["program"].splitlines() if " all-gather(" in x or " all-to-all(" in x]
    assert lines
    assert not [x for x in lines if f"[{T}," in x.split("=")[1] or f",{T}," in x.split("=")[1]]


def test_a_reset_hides_what_came_from_another_device(found):
    assert found["poisoned"] == {"after": True, "before": True, "gradient": 0.0}


def test_a_step_is_a_step_on_a_mesh_too(found):
    assert "while" not in found["step"]
    assert "all-gather" not in found["step"]


def test_what_does_not_divide_is_said_with_its_cure(found):
    assert found["stretches"] == "30 steps cannot be cut into mesh.sequence=4 equal stretches; use 28 or 32"
    assert found["heads"] == "num_heads=6 cannot be shared out over mesh.sequence=4; use num_heads=8"


def test_too_few_devices_are_said_with_their_cure():
    need = 2 * jax.device_count()
    with pytest.raises(ValueError, match=f"needs {need} devices and there are {need // 2}"):
        make_mesh(need)


if __name__ == "__main__":
    with gpu_kernels.interpreted():
        print(json.dumps(on_eight_devices()))
