"""What is packed side by side comes out as it went in."""

import jax
import jax.numpy as jnp
import numpy as np

from resetta.agents.pack import pack, unpack


def step(t):
    row = jnp.arange(3.0) + 10 * t
    return {
        "flag": row > 11,
        "pixels": jnp.arange(24.0).reshape(3, 2, 4) * t,
        "number": row,
        "half": (row / 7).astype(jnp.bfloat16),
        "action": -row.astype(jnp.int32),  # whose bits are those of a NaN
        "other_flag": row < 11,
    }


def test_unpacking_undoes_packing_for_every_shape_and_dtype():
    stacked = jax.vmap(step)(jnp.arange(5))
    packed = jax.lax.scan(lambda _, t: (None, pack(step(t))), None, jnp.arange(5))[1]
    assert (packed.shape, packed.dtype.name) == ((5, 3, 13), "float32")
    found = unpack(packed, step(0))
    assert found.keys() == stacked.keys()
    for name, leaf in stacked.items():
        assert found[name].dtype == leaf.dtype
        np.testing.assert_array_equal(found[name], leaf)
