"""Generalised advantage estimation that tells failure from a time limit."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def advantages(
    rewards: Float[Array, "T B"],
    values: Float[Array, "T B"],
    last_value: Float[Array, " B"],
    terminated: Bool[Array, "T B"],
    truncated: Bool[Array, "T B"],
    final_values: Float[Array, "T B"],
    gamma: float,
    gae_lambda: float,
) -> Float[Array, "T B"]:
    """GAE(gamma, lambda) (arXiv 1506.02438, eqs. 11 and 16), `[T, B]`.

    delta_t = r_t + gamma (1 - terminated_t) V_next - V_t, where V_next is `values[t + 1]` (`last_value` for
    the last step), or `final_values[t]`, the value of the state that a time limit cut off, where
    `truncated`. The lambda-trace is cut at either end. Flags are those of the step itself (post-step).
    """
    next_values = jnp.concatenate([values[1:], last_value[None]])
    next_values = jnp.where(truncated, final_values, next_values)
    deltas = rewards + gamma * jnp.where(terminated, 0.0, next_values) - values
    decay = jnp.where(terminated | truncated, 0.0, gamma * gae_lambda)

    def backwards(trace: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        delta, decay = step
        trace = delta + decay * trace
        return trace, trace

    _, result = jax.lax.scan(backwards, jnp.zeros_like(last_value), (deltas, decay), reverse=True)
    return result
