"""MultiarmedBandit (POPGym, Morad et al. 2023, arXiv 2303.01859): find the best arm and stay with it.

Every arm has its own chance of paying, uniform in [0, 1] and drawn anew for each trial. A pull that pays is
worth 1/T, one that does not −1/T, T being the time limit, so that a trial's return lies in [−1, 1]. All
that is seen is whether the last pull paid; which arm was pulled, the agent must take from its previous
action. The only end is the time limit, `truncated`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces
from jaxtyping import Array


@struct.dataclass
class MultiarmedBanditParams(environment.EnvParams):
    """`max_steps_in_episode` is the time limit T and scales the reward."""

    max_steps_in_episode: int = 200


@struct.dataclass
class MultiarmedBanditState(environment.EnvState):
    """`reward_probs` [arms] are the chances; `paid` is 1 where the last pull paid."""

    reward_probs: jax.Array
    paid: jax.Array
    time: Any


class MultiarmedBandit(environment.Environment[MultiarmedBanditState, MultiarmedBanditParams]):
    """Observation: whether the last pull paid, `Discrete(2)`. Action: an arm."""

    def __init__(self, arms: int = 10):
        super().__init__()
        if arms < 1:
            raise ValueError(f"arms={arms} leaves nothing to pull; use 1 or more")
        self.arms = arms

    @property
    def default_params(self) -> MultiarmedBanditParams:
        """POPGym's easy setting."""
        return MultiarmedBanditParams()

    def reset_env(self, key: Array, params: Any) -> tuple[Array, MultiarmedBanditState]:
        """New chances; nothing has paid yet."""
        state = MultiarmedBanditState(
            reward_probs=jax.random.uniform(key, (self.arms,)), paid=jnp.int32(0), time=jnp.int32(0)
        )
        return state.paid, state

    def step_env(
        self, key: Array, state: MultiarmedBanditState, action: Any, params: Any
    ) -> tuple[Array, MultiarmedBanditState, Array, Array, dict[Any, Any]]:
        """Pull one arm."""
        paid = jax.random.bernoulli(key, state.reward_probs[action]).astype(jnp.int32)
        reward = (2 * paid - 1) / params.max_steps_in_episode
        state = state.replace(paid=paid, time=state.time + 1)  # pyright: ignore[reportAttributeAccessIssue]
        return paid, state, reward, jnp.bool_(False), {}

    def observe(self, key: Array, state: MultiarmedBanditState, action: Any, params: Any) -> Array:
        """Whether the last pull paid."""
        return state.paid

    def is_terminated(self, state: MultiarmedBanditState, params: Any) -> Array:
        """Never: only time ends a trial."""
        return jnp.bool_(False)

    @property
    def num_actions(self) -> int:
        """One per arm."""
        return self.arms

    def action_space(self, params: Any = None) -> spaces.Discrete:
        """The arms."""
        return spaces.Discrete(self.arms)

    def observation_space(self, params: Any) -> spaces.Discrete:
        """Paid or not."""
        return spaces.Discrete(2)
