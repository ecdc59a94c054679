"""Task ids: the same content wherever derived, and no content shared between splits."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.envs import SPLITS, TaskFamily, make_env
from resetta.envs.tasks import evaluation_ids

PROJECTED = {"projection": "orthogonal", "permute_actions": True}


def family(
    name="cartpole_catch", *, projection="none", permute_actions=False, width=None, actions=None, **rest
):
    base = make_env(name)
    return TaskFamily(
        base,
        projection,
        permute_actions,
        width or base.observation_shape[0],
        actions or base.action.size,
        **rest,
    )


def contents(family, ids):
    """A hash of everything a task is made of, but for its id."""
    tasks = jax.device_get(jax.jit(jax.vmap(family.make))(jnp.asarray(ids)))
    parts = (tasks.params, tasks.observation_matrix, tasks.action_matrix, tasks.action_table)
    leaves = [np.broadcast_to(leaf, (len(ids), *np.shape(leaf)[1:])) for leaf in jax.tree.leaves(parts)]
    return [
        hashlib.sha256(b"".join(np.ascontiguousarray(x[i]).tobytes() for x in leaves)).hexdigest()
        for i in range(len(ids))
    ]


ENDLESS = [
    family(**PROJECTED),
    family("point_mass", projection="orthogonal", width=6, actions=4),
    family(physics={"length": (0.3, 0.8), "gravity": (8.0, 12.0)}),
    family("bernoulli_bandit"),
    family(projection="words", permute_actions=True),
]


@pytest.mark.parametrize("tasks", ENDLESS, ids=lambda f: f"{f.base.name}-{f.projection}-{len(f.physics)}")
def test_splits_share_no_content(tasks):
    hashes = {split: contents(tasks, evaluation_ids(tasks, split, 500)) for split in SPLITS}
    assert all(len(set(h)) == 500 for h in hashes.values()), "two ids of one split are the same task"
    assert not set(hashes["train"]) & set(hashes["validation"])
    assert not set(hashes["train"]) & set(hashes["held_out"])
    assert not set(hashes["validation"]) & set(hashes["held_out"])


@pytest.mark.parametrize(
    ("tasks", "size"),
    [
        (family("dark_room"), 81),
        (family("dark_room", permute_actions=True), 81 * 120),
        (family(permute_actions=True), 2),
        (family(projection="words", permute_actions=True, word_generators=2, word_length=3), 36 * 2),
    ],
    ids=["goals", "goals and permutations", "a swap of two actions", "words of three letters and a swap"],
)
def test_a_finite_family_splits_its_enumeration(tasks, size):
    assert tasks.size == size
    splits = [split for split in SPLITS if size > 2 or split != "validation"]
    ids = {split: tasks.ids(split) for split in splits}
    assert sum(len(r) for r in ids.values()) == size
    every = {split: set(contents(tasks, list(r))) for split, r in ids.items()}
    assert sum(len(h) for h in every.values()) == size == len(set().union(*every.values()))


def test_words_that_begin_alike_are_the_familys_tree():
    """Every projection is a product of the family's own matrices: those of one letter, over again."""
    letters, words = (
        jax.device_get(jax.vmap(each.make)(jnp.arange(each.size)).observation_matrix)
        for each in (family(projection="words", word_generators=2, word_length=k) for k in (1, 2))
    )
    assert (len(letters), len(words)) == (4, 12)
    np.testing.assert_allclose(letters @ letters.swapaxes(1, 2), np.tile(np.eye(4), (4, 1, 1)), atol=1e-5)
    products = {(i, j): a @ b for i, a in enumerate(letters) for j, b in enumerate(letters)}
    for word in words:
        assert min(np.abs(word - product).max() for product in products.values()) < 1e-5


def test_too_small_a_family_says_so():
    with pytest.raises(ValueError, match="too few for a validation split"):
        family(permute_actions=True).ids("validation")


def test_a_single_task_is_the_same_in_every_split():
    tasks = family("repeat_previous_easy")
    assert tasks.size == 1
    assert all(list(tasks.ids(split)) == [0] for split in SPLITS)
    assert evaluation_ids(tasks, "held_out", 3).tolist() == [0, 0, 0]


def test_held_out_physics_lies_in_its_own_range():
    tasks = family(physics={"length": (0.4, 0.6)}, held_out_physics={"length": (0.8, 1.0)})
    make = jax.jit(jax.vmap(tasks.make))
    lengths = {split: np.asarray(make(evaluation_ids(tasks, split, 100)).params.length) for split in SPLITS}
    assert 0.4 <= lengths["train"].min() < lengths["train"].max() <= 0.6
    assert 0.4 <= lengths["validation"].min() < lengths["validation"].max() <= 0.6
    assert 0.8 <= lengths["held_out"].min() < lengths["held_out"].max() <= 1.0


def test_derived_physics_follows():
    """gymnax's CartPole stores masscart + masspole: a new pole must change it too."""
    tasks = family(physics={"masspole": (0.2, 0.4)})
    params = jax.jit(tasks.make)(7).params
    np.testing.assert_allclose(params.total_mass, params.masscart + params.masspole, rtol=1e-6)
    np.testing.assert_allclose(params.polemass_length, params.masspole * params.length, rtol=1e-6)


def test_content_does_not_depend_on_how_it_is_derived():
    tasks = family(**PROJECTED)
    alone = jax.jit(tasks.make)(11)
    batch = jax.jit(jax.vmap(tasks.make))(jnp.arange(9, 13))
    np.testing.assert_allclose(alone.observation_matrix, batch.observation_matrix[2], atol=1e-6)
    np.testing.assert_array_equal(alone.action_table, batch.action_table[2])


def test_surplus_actions_repeat_valid_ones():
    table = jax.jit(family(permute_actions=True, projection="orthogonal", actions=5).make)(3).action_table
    assert sorted(set(table.tolist())) == [0, 1]
    assert table.tolist() == [table[0], table[1]] * 2 + [table[0]]


def test_train_tasks_limits_training_alone():
    tasks = family(**PROJECTED, train_tasks=10)
    assert len(tasks.ids("train")) == 10
    assert len(tasks.ids("held_out")) > 10**6


def test_unknown_split():
    with pytest.raises(ValueError, match="unknown split 'test'"):
        family().ids("test")
