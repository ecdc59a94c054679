"""What a core depends on, and what its memory tells."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.cores import Core, make_core
from resetta.experiments.bench.probe_figures import recall
from resetta.experiments.probes.maps import carry_recall, layers, materialise


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
    (found,) = carry_recall(Shift(), {}, x, (0, 3, 4, 7))
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
    (found,) = carry_recall(core, {}, x, (1, 2), reset=every)
    assert found[0] > 0.99
    assert np.isnan(found[1])


class Delays(Core):
    """Layer k holds the input k steps ago; what counts has no layers."""

    features: int = 4
    num_layers: int = 2

    def initial_carry(self, batch, size=None):
        return {"held": jnp.zeros((batch, 2, self.features)), "count": jnp.zeros(batch, jnp.int32)}

    def __call__(self, carry, x, reset):
        held = jnp.concatenate([carry["held"][:, ::-1], x.swapaxes(0, 1)], 1)[:, -1:-3:-1]
        return {"held": held, "count": carry["count"] + x.shape[0]}, x


def test_each_layer_is_read_by_itself():
    x = jax.random.normal(jax.random.key(4), (5, 400, 4))
    whole, first, second = carry_recall(Delays(), {}, x, (0, 1, 2))
    assert (whole[:2] > 0.99).all()
    assert first[0] > 0.99 > 0.3 > abs(first[1])
    assert second[1] > 0.99 > 0.3 > abs(second[0])
    assert (np.abs([whole[2], first[2], second[2]]) < 0.3).all()


@pytest.mark.parametrize("name", ["s5", "gru", "lstm", "attention", "mamba", "fast_weights"])
def test_our_cores_tell_their_layers_apart(name):
    core = make_core(name, features=8, num_layers=3)
    marked = jax.tree.map(
        lambda leaf: leaf + jnp.arange(3.0).reshape(3, *(1,) * (leaf.ndim - 2)) if leaf.ndim > 1 else leaf,
        core.initial_carry(2),
    )
    for k, layer in enumerate(layers(core, marked)):
        assert all((leaf == k).all() for leaf in jax.tree.leaves(layer))
    assert len(layers(core, marked)) == 3
    assert len(layers(core.clone(num_layers=1), core.clone(num_layers=1).initial_carry(2))) == 1


def test_a_stack_has_the_layers_of_its_parts_and_what_says_nothing_of_layers_has_one():
    stack = make_core("stack", features=8, pattern="s5 none lstm", options={"s5": {"num_layers": 2}})
    found = layers(stack, stack.initial_carry(4))
    assert [[leaf.shape[1:] for leaf in jax.tree.leaves(each)] for each in found] == [
        *2 * [[(4,), (4,)]],
        [],
        [(8,), (8,)],
    ]
    assert len(layers(Shift(), Shift().initial_carry(4))) == 1
    x = jax.random.normal(jax.random.key(5), (4, 40, 8))
    params = stack.init(jax.random.key(6), stack.initial_carry(40), x, jnp.zeros((4, 40), bool))
    read = carry_recall(stack, params, x, (0, 1))
    assert np.isnan(read).tolist() == [[False] * 2] * 3 + [[True] * 2] + [[False] * 2]


def test_a_line_is_drawn_for_each_layer():
    def row(label, **maps):
        options = {"probe": "needle", "options": {"length": 4}, "mode": "in_length", "length": 4}
        return {"label": label, **options, "maps": {"delays": [1, 2], **maps}}

    layered = row("s5", recall=[0.5, 0.25], layer_recall=[[0.5, None], [0.25, 0.125], [None, None]])
    before = row("gru", recall=[0.75, None])  # of results from before there were layers
    drawn = recall([layered, before, row("none", recall=None, layer_recall=[])])
    assert drawn is not None
    told = [
        (
            axes.get_title("left"),
            {each.get_label(): list(each.lines[0].get_ydata()) for each in axes.containers},
        )
        for axes in drawn.axes
    ]
    assert told == [
        ("needle @4", {"s5": [0.5, 0.25], "gru": [0.75]}),
        ("s5: needle @4", {"all layers": [0.5, 0.25], "layer 1": [0.5], "layer 2": [0.25, 0.125]}),
    ]
    assert recall([row("none", recall=None)]) is None
