"""A Bernoulli bandit whose arms are the task, as in RL² (Duan et al., arXiv 1611.02779).

Arm k pays 1 with probability p_k, else 0. A task draws every p_k uniformly from [0, 1]; they are part of
the parameters. A trial is 10 pulls, a time limit, so `truncated`. The observation is the constant 1: what
there is to learn comes from the previous action and the previous reward, which the task layer feeds.
Knowing the best of K arms earns K/(K + 1) a pull on average.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces
from jaxtyping import Array, Float


@struct.dataclass
class BernoulliBanditParams(environment.EnvParams):
    """`arm_probabilities` is float32[K]: the task."""

    arm_probabilities: Any = ()
    max_steps_in_episode: int = 10


class BernoulliBandit(environment.Environment[environment.EnvState, BernoulliBanditParams]):
    """Observation: the constant 1, one entry. Action: an arm, `Discrete(arms)`."""

    def __init__(self, arms: int = 5):
        super().__init__()
        if arms < 2:
            raise ValueError(f"arms={arms} leaves no choice; use 2 or more")
        self.arms = arms

    @property
    def default_params(self) -> BernoulliBanditParams:
        """Evenly spaced arms: the order statistics' means of K uniform draws."""
        return BernoulliBanditParams(arm_probabilities=jnp.arange(1.0, self.arms + 1.0) / (self.arms + 1))

    def task_params(self, key: Array, params: Any) -> Any:
        """`params` with fresh arms, uniform on [0, 1]."""
        return params.replace(arm_probabilities=jax.random.uniform(key, (self.arms,)))

    def reset_env(self, key: Array, params: Any) -> tuple[Array, environment.EnvState]:
        """Nothing but the time."""
        state = environment.EnvState(time=jnp.int32(0))  # pyright: ignore[reportArgumentType]
        return self.observe(key, state, None, params), state

    def step_env(
        self, key: Array, state: environment.EnvState, action: Any, params: Any
    ) -> tuple[Array, environment.EnvState, Array, Array, dict[Any, Any]]:
        """Pull an arm."""
        reward = jax.random.bernoulli(key, params.arm_probabilities[action]).astype(jnp.float32)
        state = environment.EnvState(time=state.time + 1)
        return self.observe(key, state, action, params), state, reward, self.is_terminated(state, params), {}

    def observe(
        self, key: Array, state: environment.EnvState, action: Any, params: Any
    ) -> Float[Array, " 1"]:
        """The constant 1."""
        return jnp.ones(1)

    def is_terminated(self, state: environment.EnvState, params: Any) -> Array:
        """Never: only the time limit ends a trial."""
        return jnp.zeros((), bool)

    @property
    def num_actions(self) -> int:
        """The number of arms."""
        return self.arms

    def action_space(self, params: Any = None) -> spaces.Discrete:
        """The arms."""
        return spaces.Discrete(self.arms)

    def observation_space(self, params: Any) -> spaces.Box:
        """The constant 1."""
        return spaces.Box(1.0, 1.0, (1,), jnp.float32)
