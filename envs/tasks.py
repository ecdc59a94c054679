"""Tasks as integers: what a task id means, and splits that share no task.

A task is (base environment, physics, observation matrix, action matrix, permutation), all derived from one
integer by `fold_in`. Ids of different splits come from disjoint ranges. Where a family of tasks is finite
(a permutation of actions alone, Dark Room's goals) its *enumeration* is split, so that no content is shared.
"""

import dataclasses
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from .base import BaseEnv, Discrete
from .projection import (
    nth_permutation,
    nth_word,
    permutation_count,
    random_orthonormal,
    scattered,
    word_count,
    word_matrix,
)

SPLITS = ("train", "validation", "held_out")
_RANGE = 2**28  # ids per split of an endless family
_ENDLESS = 2**30  # above the ids of all splits
_SHARES = {"train": 0.7, "validation": 0.1, "held_out": 0.2}  # of a finite family


class Task(struct.PyTreeNode):
    """The content of one task, derived from its id."""

    id: Int[Array, ""]
    params: Any
    observation_matrix: Float[Array, "W D"] | None
    action_matrix: Float[Array, "A_env A"] | None
    action_table: Int[Array, " N"] | None


@dataclasses.dataclass(frozen=True)
class TaskFamily:
    """The tasks that can be made of one base environment.

    `observation_width` and `action_width` are the agent's; `physics` maps parameters to (low, high), and
    `held_out_physics` replaces it for held-out tasks. `projection` is `none`, `orthogonal`, or `words`:
    observations are projected by reduced words of `word_length` letters over `word_generators` orthogonal
    matrices, which are the family's own; actions as with `orthogonal`. Entries of the base environment's
    observation are divided by `observation_rms`, one number each, before they are projected.
    """

    base: BaseEnv
    projection: str
    permute_actions: bool
    observation_width: int
    action_width: int
    physics: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    held_out_physics: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    train_tasks: int | None = None
    word_generators: int = 4
    word_length: int = 12
    observation_rms: tuple[float, ...] | None = None

    @property
    def continuous(self) -> bool:
        """Whether a task holds real-valued content, or words enough: distinct ids are distinct tasks."""
        drawn = self._projected and (self.projection != "words" or self._words >= _ENDLESS)
        actions = self.projection == "words" and not isinstance(self.base.action, Discrete)
        return drawn or actions or bool(self.physics) or hasattr(self.base.env, "task_params")

    @property
    def size(self) -> int | None:
        """How many tasks there are; None for an endless family."""
        return None if self.continuous else self._words * self._permutations * self._indexed

    @property
    def _projected(self) -> bool:
        """Whether observations are projected; pixels never are."""
        return self.projection != "none" and not self.base.pixels

    @property
    def _permutations(self) -> int:
        action = self.base.action
        return permutation_count(action.size) if self.permute_actions and isinstance(action, Discrete) else 1

    @property
    def _words(self) -> int:
        words = self._projected and self.projection == "words"
        return min(word_count(self.word_generators, self.word_length), _ENDLESS) if words else 1

    @property
    def _indexed(self) -> int:
        return int(getattr(self.base.env, "num_tasks", 1))

    def ids(self, split: str) -> range:
        """The ids of a split. A family of a single task has the same one in every split."""
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}; choose from {', '.join(SPLITS)}")
        if self.size is None:
            start = SPLITS.index(split) * _RANGE
            count = self.train_tasks if split == "train" and self.train_tasks else _RANGE
            return range(start, start + min(count, _RANGE))
        if self.size == 1:
            return range(1)
        held_out = max(1, round(self.size * _SHARES["held_out"]))
        validation = round(self.size * _SHARES["validation"]) if self.size > 2 else 0
        train = self.size - held_out - validation
        bounds = {
            "train": (0, min(train, self.train_tasks or train)),
            "validation": (train, train + validation),
            "held_out": (train + validation, self.size),
        }[split]
        if bounds[0] == bounds[1]:
            raise ValueError(f"{self.base.name} has {self.size} tasks: too few for a {split} split")
        return range(*bounds)

    def make(self, task_id: Int[Array, ""]) -> Task:
        """The content of task `task_id`; traceable, and the same wherever and whenever it is derived."""
        # The family's name is part of the key: lanes with equal ids still hold unrelated matrices.
        seed = zlib.crc32(f"task family {self.base.name}".encode()) & 0x7FFFFFFF
        key = jax.random.fold_in(jax.random.key(seed), task_id)
        key_o, key_a, key_p, key_f, key_physics = jax.random.split(key, 5)
        if self.size is None:
            permutation_index = jax.random.randint(key_p, (), 0, self._permutations)
            index = jax.random.randint(key_f, (), 0, self._indexed)
            word_index = scattered(task_id, _ENDLESS) % self._words
        else:
            position = self._shuffled(task_id)
            position, index = position // self._indexed, position % self._indexed
            word_index, permutation_index = position // self._permutations, position % self._permutations
        action = self.base.action
        observation_matrix = action_matrix = action_table = None
        if self._projected:
            shape = self.observation_width, self.base.observation_shape[0]
            if self.projection == "words":
                observation_matrix = self._word_matrix(jax.random.key(seed), word_index, key_o, shape)
            else:
                observation_matrix = random_orthonormal(key_o, *shape)
            if self.observation_rms is not None:
                observation_matrix = observation_matrix / jnp.asarray(self.observation_rms, jnp.float32)
        if isinstance(action, Discrete):
            own = jnp.arange(action.size, dtype=jnp.int32)
            if self.permute_actions:
                own = nth_permutation(permutation_index, action.size)
            action_table = own[
                np.arange(self.action_width) % action.size
            ]  # surplus actions repeat valid ones
        elif self.projection != "none":
            action_matrix = random_orthonormal(key_a, action.size, self.action_width)
            # orthonormal rows, unscaled: unit-variance actions stay unit-variance
            action_matrix = action_matrix * min(1.0, np.sqrt(action.size / self.action_width))
        return Task(
            id=jnp.asarray(task_id, jnp.int32),
            params=self._params(task_id, index, key_f, key_physics),
            observation_matrix=observation_matrix,
            action_matrix=action_matrix,
            action_table=action_table,
        )

    def _word_matrix(self, key: Array, index: Array, key_rest: Array, shape: tuple[int, int]) -> Array:
        size = max(shape)
        # 2^30 is no task's id
        keys = jax.random.split(jax.random.fold_in(key, _ENDLESS), self.word_generators)
        generators = jax.vmap(lambda each: random_orthonormal(each, size, size))(keys)
        word = nth_word(index, self.word_generators, self.word_length, key_rest)
        return word_matrix(word, generators, *shape)

    def _params(self, task_id: Array, index: Array, key: Array, key_physics: Array) -> Any:
        env: Any = self.base.env
        params = self.base.params
        if hasattr(env, "indexed_task_params"):
            params = env.indexed_task_params(index, params)
        if hasattr(env, "task_params"):
            params = env.task_params(key, params)
        if self.physics:
            held_out = task_id >= SPLITS.index("held_out") * _RANGE
            drawn = {}
            for i, (name, bounds) in enumerate(sorted(self.physics.items())):
                low, high = np.asarray(bounds, np.float32)
                out_low, out_high = np.asarray(self.held_out_physics.get(name, bounds), np.float32)
                u = jax.random.uniform(jax.random.fold_in(key_physics, i))
                drawn[name] = jnp.where(held_out, out_low + u * (out_high - out_low), low + u * (high - low))
            params = self.base.with_physics(params, drawn)
        return params

    def _shuffled(self, task_id: Array) -> Array:
        """The enumeration in a fixed random order, so that a split is no corner of the family."""
        assert self.size is not None
        if self.size > 100_000:  # too long a table
            return scattered(task_id, self.size) if self.size <= _ENDLESS else task_id
        order = np.random.default_rng(0).permutation(self.size).astype(np.int32)
        return jnp.asarray(order)[task_id]


def evaluation_ids(family: TaskFamily, split: str, count: int) -> np.ndarray:
    """The first `count` ids of a split, int32; a smaller finite split is repeated (its episodes differ)."""
    ids = family.ids(split)
    return np.asarray([ids[i % len(ids)] for i in range(count)], np.int32)
