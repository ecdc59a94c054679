"""StatelessPendulum (POPGym's PositionOnlyPendulum, arXiv 2303.01859): Pendulum without its velocity.

Physics, starts and torques are Pendulum's; only (cos θ, sin θ) is seen, so the velocity must be
remembered. Pendulum's reward r in [−16.27, 0] becomes (1 + r/8.137)/T with T the time limit, so that a
trial's return lies in [−1, 1]. The only end is the time limit, `truncated`. The noisy variant adds
Gaussian noise to both entries and clips them to [−1, 1], as POPGym does.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import spaces
from gymnax.environments.classic_control import pendulum
from jaxtyping import Array, Float

# POPGym's constant: π² + 0.1·8² + 0.001·2², the worst that Pendulum can pay in one step.
LOWEST_REWARD = -16.2736044


@struct.dataclass
class StatelessPendulumParams(pendulum.EnvParams):
    """Pendulum's parameters; `max_steps_in_episode` is the time limit T and scales the reward."""

    max_steps_in_episode: int = 200


@struct.dataclass
class NoisyStatelessPendulumParams(StatelessPendulumParams):
    """`noise` is the standard deviation of what is added to cosine and sine."""

    noise: float = 0.1


class StatelessPendulum(pendulum.Pendulum):
    """Observation: (cos θ, sin θ). Action: a torque in [−2, 2], one entry."""

    def __init__(self):
        super().__init__()
        self.obs_shape = (2,)

    @property
    def default_params(self) -> StatelessPendulumParams:
        """POPGym's easy setting."""
        return StatelessPendulumParams()

    def step_env(
        self, key: Array, state: Any, action: Any, params: Any
    ) -> tuple[Array, pendulum.EnvState, Array, Array, dict[Any, Any]]:
        """Pendulum's step with the reward scaled to [−1, 1]/T."""
        observation, state, reward, terminated, info = super().step_env(key, state, action, params)
        scaled = (1.0 - 2.0 * reward / LOWEST_REWARD) / params.max_steps_in_episode
        return observation, state, scaled, terminated, info

    def get_obs(self, state: Any, params: Any = None, key: Any = None) -> Float[Array, " 2"]:
        """Cosine and sine of the angle."""
        return jnp.stack([jnp.cos(state.theta), jnp.sin(state.theta)])

    @property
    def name(self) -> str:
        """The class's own name; Pendulum's would mislead."""
        return type(self).__name__

    def observation_space(self, params: Any) -> spaces.Box:
        """The unit square."""
        return spaces.Box(-1.0, 1.0, (2,), jnp.float32)


class NoisyStatelessPendulum(StatelessPendulum):
    """`StatelessPendulum` seen through Gaussian noise; see the module."""

    @property
    def default_params(self) -> NoisyStatelessPendulumParams:
        """POPGym's easy setting."""
        return NoisyStatelessPendulumParams()

    def reset_env(self, key: Array, params: Any) -> tuple[Array, pendulum.EnvState]:
        """Pendulum's start, seen through noise."""
        key_start, key_noise = jax.random.split(key)
        _, state = super().reset_env(key_start, params)
        return self.observe(key_noise, state, None, params), state

    def step_env(
        self, key: Array, state: Any, action: Any, params: Any
    ) -> tuple[Array, pendulum.EnvState, Array, Array, dict[Any, Any]]:
        """Pendulum's step, seen through noise."""
        key_step, key_noise = jax.random.split(key)
        _, state, reward, terminated, info = super().step_env(key_step, state, action, params)
        return self.observe(key_noise, state, action, params), state, reward, terminated, info

    def observe(self, key: Array, state: Any, action: Any, params: Any) -> Float[Array, " 2"]:
        """Noisy cosine and sine within [−1, 1]."""
        return jnp.clip(self.get_obs(state) + params.noise * jax.random.normal(key, (2,)), -1.0, 1.0)
