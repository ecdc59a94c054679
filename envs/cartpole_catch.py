"""CartPole as a quick catch: the pole starts falling and 25 coarse steps decide the trial.

Adapting in context shows only where a trial is lost unless earlier trials taught the task. CartPole's own
gentle starts leave time to learn the task inside the first trial; here the pole starts at .03 to .1 rad,
falling at .45 to 1.5 rad/s, and a control step lasts .04 s, so that a wrong first push usually costs the
trial. The spread of starts is a curriculum; a few of them cannot be caught at all. Each step pays 1/T, so
that a trial's return lies in [0, 1]. A fall is `terminated`, the time limit T = 25 is `truncated`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import spaces
from gymnax.environments.classic_control import cartpole
from jaxtyping import Array, Float

# Position, velocity, angle and angular velocity, brought to about one.
OBSERVATION_SCALE = (1 / 2.4, 1 / 2.0, 1 / 0.21, 1 / 2.0)


@struct.dataclass
class CartPoleCatchParams(cartpole.EnvParams):
    """CartPole's parameters with a coarse time step and a short time limit."""

    tau: float = 0.04
    max_steps_in_episode: int = 25


class CartPoleCatch(cartpole.CartPole):
    """Observation: CartPole's four numbers, scaled. Action: push left or right, `Discrete(2)`."""

    @property
    def default_params(self) -> CartPoleCatchParams:
        """See the module."""
        return CartPoleCatchParams()

    def reset_env(self, key: Array, params: Any) -> tuple[Array, cartpole.EnvState]:
        """A falling pole, to either side with equal chance."""
        key_side, key_start = jax.random.split(key)
        side = jax.random.rademacher(key_side, (), jnp.float32)
        x, x_dot, lean, speed = jax.random.uniform(key_start, (4,))
        state = cartpole.EnvState(
            x=x - 0.5,
            x_dot=x_dot - 0.5,
            theta=side * (0.3 + 0.7 * lean) * 0.1,
            theta_dot=side * (0.3 + 0.7 * speed) * 1.5,
            time=jnp.int32(0),  # pyright: ignore[reportArgumentType]
        )
        return self.get_obs(state), state

    def step_env(
        self, key: Array, state: Any, action: Any, params: Any
    ) -> tuple[Array, cartpole.EnvState, Array, Array, dict[Any, Any]]:
        """CartPole's step with the reward scaled to 1/T."""
        observation, state, reward, terminated, info = super().step_env(key, state, action, params)
        return observation, state, reward / params.max_steps_in_episode, terminated, info

    def get_obs(self, state: Any, params: Any = None, key: Any = None) -> Float[Array, " 4"]:
        """CartPole's four numbers, scaled."""
        return jnp.stack([state.x, state.x_dot, state.theta, state.theta_dot]) * jnp.array(OBSERVATION_SCALE)

    @property
    def name(self) -> str:
        """The class's own name; CartPole's would mislead."""
        return type(self).__name__

    def observation_space(self, params: Any) -> spaces.Box:
        """Unbounded, as the velocities are."""
        return spaces.Box(-jnp.inf, jnp.inf, (4,), jnp.float32)
