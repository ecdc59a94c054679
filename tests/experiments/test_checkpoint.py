"""Checkpoints hold whatever an environment's state holds."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np

from resetta.experiments.checkpoint import Checkpoints


def test_empty_arrays_come_back(tmp_path):
    state = {"act": jnp.zeros((3, 0)), "x": jnp.arange(3.0), "n": jnp.zeros((0, 2), jnp.int32)}
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(1, state)
        for template in (state, jax.eval_shape(lambda: state)):
            back = checkpoints.restore(template)
            assert back.keys() == state.keys()
            assert all((back[k].shape, back[k].dtype) == (v.shape, v.dtype) for k, v in state.items())
            np.testing.assert_array_equal(back["x"], state["x"])
