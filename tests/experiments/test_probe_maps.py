"""What a core depends on, and what its memory tells."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.cores import Core, make_core
from resetta.experiments.probes.maps import carry_recall, materialise


class Shift(Core):
    """Remembers the last four inputs as they are."""

    features: int = 4

    def initial_carry(self, batch, size=None):
        return jnp.zeros((batch, 4, self.features)), jnp.zeros(batch, jnp.int32)

    def __call__(self, carry, x, reset):
        kept, count = carry
        return (jnp.concatenate([kept, x.swapaxes(0, 1)], 1)[:, -4:], count + x.shape[0]), 3 * x


@pytest.mark.parametrize("name", ["gru", "s5"])
def test_a_mixing_map_is_causal_and_ends_at_a_reset(name):
    core = make_core(name, features=8, num_layers=1)
    x = jax.random.normal(jax.random.key(0), (6, 8))
    reset = jnp.arange(6) == 3
    params = core.init(jax.random.key(1), core.initial_carry(1), x[:, None], reset[:, None])
    found = materialise(core, params, x, reset)
    assert (found[np.triu_indices(6, 1)] <= 1e-6).all()
    assert (found[3:, :3] == 0).all()
    assert (found[:3, :3][np.tril_indices(3)] > 1e-4).all()
    assert (found[3:, 3:][np.tril_indices(3)] > 1e-4).all()


def test_a_mixing_map_is_the_jacobians_norm():
    found = materialise(Shift(), {}, jnp.ones((3, 4)), jnp.zeros(3, bool))
    np.testing.assert_allclose(found, np.eye(3) * 3 * 2)  # four entries of 3


def test_what_a_carry_holds_can_be_read_and_what_it_lost_cannot():
    x = jax.random.normal(jax.random.key(2), (8, 400, 4))
    found = carry_recall(Shift(), {}, x, (0, 3, 4, 7))
    assert (found[:2] > 0.99).all()
    assert (np.abs(found[2:]) < 0.3).all()
    few = carry_recall(Shift(), {}, x[:, :20], (0, 3))  # fewer rows than entries: the same reading
    assert (few > 0.5).all()
    assert np.isnan(carry_recall(Shift(), {}, x.at[5].set(1.0), (2,))).all()  # nothing to tell apart
    with pytest.raises(ValueError, match=r"delays=\(8,\) must lie between 0 and 7"):
        carry_recall(Shift(), {}, x, (8,))
    none = make_core("none", features=4, num_layers=1)
    params = none.init(jax.random.key(0), (), x, jnp.zeros((8, 400), bool))
    with pytest.raises(ValueError, match="Memoryless has no memory"):
        carry_recall(none, params, x, (1,))


class ClearedShift(Shift):
    """A `Shift` that a reset empties."""

    def __call__(self, carry, x, reset):
        begun = x.shape[0] - 1 - reset[::-1].argmax(0)
        old = jnp.arange(x.shape[0])[:, None] < begun
        return super().__call__(carry, jnp.where(old[..., None], 0.0, x), reset)


def test_what_lies_before_a_reset_is_asked_of_no_row():
    x = jax.random.normal(jax.random.key(3), (8, 400, 4))
    reset = (
        jnp.zeros((8, 400), bool).at[6, :200].set(True).at[6, -1].set(True)
    )  # the last row: not in one half
    core = ClearedShift()
    whole = carry_recall(core, {}, x, (0, 1, 3), reset=reset)
    assert (whole > 0.99).all()  # of the rows that still can have it
    every = jnp.zeros((8, 400), bool).at[6].set(True)
    found = carry_recall(core, {}, x, (1, 2), reset=every)
    assert found[0] > 0.99
    assert np.isnan(found[1])
