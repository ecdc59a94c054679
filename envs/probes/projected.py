"""P1, projected meta-control: what a controller does behind a projection that is new in every episode.

The tasks are those of Structured State Space Models for In-Context RL (arXiv 2303.03982, section 4.4).
"""

import dataclasses
import functools
import itertools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..base import BaseEnv, Discrete
from ..controllers import Controller, controller
from ..make import make_meta_env
from ..meta import LaneState, MetaEnv
from .base import Figure
from .figures import simulated
from .imitation import Imitation

TASKS = ("cartpole", "pendulum", "point_mass", "stateless_cartpole", "stateless_pendulum")
_REWARD_SCALE = 0.1  # of Pendulum's, which are as low as −16
_PUMPED = -2.0  # the pendulum's energy, that of standing upright being 0, above which it is let swing
_TURNS = 0.05  # how often its torque turns round before
_NEAR = 0.65  # the reward of a point mass from which it stays where it is


@dataclasses.dataclass(frozen=True, kw_only=True)
class Projected(Imitation):
    """`length`/`steps` trials of a `task`, of `steps` at most, all behind one projection; a score is the mean
    return of a trial, divided by `steps`.

    Observations are multiplied by a Haar-orthonormal matrix of `observation_width` rows, and normal `noise`
    is added; discrete actions are permuted. Continuous ones are rotated, and chosen from a grid of `levels`
    values an axis. A projection is one of 2^28, so that no learner has met a test's before.

    With `depth` one trial alone counts, 0 the first and 1 the last; negative: all. The reference is the
    controller of `envs.controllers`, which knows the projection and sees through the noise; of the answers it
    gives the one that comes closest to what it wants.
    """

    length: int = 1600
    astray: float = 1.0
    task: str = "cartpole"
    steps: int = 200
    observation_width: int = 8
    noise: float = 0.0
    levels: int = 5
    depth: float = -1.0

    knob: ClassVar[str] = "noise"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.need("task", self.task in TASKS, f"is unknown; choose from {', '.join(TASKS)}")
        self.need("steps", self.steps >= 1, "must be 1 or more")
        whole = self.length % self.steps == 0 and self.length > 0
        nearest = max(round(self.length / self.steps), 1) * self.steps
        self.need("length", whole, f"is not a number of trials of {self.steps} steps; use {nearest}")
        self.need("observation_width", self.observation_width >= 1, "must be 1 or more")
        self.need("noise", self.noise >= 0, "must be 0 or more")
        odd = self.levels >= 3 and self.levels % 2 == 1
        self.need("levels", odd, "must be odd, 3 or more: one of them is 0")
        self.need("depth", self.depth <= 1, "must be 0 (first trial) to 1 (last), or negative for all")

    @functools.cached_property
    def env(self) -> MetaEnv:
        """All trials have the same projection."""
        return make_meta_env(
            {self.task: {"max_steps_in_episode": self.steps}},
            num_envs=1,
            trials=self.length // self.steps,
            projection="orthogonal",
            permute_actions=True,
            observation_width=self.observation_width,
            reward_scale=_REWARD_SCALE if "pendulum" in self.task else 1.0,
        )

    @property
    def base(self) -> BaseEnv:
        """What is controlled."""
        return self.env.lanes[0].family.base

    @property
    def share(self) -> float:
        """The mean over steps, were all trials as long as they can be."""
        return 1 / self.length

    def worth(self, trial: Int[Array, ""]) -> Float[Array, ""]:
        """With `depth` one trial is all that counts."""
        last = self.length // self.steps - 1
        one = jnp.where(trial == round(self.depth * last), 1 / self.steps, 0.0)
        return one if self.depth >= 0 else super().worth(trial)

    @property
    def grid(self) -> Float[Array, "A N"] | None:
        """The continuous actions that answers stand for; None where actions are discrete."""
        if isinstance(self.base.action, Discrete):
            return None
        levels = np.linspace(-1, 1, self.levels)
        return jnp.array(list(itertools.product(levels, repeat=self.env.action.size)), jnp.float32)

    @property
    def num_answers(self) -> int:
        """The actions, or the grid's."""
        return self.env.action.size if self.grid is None else len(self.grid)

    def sent(self, answer: Int[Array, "..."]) -> Array:
        """The action, or the grid's."""
        return answer if self.grid is None else self.grid[answer]

    def shown(self, key: Array, token: Float[Array, " D"], state: LaneState) -> Float[Array, " D"]:
        """The observation with its noise."""
        return token.at[: self.observation_width].add(
            self.noise * jax.random.normal(key, (self.observation_width,))
        )

    @functools.cached_property
    def controller(self) -> Controller:
        """Whom to imitate."""
        found = controller(self.base)
        assert found is not None
        return found

    @property
    def reference_memory(self) -> Any:
        """The controller's, which every trial begins anew."""
        return jax.tree.map(jnp.asarray, self.controller.initial)

    def reference_policy(self, memory: Any, key: Array, token: Array, state: LaneState) -> tuple[Any, Array]:
        """The task's controller, which knows the projection: the answer that means what it wants."""
        begins = self.field(token, "trial")[0] > 0
        memory = jax.tree.map(lambda new, old: jnp.where(begins, new, old), self.reference_memory, memory)
        base, params = jax.tree.map(lambda leaf: leaf[0], (state.base, state.task.params))
        memory, wanted = self.controller.act(memory, self.base.env.observe(key, base, None, params))
        answers = self.sent(jnp.arange(self.num_answers))
        meant = jax.vmap(lambda action: self.env.base_actions((state,), action[None])[0][0])(answers)
        apart = meant.reshape(self.num_answers, -1) - wanted.reshape(1, -1)
        return memory, jnp.square(apart).sum(-1).argmin()

    def reference(self) -> Figure:
        """That of the controller, which need not be the best."""
        return simulated(self, "reference")

    def random(self) -> Figure:
        """That of uniformly random answers."""
        return simulated(self, "random")

    def blind(self) -> Figure:
        """The best known: a token tells its previous action, its reward, and how long an observation is."""
        return simulated(self, "blind")

    def blind_policy(self, key: Array, tokens: Float[Array, "T D"]) -> Int[Array, " T"]:
        """The best known of the present token: a guess at the projection, lengths, and rewards."""
        seen, action = self.field(tokens, "observation"), self.field(tokens, "action")
        if self.grid is None:
            return (seen[:, 0] > 0).astype(jnp.int32)
        squared = jnp.square(seen).sum(-1, keepdims=True)  # a projection keeps it
        reward = self.field(tokens, "reward")
        move = self._swing if "pendulum" in self.task else self._search
        wanted = move(key, squared, action, reward)
        return jnp.square(wanted[:, None] - self.grid).sum(-1).argmin(-1)

    def _swing(self, key: Array, squared: Array, action: Array, reward: Array) -> Float[Array, "T 1"]:
        """Pendulum: a torque that turns round now and then, until the swing's energy is enough."""
        speed = jnp.maximum(squared - 1, 0.0)  # the observation is a direction and the speed
        cost = -reward / _REWARD_SCALE - 0.001 * jnp.square(2 * action)
        angle = jnp.sqrt(jnp.clip(cost - 0.1 * speed, 0.0, jnp.pi**2))
        energy = speed / 6 + 5 * (jnp.cos(angle) - 1)
        turn = jnp.where(jax.random.bernoulli(key, _TURNS, action.shape), -1.0, 1.0)
        return jnp.where(energy < _PUMPED, turn * jnp.where(action == 0, 1.0, action), 0.0)

    def _search(self, key: Array, squared: Array, action: Array, reward: Array) -> Float[Array, "T 2"]:
        """Point mass: straight on where position and goal have a positive product, else to the left."""
        onwards = (reward > 0) & (squared > jnp.square(1 - reward))  # |x|² + |g|² − |x − g|² = 2 x·g
        left = jnp.stack([-action[:, 1], action[:, 0]], -1)
        rests = (action == 0).all(-1, keepdims=True)
        move = jnp.where(rests, jnp.array([1.0, 0.0]), jnp.where(onwards, action, left))
        return jnp.where(reward > _NEAR, 0.0, move)
