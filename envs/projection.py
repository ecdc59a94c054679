"""Random projections of observations and actions, the heart of a task distribution.

Structured State Space Models for In-Context RL (arXiv 2303.03982), section 4.4: an agent that meets a new
linear projection of observations and actions in every episode cannot know the task beforehand and must
learn it in context. The paper leaves the distribution of the entries open; ours is Haar-orthonormal, so
that a projection keeps the norm of what it projects.

Free Random Projection for In-Context RL (arXiv 2504.06983) draws a reduced word of a free group instead, and
projects by the product of the orthogonal matrices that stand for its letters. Words that begin alike make a
tree, so that projections are related as the leaves of one are. Its letters are numbers: 2g is the g-th
generator, 2g + 1 its inverse.
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


def word_count(generators: int, length: int) -> int:
    """Reduced words of a length: 2n choices of a first letter, and 2n - 1 of each that follows."""
    return 2 * generators * (2 * generators - 1) ** (length - 1)


def nth_word(
    index: Int[Array, ""], generators: int, length: int, key: Array | None = None
) -> Int[Array, " L"]:
    """The `index`-th reduced word: distinct for distinct indices below `word_count`, as far as int32 goes.

    No letter is followed by its own inverse. Letters that int32 cannot index are drawn by `key`, and without
    one are the first that may follow.
    """
    letters, count = [], 1
    for i in range(length):
        choices = 2 * generators - (i > 0)
        if count >= 2**31:
            drawn = 0 if key is None else jax.random.randint(jax.random.fold_in(key, i), (), 0, choices)
            digit = jnp.asarray(drawn, jnp.int32)
        else:
            digit, index = index % choices, index // choices
        count *= choices
        if i > 0:
            digit = digit + (digit >= letters[-1] ^ 1)  # past the letter that would undo the last
        letters.append(digit)
    return jnp.stack(letters).astype(jnp.int32)


def word_matrix(
    word: Int[Array, " L"], generators: Float[Array, "n d d"], rows: int, columns: int
) -> Float[Array, "rows columns"]:
    """The product of a word's letters, the first leftmost, cut to `[rows, columns]` (arXiv 2504.06983).

    `generators` are orthogonal, with d the larger of `rows` and `columns`; so the columns are orthonormal, or
    with fewer rows the rows, scaled by sqrt(columns / rows) as those of `random_orthonormal` are.
    """
    letters = jnp.stack([generators, generators.swapaxes(-1, -2)], 1).reshape(-1, *generators.shape[1:])

    def times(product: Array, letter: Array) -> tuple[Array, None]:
        return jnp.matmul(product, letters[letter], precision="highest"), None

    product, _ = jax.lax.scan(times, jnp.eye(generators.shape[-1]), word)
    return product[:rows, :columns] * math.sqrt(max(1.0, columns / rows))


def scattered(index: Int[Array, ""], size: int) -> Int[Array, ""]:
    """A fixed permutation of the whole numbers below `size` (2^30 at most) in which neighbours part.

    A bijection of as many bits as `size` has, products with odd numbers and shifts, walked until it lands
    below `size`, at once or after one more step on average.
    """
    bits = max(2, (size - 1).bit_length())
    mask, shift = 2**bits - 1, -(-bits // 2)

    def mix(x: Array) -> Array:
        for odd in (0x2C1B3C6D, 0x297A2D39):
            x = (x * jnp.uint32(odd)) & jnp.uint32(mask)
            x = x ^ (x >> shift)
        return x

    start = mix(jnp.asarray(index, jnp.uint32))
    return jax.lax.while_loop(lambda x: x >= size, mix, start).astype(jnp.int32)


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
