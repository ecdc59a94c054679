"""Policy distributions: the one file that imports distrax."""

from typing import Protocol

import distrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..envs import Continuous, Discrete

# Gauss-Hermite quadrature of a standard normal's expectations.
_NODES, _WEIGHTS = (array.astype(np.float32) for array in np.polynomial.hermite_e.hermegauss(12))
_WEIGHTS /= _WEIGHTS.sum()


class Policy(Protocol):
    """What a policy head needs to know about its distribution.

    `params [..., num_params]` are the network's outputs. A *raw* action is what is stored with the rollout;
    `to_env` turns it into the environment's.
    """

    num_params: int

    def noise(self, key: Array, batch: int) -> Array:
        """What chance adds to `batch` actions, `[batch, ...]`; a rollout draws all of it beforehand."""
        ...

    def draw(self, noise: Array, params: Array) -> Array:
        """A raw action for each row of `params`."""
        ...

    def mode(self, params: Array) -> Array:
        """The most likely raw action (for continuous actions: before squashing)."""
        ...

    def log_prob(self, params: Array, raw: Array) -> Float[Array, "..."]:
        """Log-probability (density of the squashed action, for continuous actions)."""
        ...

    def entropy(self, params: Array) -> Float[Array, "..."]:
        """Entropy of the distribution (for continuous actions: of the squashed one, within 0.05 each)."""
        ...

    def preference(self, params: Array, raw: Array) -> Float[Array, "..."]:
        """What speaks for a raw action: its logit above the mean of all, or the mean's part along it."""
        ...

    def to_env(self, raw: Array) -> Array:
        """The environment's action."""
        ...

    def expected(self, params: Array) -> Float[Array, "... A"]:
        """The environment's action on average; the probabilities of discrete ones."""
        ...

    def cross_entropy(self, params: Array, wanted: Float[Array, "... A"]) -> Float[Array, "..."]:
        """How far the distribution is from what `expected` may give: its negative log-likelihood."""
        ...


class Categorical:
    """Discrete actions: logits `[..., N]`, raw actions int32 `[...]`."""

    def __init__(self, size: int):
        self.num_params = size

    def noise(self, key: Array, batch: int) -> Array:
        """See `Policy`."""
        return jax.random.gumbel(key, (batch, self.num_params))

    def draw(self, noise: Array, params: Array) -> Array:
        """See `Policy`; the largest of logits plus Gumbel noise is a draw from their softmax."""
        return jnp.argmax(params + noise, axis=-1)

    def mode(self, params: Array) -> Array:
        """See `Policy`."""
        return jnp.argmax(params, axis=-1)

    def log_prob(self, params: Array, raw: Array) -> Float[Array, "..."]:
        """See `Policy`."""
        return jnp.asarray(distrax.Categorical(logits=params).log_prob(raw))

    def entropy(self, params: Array) -> Float[Array, "..."]:
        """See `Policy`."""
        return jnp.asarray(distrax.Categorical(logits=params).entropy())

    def preference(self, params: Array, raw: Array) -> Float[Array, "..."]:
        """See `Policy`; a constant added to all logits changes nothing, so their mean is taken off."""
        chosen = jnp.take_along_axis(params, raw[..., None], axis=-1)[..., 0]
        return chosen - params.mean(-1)

    def to_env(self, raw: Array) -> Array:
        """See `Policy`."""
        return raw

    def expected(self, params: Array) -> Float[Array, "... N"]:
        """See `Policy`."""
        return jax.nn.softmax(params)

    def cross_entropy(self, params: Array, wanted: Float[Array, "... N"]) -> Float[Array, "..."]:
        """See `Policy`."""
        return -(wanted * jax.nn.log_softmax(params)).sum(-1)


class SquashedGaussian:
    """Continuous actions: `[..., 2 A]` (mean, log std), raw actions `[..., A]` before tanh.

    The pre-tanh action is stored: the density at tanh(raw) = ±1 is not a number, and needs no inverse here.
    The entropy of a squashed Gaussian is that of the Gaussian and what squashing takes from it, which has no
    closed form and is found by Gauss-Hermite quadrature. The Gaussian's alone would let means run off to
    where tanh is flat and nothing is explored.
    """

    min_log_std = -5.0
    max_log_std = 1.0
    largest_wanted = 0.99

    def __init__(self, size: int):
        self.num_params = 2 * size

    def _gaussian(self, params: Array) -> distrax.MultivariateNormalDiag:
        mean, log_std = jnp.split(params, 2, axis=-1)
        return distrax.MultivariateNormalDiag(
            mean, jnp.exp(jnp.clip(log_std, self.min_log_std, self.max_log_std))
        )

    def noise(self, key: Array, batch: int) -> Array:
        """See `Policy`."""
        return jax.random.normal(key, (batch, self.num_params // 2))

    def draw(self, noise: Array, params: Array) -> Array:
        """See `Policy`."""
        gaussian = self._gaussian(params)
        return jnp.asarray(gaussian.mean() + gaussian.stddev() * noise)

    def mode(self, params: Array) -> Array:
        """See `Policy`."""
        return jnp.split(params, 2, axis=-1)[0]

    def log_prob(self, params: Array, raw: Array) -> Float[Array, "..."]:
        """See `Policy`."""
        squash = distrax.Tanh().forward_log_det_jacobian(raw).sum(-1)
        return jnp.asarray(self._gaussian(params).log_prob(raw) - squash)

    def entropy(self, params: Array) -> Float[Array, "..."]:
        """See `Policy`."""
        gaussian = self._gaussian(params)
        mean, std = jnp.asarray(gaussian.mean()), jnp.asarray(gaussian.stddev())
        raw = mean[..., None] + std[..., None] * _NODES
        squash = (distrax.Tanh().forward_log_det_jacobian(raw) * _WEIGHTS).sum(-1)
        return jnp.asarray(gaussian.entropy() + squash.sum(-1))

    def preference(self, params: Array, raw: Array) -> Float[Array, "..."]:
        """See `Policy`."""
        along = raw / jnp.maximum(jnp.linalg.norm(raw, axis=-1, keepdims=True), 1e-9)
        return (self.mode(params) * along).sum(-1)

    def to_env(self, raw: Array) -> Array:
        """See `Policy`."""
        return jnp.tanh(raw)

    def expected(self, params: Array) -> Float[Array, "... A"]:
        """See `Policy`; the mean, squashed."""
        return jnp.tanh(self.mode(params))

    def cross_entropy(self, params: Array, wanted: Float[Array, "... A"]) -> Float[Array, "..."]:
        """See `Policy`; before squashing, where full force is not endlessly far away."""
        limit = self.largest_wanted
        return -jnp.asarray(self._gaussian(params).log_prob(jnp.arctanh(jnp.clip(wanted, -limit, limit))))


class Levels:
    """Continuous actions of a few values: logits `[..., A * K]`, raw actions int32 `[..., A]`, of K levels.

    Each of A actions is drawn on its own (arXiv 1901.10500) from K levels that lie evenly in
    [-1, 1], its ends included. A fresh policy often pushes with full force, where one that is fresh and
    Gaussian averages itself out; a trained one may have several peaks, and act with full force for certain.
    """

    def __init__(self, size: int, levels: int):
        self.num_params = size * levels
        self._shape = (size, levels)
        self._each = Categorical(levels)

    def _logits(self, params: Array) -> Float[Array, "... A K"]:
        return params.reshape(*params.shape[:-1], *self._shape)

    def noise(self, key: Array, batch: int) -> Array:
        """See `Policy`."""
        return jax.random.gumbel(key, (batch, *self._shape))

    def draw(self, noise: Array, params: Array) -> Array:
        """See `Policy`."""
        return self._each.draw(noise, self._logits(params))

    def mode(self, params: Array) -> Array:
        """See `Policy`."""
        return self._each.mode(self._logits(params))

    def log_prob(self, params: Array, raw: Array) -> Float[Array, "..."]:
        """See `Policy`; a probability, not a density."""
        return self._each.log_prob(self._logits(params), raw).sum(-1)

    def entropy(self, params: Array) -> Float[Array, "..."]:
        """See `Policy`; of the levels: between 0 and `A log K`."""
        return self._each.entropy(self._logits(params)).sum(-1)

    def preference(self, params: Array, raw: Array) -> Float[Array, "..."]:
        """See `Policy`."""
        return self._each.preference(self._logits(params), raw).sum(-1)

    def to_env(self, raw: Array) -> Array:
        """See `Policy`."""
        return 2 * raw / (self._shape[1] - 1) - 1

    def expected(self, params: Array) -> Float[Array, "... A"]:
        """See `Policy`."""
        return self._each.expected(self._logits(params)) @ jnp.linspace(-1.0, 1.0, self._shape[1])

    def cross_entropy(self, params: Array, wanted: Float[Array, "... A"]) -> Float[Array, "..."]:
        """See `Policy`; what lies between two levels is divided among them, so that its mean is kept."""
        place = (jnp.clip(wanted, -1.0, 1.0) + 1) / 2 * (self._shape[1] - 1)
        shares = jnp.maximum(1 - jnp.abs(place[..., None] - jnp.arange(self._shape[1])), 0.0)
        return self._each.cross_entropy(self._logits(params), shares).sum(-1)


def make_policy(action: Discrete | Continuous, levels: int | None = None) -> Policy:
    """The distribution for an action space; with `levels`, of that many values of each continuous action.

    Raises `ValueError` for levels of discrete actions, and for fewer than two.
    """
    if levels is not None and levels < 2:
        raise ValueError(f"network.action_levels={levels} must be at least 2, or null for a Gaussian")
    if isinstance(action, Continuous):
        return SquashedGaussian(action.size) if levels is None else Levels(action.size, levels)
    if levels is not None:
        raise ValueError(
            f"network.action_levels={levels} is for continuous actions, and the environment's are discrete; "
            "use network.action_levels=null"
        )
    return Categorical(action.size)


def uniform_action(key: Array, action: Discrete | Continuous, batch: int) -> Array:
    """A uniformly random action of the environment for each of `batch` rows."""
    if isinstance(action, Discrete):
        return jax.random.randint(key, (batch,), 0, action.size)
    return jax.random.uniform(key, (batch, action.size), minval=-1.0, maxval=1.0)
