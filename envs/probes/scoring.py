"""The sequence view of a probe, and what answers to it are worth."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .base import Episode, Probe

Policy = Callable[[Array, Array], Array]  # a key and tokens [T, D] to answers [T]


def sequences(probe: Probe, key: Array, batch: int) -> Episode:
    """`batch` episodes, time-major: `tokens [T, B, D]`, `targets`, `mask` and `reset` `[T, B]`."""
    return jax.vmap(probe.episode, out_axes=1)(jax.random.split(key, batch))


def score(probe: Probe, episode: Episode, answers: Int[Array, "T ..."]) -> Float[Array, "..."]:
    """What `answers` earn over the whole episode, one score per row of a batch.

    With `prefix` a wrong answer to a question is the last that counts.
    """
    paid = jnp.take_along_axis(episode.payoff, answers[..., None], -1)[..., 0]
    if probe.prefix:
        paid = paid * jnp.cumprod(~episode.mask | (answers == episode.targets), 0)
    return paid.sum(0)


def normalize(probe: Probe, value: "float | np.ndarray") -> "float | np.ndarray":
    """(score − blind)/(reference − blind): 0 is what needs no memory, 1 the reference; both can be passed."""
    blind = probe.blind().value
    return (value - blind) / (probe.reference().value - blind)


def simulate(probe: Probe, policy: Policy, episodes: int, seed: int) -> Float[np.ndarray, " episodes"]:
    """The scores of `policy` in `episodes` fresh episodes."""

    def one(key: Array) -> Array:
        key_episode, key_policy = jax.random.split(key)
        episode = probe.episode(key_episode)
        return score(probe, episode, policy(key_policy, episode.tokens))

    keys = jax.random.split(jax.random.key(seed), episodes)
    return np.asarray(jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=min(episodes, 256)))(keys))


def uniform(probe: Probe) -> Policy:
    """Uniformly random answers."""
    return lambda key, tokens: jax.random.randint(key, tokens.shape[:1], 0, probe.num_answers)
