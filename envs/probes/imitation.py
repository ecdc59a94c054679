"""P1 and P2 as sequences: what a reference policy saw and did in an environment, to be imitated.

Here acting changes what is seen, so that a score is a return: `rollout` lets any policy act. The sequence
view shows the reference policy's own history and asks at every step for what it did next; answers to it are
paid by agreement.

Where a policy mostly does again what it did last, its own doings alone teach nothing else: to repeat the last
action would be right nearly always, no mistake is ever mended, and an imitator takes its own first guess for
the reference's (Ortega et al. 2021, arXiv 2110.10819). There it is led astray now and then (`astray`).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..make import make_meta_env
from ..meta import Input, LaneState, MetaEnv
from .base import QUERY, Episode, Figure, Probe, exact
from .figures import simulated

# (memory, key, token [D], the environment's true state) to memory and action
Act = Callable[[Any, Array, Array, LaneState], tuple[Any, Array]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Imitation(Probe):
    """A meta-episode of one task; subclasses say in which environment, and whom to imitate.

    A token holds what an agent sees (`envs.meta.Input`): observation, previous action, previous reward, and
    whether a trial begins.

    In the histories shown a share of a trial's steps, drawn uniformly up to `astray`, takes a random answer
    in place of the one to be imitated. Nothing of it is seen by a policy that acts itself.
    """

    astray: float = 0.0

    closed_loop: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.need("astray", 0 <= self.astray <= 1, "must be a share, 0 to 1")

    @property
    def env(self) -> MetaEnv:
        """The environment, a batch of one."""
        raise NotImplementedError

    @property
    def share(self) -> float:
        """What a unit of reward is worth in the score."""
        raise NotImplementedError

    @property
    def environments(self) -> tuple[type, ...]:
        """Those of `env`."""
        return tuple(type(lane.family.base.env) for lane in self.env.lanes)

    def worth(self, trial: Int[Array, ""]) -> Float[Array, ""]:
        """What a unit of reward is worth in a trial: the same in all, unless a subclass differs."""
        return jnp.float32(self.share)

    def sent(self, answer: Int[Array, "..."]) -> Array:
        """The agent's action that an answer stands for: the answer itself, unless actions are continuous."""
        return answer

    def shown(self, key: Array, token: Float[Array, " D"], state: LaneState) -> Float[Array, " D"]:
        """What is seen of a token: all of it, unless a subclass hides some."""
        return token

    @property
    def fields(self) -> dict[str, int]:
        """The parts of an agent's input."""
        return {
            "observation": self.env.observation_shape[0],
            "action": self.env.action.size,
            "reward": 1,
            "trial": 1,
        }

    @property
    def num_answers(self) -> int:
        """The actions."""
        return self.env.action.size

    @property
    def scope(self) -> int:
        """All that was tried."""
        return self.length - 1

    def reference_policy(self, memory: Any, key: Array, token: Array, state: LaneState) -> tuple[Any, Array]:
        """Whom to imitate; begins with the memory `reference_memory`."""
        raise NotImplementedError

    @property
    def reference_memory(self) -> Any:
        """Nothing, unless a subclass remembers."""
        return ()

    def rollout(
        self, key: Array, memory: Any, act: Act, steps: int | None = None
    ) -> tuple[Array, Array, Array]:
        """One meta-episode under `act`, or its first `steps`: tokens `[T, D]`, answers `[T]`, and the score.

        Trials that end early leave steps over, in which nothing counts.
        """

        def alone(*seen: Any) -> tuple[Any, Array, Array]:
            memory, answer = act(*seen)
            return memory, answer, answer

        tokens, answers, score = self.history(key, memory, alone, steps)
        return tokens, answers, score

    def history(
        self, key: Array, memory: Any, act: Callable[..., tuple[Any, Array, Array]], steps: int | None = None
    ) -> tuple[Array, Array, Array]:
        """`rollout` of an `act` that says two things: the answer that is taken, and the one to keep."""
        env, size = self.env, self.env.lanes[0].family.size
        key_task, key_reset, key = jax.random.split(key, 3)
        ids = (
            env.lanes[0].family.ids("train") if size is None else range(size)
        )  # the figures are of all tasks
        task = jax.random.randint(key_task, (1,), ids.start, ids.stop)
        state, seen = env.reset(key_reset, task)

        def step(carry, key):
            state, seen, memory, going = carry
            key_act, key_step = jax.random.split(key)
            token = self.shown(jax.random.fold_in(key, 0), self._token(seen), state[0])
            memory, answer, kept = act(memory, key_act, token, state[0])
            state, seen, outcome = env.step(key_step, state, self.sent(answer)[None])
            paid = jnp.where(going, outcome.raw_reward[0] * self.worth(outcome.trial[0]), 0.0)
            return (state, seen, memory, going & ~seen.reset[0]), (token, kept, paid)

        keys = jax.random.split(key, self.length if steps is None else steps)
        tokens, kept, paid = jax.lax.scan(step, (state, seen, memory, jnp.bool_(True)), keys)[1]
        return tokens, kept, paid.sum()

    def _token(self, seen: Input) -> Float[Array, " D"]:
        parts = {
            "observation": seen.observation,
            "action": seen.action,
            "reward": seen.reward[:, None],
            "trial": seen.episode_start[:, None].astype(jnp.float32),
        }
        token = self.encode(jnp.array([QUERY]), **parts)[0]
        return token.at[-1].set(seen.reset[0])

    def episode(self, key: Array) -> Episode:
        """What was seen when the reference policy or chance acted, and what the former would do."""
        key_play, key_stray = jax.random.split(key)

        def act(memory: Any, key: Array, token: Array, state: LaneState) -> tuple[Any, Array, Array]:
            memory, right = self.reference_policy(memory, key, token, state)
            share = self.astray * jax.random.uniform(jax.random.fold_in(key_stray, state.trial[0]))
            key_strays, key_random = jax.random.split(key)
            chance = self.random_policy(key_random, token[None])[0]
            return memory, jnp.where(jax.random.bernoulli(key_strays, share), chance, right), right

        tokens, targets, _ = self.history(key_play, self.reference_memory, act)
        begins = self.field(tokens, "start") > 0  # where trials end early, another meta-episode begins
        return self.ask(tokens, targets, jnp.ones(self.length, bool), reset=begins)

    def play(self, which: str, key: Array) -> Float[Array, ""]:
        """The score of a policy that acts; `random_policy` and `blind_policy` have no memory."""
        if which == "reference":
            return self.rollout(key, self.reference_memory, self.reference_policy)[2]
        policy = getattr(self, f"{which}_policy")
        return self.rollout(key, (), lambda memory, key, token, _: (memory, policy(key, token[None])[0]))[2]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bandit(Imitation):
    """`length` pulls of `arms` Bernoulli arms with uniform chances; a score is the mean reward of a pull.

    The reference is Thompson sampling (1933).
    """

    length: int = 100
    arms: int = 5

    knob: ClassVar[str] = "arms"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.need("arms", self.arms >= 2, "leaves no choice; use 2 or more")
        self.need("length", self.length >= 1, "must be 1 or more")

    @functools.cached_property
    def env(self) -> MetaEnv:
        """One trial of all pulls."""
        options = {"arms": self.arms, "max_steps_in_episode": self.length}
        return make_meta_env({"bernoulli_bandit": options}, num_envs=1, trials=1)

    @property
    def share(self) -> float:
        """The mean over pulls."""
        return 1 / self.length

    @property
    def reference_memory(self) -> Any:
        """Pulls that paid and that did not, per arm, each beginning with one: a uniform prior."""
        return jnp.ones((2, self.arms))

    def reference_policy(self, memory: Any, key: Array, token: Array, state: LaneState) -> tuple[Any, Array]:
        """Thompson sampling: the best arm of a draw from the posterior."""
        action, reward = self.field(token, "action"), self.field(token, "reward")
        memory = memory + jnp.stack([action * reward, action * (1 - reward)])
        return memory, jax.random.beta(key, memory[0], memory[1]).argmax()

    def random(self) -> Figure:
        """One half."""
        return exact(0.5, "the mean of uniform chances")

    def blind(self) -> Figure:
        """The previous arm and reward are part of what is seen."""
        return simulated(self, "blind")

    def blind_policy(self, key: Array, tokens: Array) -> Array:
        """Win-stay, lose-shift: the same arm after a reward, the next one otherwise."""
        action, reward = self.field(tokens, "action"), self.field(tokens, "reward")[..., 0]
        return (action.argmax(-1) + (reward == 0)) % self.arms

    def reference(self) -> Figure:
        """That of Thompson sampling."""
        return simulated(self, "reference")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DarkRoom(Imitation):
    """`length`/20 trials of 20 steps in a room of `size` × `size` with an unseen goal; see `envs.dark_room`.

    A score is the mean return of a trial. The reference walks straight to the goal, which it knows.
    """

    length: int = 160
    astray: float = 1.0
    size: int = 9

    knob: ClassVar[str] = "size"
    steps: ClassVar[int] = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        self.need(
            "size", self.size >= 3 and self.size % 2 == 1, "must be odd, 3 or more: the start is a centre"
        )
        whole = self.length % self.steps == 0 and self.length > 0
        nearest = max(round(self.length / self.steps), 1) * self.steps
        self.need("length", whole, f"is not a number of trials of {self.steps} steps; use {nearest}")

    @functools.cached_property
    def env(self) -> MetaEnv:
        """All trials have the same goal."""
        lanes = {"dark_room": {"size": self.size}}
        return make_meta_env(lanes, num_envs=1, trials=self.length // self.steps)

    @property
    def share(self) -> float:
        """The mean over trials."""
        return self.steps / self.length

    def reference_policy(self, memory: Any, key: Array, token: Array, state: LaneState) -> tuple[Any, Array]:
        """Straight to the goal: rows first, then columns, then stay."""
        down, right = (state.task.params.goal - state.base.position)[0]
        row = jnp.where(down > 0, 1, jnp.where(down < 0, 2, 0))
        column = jnp.where(right > 0, 3, jnp.where(right < 0, 4, 0))
        return memory, jnp.where(row > 0, row, column).astype(jnp.int32)

    def random(self) -> Figure:
        """Every step is on a uniform goal once in n² times, wherever the walk is."""
        return exact(self.steps / self.size**2, "T/n^2")

    def blind(self) -> Figure:
        """A path through a new cell every step, which stays where it is rewarded."""
        reached = np.arange(1, min(self.steps, self.size**2) + 1)
        value = (self.steps + 1 - reached).sum() / self.size**2
        return exact(value, "sum over i of (T + 1 - i)/n^2: a new cell every step, then stay")

    def reference(self) -> Figure:
        """T less the steps before the goal is reached, over all goals."""
        offset = np.abs(np.arange(self.size) - self.size // 2)
        distance = np.maximum(offset[:, None] + offset, 1)
        paid = np.maximum(self.steps - distance + 1, 0)
        return exact(paid.mean(), "mean of T - max(d, 1) + 1 over goals at distance d")
