"""Base environments behind one small interface: float observations, no auto-reset, no hidden time limit.

Every base environment, ours, gymnax's, brax's or a user's, is a gymnax 1.0 `Environment` (`reset_env`,
`step_env`, `is_truncated`, spaces). `BaseEnv` holds one with its parameters and irons out what differs:
integer observations and rewards become float32, discrete observations become one-hot vectors, rank-2
observations are flattened. Trials, projections and resets are the business of `envs.meta`.

Three optional attributes of an `Environment` class speak to Resetta:
`never_truncates = True` says that a trial ends only by the task's own end, never by a time limit;
`num_tasks` with `indexed_task_params(index, params)` makes it a finite family of tasks;
`task_params(key, params)` makes it a continuous one.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import environment, spaces
from jaxtyping import Array, Bool, Float

from .physics import replace_params


@dataclasses.dataclass(frozen=True)
class Discrete:
    """A choice among `size` actions, int32 scalars."""

    size: int


@dataclasses.dataclass(frozen=True)
class Continuous:
    """A real vector of `size` entries within `low` and `high` (tuples of floats)."""

    size: int
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class BaseEnv:
    """A gymnax 1.0 environment with its parameters, seen through one interface; see the module.

    `observation_shape` is `(D,)`, or `(H, W, C)` for pixels. `max_steps` is the longest a trial can last
    and `truncates` says whether reaching it is a time limit (`truncated`) rather than the task's own end
    (`terminated`).
    """

    name: str
    env: environment.Environment
    params: Any

    @property
    def max_steps(self) -> int:
        """The longest trial in steps."""
        return int(self.params.max_steps_in_episode)

    @property
    def simulated(self) -> bool:
        """Whether a step is a physics simulator's: a long program, slow to compile."""
        return getattr(self.env, "simulated", False)

    @property
    def truncates(self) -> bool:
        """Whether a trial can end by a time limit; environments that cannot set `never_truncates`."""
        return not getattr(self.env, "never_truncates", False)

    @property
    def pixels(self) -> bool:
        """Whether observations are `(H, W, C)`. A simulator's, whose shape takes seconds to find, are not."""
        return not self.simulated and len(self.observation_shape) == 3

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """`(D,)` or `(H, W, C)`."""
        space = self._space(self.env.observation_space)
        if isinstance(space, spaces.Discrete):
            return (int(space.n),)
        shape = tuple(int(n) for n in space.shape)
        return shape if len(shape) in (1, 3) else (int(np.prod(shape, dtype=int)),)

    @property
    def action(self) -> Discrete | Continuous:
        """The environment's own action space."""
        space = self._space(self.env.action_space)
        if isinstance(space, spaces.Discrete):
            return Discrete(int(space.n))
        shape = tuple(space.shape) or (1,)
        low, high = (
            np.broadcast_to(np.asarray(bound, float), shape).ravel() for bound in (space.low, space.high)
        )
        return Continuous(int(np.prod(shape)), tuple(low.tolist()), tuple(high.tolist()))

    def with_physics(self, params: Any, changes: Mapping[str, Any]) -> Any:
        """`params` with some fields replaced by numbers or traced values, derived fields following.

        Raises ValueError on an unknown or derived field.
        """
        return replace_params(params, changes)

    def sample_task(self, key: Array, params: Any) -> Any:
        """`params` of one task drawn from the environment's family; `params` itself where it has none."""
        if hasattr(self.env, "indexed_task_params"):
            index = jax.random.randint(key, (), 0, getattr(self.env, "num_tasks"))  # noqa: B009
            return getattr(self.env, "indexed_task_params")(index, params)  # noqa: B009
        if hasattr(self.env, "task_params"):
            return getattr(self.env, "task_params")(key, params)  # noqa: B009
        return params

    def reset(self, key: Array, params: Any) -> tuple[Float[Array, "..."], Any]:
        """A fresh initial state and its observation."""
        observation, state = self.env.reset_env(key, params)
        return self._observation(observation), _strongly_typed(state)

    def step(
        self, key: Array, state: Any, action: Array, params: Any
    ) -> tuple[Float[Array, "..."], Any, Float[Array, ""], Bool[Array, ""], Bool[Array, ""]]:
        """One step without auto-reset: observation, state, reward, terminated, truncated.

        `action` is an int32 scalar where `self.action` is `Discrete`, else a float vector `[size]`.
        `terminated` and `truncated` are never both true: the task's own end wins.
        """
        space = self._space(self.env.action_space)
        action = jnp.reshape(action, space.shape)
        observation, state, reward, terminated, _ = self.env.step_env(key, state, action, params)
        terminated = jnp.asarray(terminated, bool)
        if self.truncates:
            truncated = jnp.asarray(self.env.is_truncated(state, params), bool) & ~terminated
        else:
            truncated = jnp.zeros((), bool)
        reward = jnp.asarray(reward, jnp.float32)
        return self._observation(observation), _strongly_typed(state), reward, terminated, truncated

    def _space(self, space: Callable[[Any], Any]) -> Any:
        if self.simulated:  # its bounds are numbers; to trace a reset for its width is slow when evaluated
            return space(self.params)
        # Bounds may be arrays, which would turn into tracers where a space is asked for under jit.
        with jax.ensure_compile_time_eval():
            return space(self.params)

    def _observation(self, observation: Any) -> Float[Array, "..."]:
        space = self._space(self.env.observation_space)
        if isinstance(space, spaces.Discrete):
            return jax.nn.one_hot(observation, space.n)
        return jnp.asarray(observation, jnp.float32).reshape(self.observation_shape)


def _strongly_typed(state: Any) -> Any:
    # gymnax initialises fields with Python numbers; weak types would change between a reset and a step,
    # which makes a scan's carry or a select ill-typed.
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), state)
