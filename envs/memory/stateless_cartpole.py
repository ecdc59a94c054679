"""StatelessCartPole (POPGym's PositionOnlyCartPole, arXiv 2303.01859): CartPole without its velocities.

Physics and starts are CartPole's; only the cart's position and the pole's angle are seen, so the
velocities must be remembered. Each step pays 1/T with T the time limit, so that a trial's return lies in
[0, 1]. A fall is `terminated`, the time limit is `truncated`. The noisy variant adds Gaussian noise to
both entries and clips them to the observation space, as POPGym does.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import spaces
from gymnax.environments.classic_control import cartpole
from jaxtyping import Array, Float


@struct.dataclass
class StatelessCartPoleParams(cartpole.EnvParams):
    """CartPole's parameters; `max_steps_in_episode` is the time limit T and scales the reward."""

    max_steps_in_episode: int = 200


@struct.dataclass
class NoisyStatelessCartPoleParams(StatelessCartPoleParams):
    """`noise` is the standard deviation of what is added to the position (m) and the angle (rad)."""

    noise: float = 0.1


class StatelessCartPole(cartpole.CartPole):
    """Observation: (x, theta), metres and radians. Action: push left or right, `Discrete(2)`."""

    def __init__(self):
        super().__init__()
        self.obs_shape = (2,)

    @property
    def default_params(self) -> StatelessCartPoleParams:
        """POPGym's easy setting."""
        return StatelessCartPoleParams()

    def step_env(
        self, key: Array, state: Any, action: Any, params: Any
    ) -> tuple[Array, cartpole.EnvState, Array, Array, dict[Any, Any]]:
        """CartPole's step with the reward scaled to 1/T."""
        observation, state, reward, terminated, info = super().step_env(key, state, action, params)
        return observation, state, reward / params.max_steps_in_episode, terminated, info

    def get_obs(self, state: Any, params: Any = None, key: Any = None) -> Float[Array, " 2"]:
        """Position and angle."""
        return jnp.stack([state.x, state.theta])

    @property
    def name(self) -> str:
        """The class's own name; CartPole's would mislead."""
        return type(self).__name__

    def observation_space(self, params: Any) -> spaces.Box:
        """Twice the thresholds at which a trial ends, as in CartPole."""
        high = jnp.array([params.x_threshold * 2, params.theta_threshold_radians * 2], jnp.float32)
        return spaces.Box(-high, high, (2,), jnp.float32)


class NoisyStatelessCartPole(StatelessCartPole):
    """`StatelessCartPole` seen through Gaussian noise; see the module."""

    @property
    def default_params(self) -> NoisyStatelessCartPoleParams:
        """POPGym's easy setting."""
        return NoisyStatelessCartPoleParams()

    def reset_env(self, key: Array, params: Any) -> tuple[Array, cartpole.EnvState]:
        """CartPole's start, seen through noise."""
        key_start, key_noise = jax.random.split(key)
        _, state = super().reset_env(key_start, params)
        return self.observe(key_noise, state, None, params), state

    def step_env(
        self, key: Array, state: Any, action: Any, params: Any
    ) -> tuple[Array, cartpole.EnvState, Array, Array, dict[Any, Any]]:
        """CartPole's step, seen through noise."""
        key_step, key_noise = jax.random.split(key)
        _, state, reward, terminated, info = super().step_env(key_step, state, action, params)
        return self.observe(key_noise, state, action, params), state, reward, terminated, info

    def observe(self, key: Array, state: Any, action: Any, params: Any) -> Float[Array, " 2"]:
        """Noisy position and angle within the observation space."""
        space = self.observation_space(params)
        return jnp.clip(
            self.get_obs(state) + params.noise * jax.random.normal(key, (2,)), space.low, space.high
        )
