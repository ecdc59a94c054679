"""Random projections of observations and actions, the heart of a task distribution.

Structured State Space Models for In-Context RL (arXiv 2303.03982), section 4.4: an agent that meets a new
linear projection of observations and actions in every episode cannot know the task beforehand and must
learn it in context. The paper leaves the distribution of the entries open; ours is Haar-orthonormal, so
that a projection keeps the norm of what it projects.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def random_orthonormal(key: Array, rows: int, columns: int) -> Float[Array, "rows columns"]:
    """A Haar-distributed matrix with orthonormal columns (`rows >= columns`).

    With `rows < columns` the rows are orthonormal and scaled by sqrt(columns / rows), so that the norm of a
    random vector is kept in expectation.

    Householder reflections of Gaussian vectors (Stewart 1980; Mezzadri 2007, arXiv math-ph/0609050): no QR
    call, which on a CPU would cost more than the environment step it is fused into.
    """
    if rows < columns:
        return random_orthonormal(key, columns, rows).T * math.sqrt(columns / rows)
    gaussians = jax.random.normal(key, (columns, rows))

    def reflect(i: Int[Array, ""], matrix: Float[Array, "r c"]) -> Float[Array, "r c"]:
        j = columns - 1 - i  # the reflections are applied from the innermost out
        x = jnp.where(jnp.arange(rows) >= j, gaussians[j], 0.0)
        sign = jnp.where(x[j] >= 0, 1.0, -1.0)
        v = x.at[j].add(sign * jnp.linalg.norm(x))
        matrix = matrix - 2.0 * jnp.outer(v, v @ matrix) / jnp.sum(v * v)
        return matrix.at[:, j].multiply(-sign)  # the sign that makes R's diagonal positive: Haar's condition

    identity = jnp.eye(rows, columns)
    return jax.lax.fori_loop(0, columns, reflect, identity, unroll=columns <= 8)


def permutation_count(size: int) -> int:
    """How many permutations `nth_permutation` enumerates: `size!`, or fewer where int32 ends."""
    count = 1
    for choices in range(size, 1, -1):
        if count * choices >= 2**31:
            break
        count *= choices
    return count


def nth_permutation(index: Int[Array, ""], size: int) -> Int[Array, " size"]:
    """The `index`-th permutation of `size` entries: distinct for distinct indices below `permutation_count`.

    The digits of the factorial number system drive a Fisher-Yates shuffle; long permutations shuffle only
    as many of the first entries as int32 can index.
    """
    permutation = jnp.arange(size, dtype=jnp.int32)
    count = 1
    for i in range(size - 1):
        choices = size - i
        if count * choices >= 2**31:
            break
        count *= choices
        j = i + index % choices
        index = index // choices
        permutation = permutation.at[i].set(permutation[j]).at[j].set(permutation[i])
    return permutation
