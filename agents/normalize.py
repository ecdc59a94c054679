"""Running statistics, frozen while an update uses them."""

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float


class Statistics(struct.PyTreeNode):
    """Mean and spread of everything seen so far, per entry."""

    mean: Float[Array, "*D"]
    squares: Float[Array, "*D"]  # sum of squared deviations from the mean
    count: Float[Array, ""]

    @property
    def std(self) -> Float[Array, "*D"]:
        """Standard deviation; 1 until there are two values."""
        variance = self.squares / jnp.maximum(self.count, 1.0)
        return jnp.where(self.count > 1, jnp.sqrt(variance + 1e-8), 1.0)


def no_statistics(shape: tuple[int, ...]) -> Statistics:
    """Nothing seen: `normalize` leaves values as they are."""
    return Statistics(jnp.zeros(shape), jnp.zeros(shape), jnp.zeros(()))


def add(statistics: Statistics, values: Float[Array, "T B *D"]) -> Statistics:
    """Statistics with `values` added (Chan, Golub and LeVeque's parallel update).

    A batch that is not finite is left out: one bad value would spoil every later one.
    """
    n = jnp.asarray(values.shape[0] * values.shape[1], jnp.float32)
    mean = values.mean((0, 1))
    squares = ((values - mean) ** 2).sum((0, 1))
    total = statistics.count + n
    delta = mean - statistics.mean
    new = Statistics(
        statistics.mean + delta * n / total,
        statistics.squares + squares + delta**2 * statistics.count * n / total,
        total,
    )
    good = jnp.isfinite(new.mean).all() & jnp.isfinite(new.squares).all()
    return Statistics(
        jnp.where(good, new.mean, statistics.mean),
        jnp.where(good, new.squares, statistics.squares),
        jnp.where(good, new.count, statistics.count),
    )


def normalize(
    statistics: Statistics, values: Float[Array, "..."], limit: float = 10.0
) -> Float[Array, "..."]:
    """Values with mean 0 and spread 1, clipped to [-limit, limit], once there are statistics."""
    clipped = jnp.clip((values - statistics.mean) / statistics.std, -limit, limit)
    return jnp.where(statistics.count > 1, clipped, values)
