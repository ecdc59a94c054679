"""Stack: parts in order, each with its own carry and options."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from resetta.cores import make_core

T, B = 4, 2


def _run(core, size=()):
    x = np.random.default_rng(0).normal(size=(T, B, *size, 5)).astype(np.float32)
    reset = np.zeros((T, B), bool)
    carry = core.initial_carry(B, size or None)
    params = jax.jit(core.init)(jax.random.key(0), carry, x, reset)
    return params, carry, x, reset, jax.jit(core.apply)(params, carry, x, reset)


def test_a_stack_is_its_parts_in_order():
    core = make_core(
        "stack",
        pattern="gru none attention gru",
        features=8,
        options={"attention": {"window": 3, "num_heads": 2}},
    )
    params, carry, y, reset, (after, out) = _run(core)
    assert [jax.tree.map(np.shape, c) for c in carry] == [
        (B, 1, 8),
        (),
        {"key": (B, 1, 3, 8), "value": (B, 1, 3, 8), "position": (B,)},
        (B, 1, 8),
    ]
    for index, (name, options) in enumerate(
        [("gru", {}), ("none", {}), ("attention", {"window": 3, "num_heads": 2}), ("gru", {})]
    ):
        part = make_core(name, features=8, num_layers=1, **options)
        own = {"params": params["params"][f"parts_{index}"]}
        part_after, y = jax.jit(part.apply)(own, carry[index], y, reset)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), part_after, after[index])
    np.testing.assert_allclose(y, out, atol=1e-6)


def test_a_stack_of_spatial_parts_is_spatial():
    core = make_core("stack", pattern="conv_s5 conv_s5", features=4)
    assert core.spatial
    *_, (carry, y) = _run(core, (3, 2))
    assert len(carry) == 2
    assert y.shape == (T, B, 3, 2, 4)
    with pytest.raises(TypeError):
        core.initial_carry(B)


def test_a_stack_lives_inside_another_module():
    class Agent(nn.Module):
        @nn.compact
        def __call__(self, x, reset):
            core = make_core("stack", pattern="gru none", features=8)
            return core(core.initial_carry(B), x, reset)[1]

    x, reset = np.zeros((T, B, 5), np.float32), np.zeros((T, B), bool)
    params = Agent().init(jax.random.key(0), x, reset)["params"]
    # Only the stack is there: its parts did not register with the module around it.
    assert set(params) == {"Stack_0"}
    assert set(params["Stack_0"]) == {"parts_0", "parts_1"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pattern": "gru conv_s5"}, r"mixes spatial parts \(conv_s5\) with vector parts"),
        ({"pattern": "gru lsmt"}, "unknown core 'lsmt' .did you mean 'lstm'"),
        ({"pattern": " "}, "names no part"),
        ({"pattern": "gru", "num_layers": 2}, "has no option 'num_layers'"),
        (
            {"pattern": "gru", "options": {"gru": {"unrol": 2}}},
            "has no option 'unrol' .did you mean 'unroll'",
        ),
        ({"pattern": "gru", "options": {"lstm": {}}}, "'lstm', which is not in pattern='gru'"),
        ({"pattern": "attention", "features": 6}, "features=6 cannot be cut into num_heads=4"),
        ({}, "needs the option 'pattern'"),
    ],
)
def test_errors_say_what_to_do(options, message):
    with pytest.raises(ValueError, match=message):
        make_core("stack", **options)
