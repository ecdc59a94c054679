"""What there is to know of a task: its projections, its permutation of actions, and what its physics vary."""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from ...envs.meta import Lane
from ...envs.physics import derived_fields

_COLUMNS = 8  # of a wider matrix, single columns are not read


class Target(NamedTuple):
    """Something to be read: `values` `[task, number]`, or one-hot `[task, choice, option]` where `chosen`."""

    name: str
    values: Float[np.ndarray, "N ..."]
    chosen: bool = False
    of: str = ""  # the target that this one is a column of


def task_targets(lane: Lane, ids: Int[np.ndarray, " N"]) -> list[Target]:
    """What differs among the tasks `ids` of a lane; parameters that follow from others are left out."""
    family = lane.family
    task = jax.tree.map(np.asarray, jax.jit(jax.vmap(family.make))(ids))
    found = []
    for name in ("observation_matrix", "action_matrix"):
        matrix = getattr(task, name)
        if matrix is not None:
            found.append(Target(name.replace("_", " "), matrix.reshape(len(ids), -1)))
    if task.action_table is not None:
        size = family.base.action.size  # surplus actions repeat the first
        found.append(Target("action permutation", np.eye(size)[task.action_table[:, :size]], chosen=True))
        matrix = task.observation_matrix
        if size == 2 and matrix is not None:
            # where mirror images of a state behave alike, as CartPole's do, neither the matrix's sign nor the
            # permutation can be known alone: only what an action does to an observation
            sign = np.where(task.action_table[:, 0] == 0, 1.0, -1.0)
            signed, name = matrix * sign[:, None, None], "matrix signed by the permutation"
            found.append(Target(name, signed.reshape(len(ids), -1)))
            if signed.shape[2] <= _COLUMNS:
                found += [Target(f"column {k + 1}", signed[..., k], of=name) for k in range(signed.shape[2])]
    derived = derived_fields(family.base.params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(task.params):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if name not in derived:
            found.append(Target(name, np.asarray(leaf, float).reshape(len(ids), -1)))
    return [target for target in found if np.ptp(target.values, axis=0).any()]
