"""Meta-episodes: K trials of one task, its projections, several base environments in one batch.

Three signals, never mixed:

- `Input.reset`: this input is the first of a new meta-episode; the memory is cleared before it is consumed.
- `Input.episode_start`: an inner trial begins here; a feature that the agent sees, never a reset.
- `Outcome.terminated`, `Outcome.truncated`: how the step before ended, for advantage estimation.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from .base import Continuous, Discrete
from .branch import if_any
from .tasks import Task, TaskFamily, evaluation_ids


class Input(struct.PyTreeNode):
    """What the agent sees at one step. Leading axes are the batch's.

    `action` is the previous action (one-hot, or the vector taken) and `reward` the previous reward (scaled);
    both are zero at a reset, and kept across the trials of a meta-episode.
    """

    observation: Float[Array, "B ..."]
    action: Float[Array, "B A"]
    reward: Float[Array, " B"]
    episode_start: Bool[Array, " B"]
    reset: Bool[Array, " B"]


class Outcome(struct.PyTreeNode):
    """What a step led to.

    `reward` is scaled for the learner. `terminated`: the trial failed or ended by its own rules, or it was
    the last trial of a meta-episode. `truncated`: a time limit cut the trial. `final` is the input that the
    agent would have seen next had the trial gone on (for the value of a truncated state). `trial_return` is
    raw and counts where `trial_end`; `trial` is the trial's number.
    """

    reward: Float[Array, " B"]
    terminated: Bool[Array, " B"]
    truncated: Bool[Array, " B"]
    final: Input
    trial_end: Bool[Array, " B"]
    trial_return: Float[Array, " B"]
    trial: Int[Array, " B"]
    raw_reward: Float[Array, " B"]


# The least number of starts that a simulator's trials begin from, however few rows a lane has.
_STARTS = 256


class LaneState(struct.PyTreeNode):
    """The state of one lane's environments, batched."""

    base: Any
    task: Task
    trial: Int[Array, " N"]
    trial_return: Float[Array, " N"]


class SimulatedLaneState(LaneState):
    """A simulator's, with the `starts` of trials to come: first observations and states `[M, ...]`.

    A class of its own, so that the checkpoints of all others hold what they always held.
    """

    starts: tuple[Array, Any]


class LaneKeys(NamedTuple):
    """All that is random in one step of a lane: keys of every row's step and reset and of the tasks drawn."""

    step: Array  # [N]
    reset: Array  # [N]
    ids: Array
    blank: Bool[Array, " N"] | None  # rows whose next observation is blank (None: without flicker)


@dataclasses.dataclass(frozen=True)
class Lane:
    """A fixed, contiguous share of the batch that plays one base environment."""

    family: TaskFamily
    count: int
    reward_scale: float = 1.0


@dataclasses.dataclass(frozen=True)
class MetaEnv:
    """A batch of meta-environments; lanes are stepped each under their own `vmap`.

    (`lax.switch` under `vmap` would compute every base environment for every row.)

    Trials start afresh. Those of a simulator begin from starts that `reset` has drawn, as many as the lane
    has rows and `_STARTS` at least, one at random each time: a simulator's reset is as long a program as its
    step, and inside of one it would be compiled with it and computed for all rows whenever a trial ends.

    `trials` is K. In a meta-episode (K > 1) the last trial's end is `terminated` whatever ended it; with
    K = 1 a time limit stays `truncated`, as in ordinary RL. Without `reward_input` the agent sees zeros for
    its previous rewards: a reward that tells of the hidden state (Pendulum's does) makes a task easier. With
    `same_start` a task's trials all start from one state, its own, which an agent can learn by heart.
    `flicker` is the chance that an observation, each by itself, is all zeros (Flickering Atari, arXiv
    1507.06527); previous action and reward are seen nevertheless.
    """

    lanes: tuple[Lane, ...]
    trials: int
    split: str = "train"
    reward_input: bool = True
    same_start: bool = False
    flicker: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.flicker <= 1.0:
            raise ValueError(f"env.flicker={self.flicker} must be a chance, from 0 to 1")

    @property
    def num_envs(self) -> int:
        """Rows of the batch."""
        return sum(lane.count for lane in self.lanes)

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """`(W,)`, or `(H, W, C)` for pixels."""
        family = self.lanes[0].family
        return family.base.observation_shape if family.base.pixels else (family.observation_width,)

    @property
    def action(self) -> Discrete | Continuous:
        """The agent's action space: discrete, or a vector within [-1, 1]."""
        family = self.lanes[0].family
        width = family.action_width
        if isinstance(family.base.action, Discrete):
            return Discrete(width)
        return Continuous(width, (-1.0,) * width, (1.0,) * width)

    @property
    def truncates(self) -> bool:
        """Whether any step can be truncated, so that values of final observations are needed."""
        return any(lane.family.base.truncates for lane in self.lanes)

    @property
    def simulated(self) -> bool:
        """Whether any lane's step is a physics simulator's."""
        return any(lane.family.base.simulated for lane in self.lanes)

    @property
    def max_steps(self) -> int:
        """The longest trial of any lane."""
        return max(lane.family.base.max_steps for lane in self.lanes)

    @property
    def rows(self) -> tuple[slice, ...]:
        """Each lane's rows of the batch."""
        ends = list(itertools.accumulate(lane.count for lane in self.lanes))
        return tuple(slice(end - lane.count, end) for lane, end in zip(self.lanes, ends, strict=True))

    def evaluation_ids(self, split: str) -> np.ndarray:
        """A task id for every row: the first of each lane's split, int32 `[B]`."""
        return np.concatenate([evaluation_ids(lane.family, split, lane.count) for lane in self.lanes])

    def reset(
        self, key: Array, task_ids: Int[Array, " B"] | None = None
    ) -> tuple[tuple[LaneState, ...], Input]:
        """Begin a meta-episode in every row: of random tasks of the split, or of `task_ids`."""
        states, inputs = [], []
        for i, (lane, rows) in enumerate(zip(self.lanes, self.rows, strict=True)):
            key_ids, key_reset, key_blank = jax.random.split(jax.random.fold_in(key, i), 3)
            ids = self._sample_ids(lane, key_ids) if task_ids is None else task_ids[rows]
            task = jax.vmap(lane.family.make)(ids)
            starts = self._starts(lane, key_reset)
            if starts is None:
                observation, base = self._start(lane, jax.random.split(key_reset, lane.count), task)
            else:
                observation, base = jax.tree.map(lambda leaf, lane=lane: leaf[: lane.count], starts)
            zeros = jnp.zeros(lane.count)
            state = (base, task, jnp.zeros(lane.count, jnp.int32), zeros)
            states.append(LaneState(*state) if starts is None else SimulatedLaneState(*state, starts))
            yes = jnp.ones(lane.count, bool)
            inputs.append(
                Input(
                    _blank(jax.vmap(self._observe)(task, observation), self._blanks(key_blank, lane.count)),
                    jnp.zeros((lane.count, self.action.size)),
                    zeros,
                    yes,
                    yes,
                )
            )
        return tuple(states), _concatenate(inputs)

    def stagger(self, states: tuple[LaneState, ...], every: int) -> tuple[LaneState, ...]:
        """First trials cut short by 0, 1, 2, … times `every` steps, one row after the other.

        Trials that only a time limit ends would begin and end in step for ever, and a rollout of `every`
        steps show one part of them alone. They still end together with a rollout where `every` divides
        their length, so that resets are paid for once in it. Lanes without a time limit are left alone.
        """
        staggered = []
        for lane, state in zip(self.lanes, states, strict=True):
            base = lane.family.base
            if base.truncates:
                late = jnp.arange(lane.count) % max(1, base.max_steps // every) * every
                state = state.replace(base=state.base.replace(time=late.astype(state.base.time.dtype)))
            staggered.append(state)
        return tuple(staggered)

    def step(
        self, key: Array, states: tuple[LaneState, ...], action: Array
    ) -> tuple[tuple[LaneState, ...], Input, Outcome]:
        """One step of every row; trials and meta-episodes that end begin anew.

        `action` is int32 `[B]`, or `[B, A]` within [-1, 1] (clipped).
        """
        return self.step_with(self.step_keys(key), states, action)

    def step_keys(self, key: Array) -> tuple[LaneKeys, ...]:
        """The keys of all that is random in one step; a rollout derives those of all its steps at once."""
        lanes = []
        for i, lane in enumerate(self.lanes):
            key_step, key_reset, key_ids, key_blank = jax.random.split(jax.random.fold_in(key, i), 4)
            rows = lane.count
            steps, resets = jax.random.split(key_step, rows), jax.random.split(key_reset, rows)
            lanes.append(LaneKeys(steps, resets, key_ids, self._blanks(key_blank, rows)))
        return tuple(lanes)

    def step_with(
        self, keys: tuple[LaneKeys, ...], states: tuple[LaneState, ...], action: Array
    ) -> tuple[tuple[LaneState, ...], Input, Outcome]:
        """`step` with the keys that `step_keys` gave."""
        new_states, inputs, outcomes = [], [], []
        for lane, rows, lane_keys, state in zip(self.lanes, self.rows, keys, states, strict=True):
            state, inp, outcome = self._step_lane(lane, lane_keys, state, action[rows])
            new_states.append(state)
            inputs.append(inp)
            outcomes.append(outcome)
        return tuple(new_states), _concatenate(inputs), _concatenate(outcomes)

    def base_actions(self, states: tuple[LaneState, ...], action: Array) -> tuple[Array, ...]:
        """What the agent's actions mean to each lane's base environment."""
        return tuple(self._by_lane(self._act, states, action))

    def unprojected(self, states: tuple[LaneState, ...], inputs: Input) -> Input:
        """`inputs` as they would be without projections: whoever trained on those reads every task alike.

        Observations `[B, W]` and previous actions `[B, A]` are the base environment's, with zeros to the
        agent's widths. Needs observations at least as wide as the base environments' own.
        """
        return _concatenate(self._by_lane(self._unprojected, states, inputs))

    def _by_lane(self, function: Callable[..., Any], states: tuple[LaneState, ...], given: Any) -> list[Any]:
        """`function(family, task, row)` of every row of `given`, a list over lanes."""
        parts = []
        for lane, rows, state in zip(self.lanes, self.rows, states, strict=True):
            own = jax.tree.map(lambda leaf, rows=rows: leaf[rows], given)
            parts.append(jax.vmap(partial(function, lane.family))(state.task, own))
        return parts

    def _unprojected(self, family: TaskFamily, task: Task, seen: Input) -> Input:
        observation, action = seen.observation, seen.action
        if (matrix := task.observation_matrix) is not None:
            # columns are orthogonal, and of length 1 but for what each entry was divided by
            observation = (matrix.T @ observation) / (matrix**2).sum(0)
            observation = jnp.pad(observation, (0, matrix.shape[0] - matrix.shape[1]))
        if task.action_table is not None:
            action = jnp.zeros_like(action).at[task.action_table].add(action)
        elif task.action_matrix is not None:
            action = jnp.clip(task.action_matrix @ action, -1.0, 1.0)
            action = jnp.pad(action, (0, self.action.size - family.base.action.size))
        return seen.replace(observation=observation, action=action)

    def projected(self, states: tuple[LaneState, ...], wanted: Array) -> Array:
        """What the agent should do for its base environment to do as `wanted`, `[B, A]` both.

        Continuous actions are clipped to [-1, 1]: one that a projection turns out of the box is missed. Of
        discrete ones `wanted` are probabilities, and so is what they become: actions that mean the same have
        equal parts.
        """
        return _concatenate(self._by_lane(self._projected, states, wanted))

    def _projected(self, family: TaskFamily, task: Task, wanted: Array) -> Array:
        if (table := task.action_table) is not None:
            alike = jnp.zeros(wanted.size).at[table].add(1.0)
            # surplus actions of the teacher's repeat valid ones, as its own table did
            own = jnp.zeros(wanted.size).at[jnp.arange(wanted.size) % family.base.action.size].add(wanted)
            return own[table] / alike[table]
        if (matrix := task.action_matrix) is not None:
            return jnp.clip(matrix.T @ wanted[: matrix.shape[0]], -1.0, 1.0)
        return wanted

    def _step_lane(
        self, lane: Lane, keys: LaneKeys, state: LaneState, action: Array
    ) -> tuple[LaneState, Input, Outcome]:
        family, n = lane.family, lane.count
        env_action = jax.vmap(self._act, (None, 0, 0))(family, state.task, action)
        observation, base, raw, terminated, truncated = jax.vmap(family.base.step)(
            keys.step, state.base, env_action, state.task.params
        )
        trial_end = terminated | truncated
        meta_end = trial_end & (state.trial == self.trials - 1)
        if self.trials > 1:
            terminated, truncated = terminated | meta_end, truncated & ~meta_end
        trial_return = state.trial_return + raw
        reward = raw * lane.reward_scale
        previous = (
            jax.nn.one_hot(action, self.action.size)
            if isinstance(self.action, Discrete)
            else jnp.clip(action, -1.0, 1.0)
        )
        no = jnp.zeros(n, bool)
        seen = reward if self.reward_input else jnp.zeros_like(reward)
        last = _blank(jax.vmap(self._observe)(state.task, observation), keys.blank)
        final = Input(last, previous, seen, no, no)

        def new_tasks(task: Task) -> Task:
            fresh = jax.vmap(family.make)(self._sample_ids(lane, keys.ids))
            return _select(meta_end, fresh, task)

        def new_trials(now: tuple[Array, Any], task: Task) -> tuple[Array, Any]:
            return _select(trial_end, self._start(lane, keys.reset, task), now)

        def drawn_trials(now: tuple[Array, Any], starts: tuple[Array, Any]) -> tuple[Array, Any]:
            size = starts[0].shape[0]
            drawn = jax.vmap(lambda key: jax.random.randint(key, (), 0, size))(keys.reset)
            return _select(trial_end, jax.tree.map(lambda leaf: leaf[drawn], starts), now)

        task = if_any(meta_end.any(), new_tasks, state.task)
        now, ended = (observation, base), trial_end.any()
        if isinstance(state, SimulatedLaneState):
            # a state of a simulator's is large, and its step long, whatever the accelerator
            observation, base = jax.lax.cond(ended, drawn_trials, lambda now, _: now, now, state.starts)
        else:
            observation, base = if_any(ended, new_trials, now, task)
        next_input = Input(
            _blank(jax.vmap(self._observe)(task, observation), keys.blank),
            jnp.where(meta_end[:, None], 0.0, previous),
            jnp.where(meta_end, 0.0, seen),
            trial_end,
            meta_end,
        )
        next_state = state.replace(
            base=base,
            task=task,
            trial=jnp.where(meta_end, 0, state.trial + trial_end),
            trial_return=jnp.where(trial_end, 0.0, trial_return),
        )
        outcome = Outcome(reward, terminated, truncated, final, trial_end, trial_return, state.trial, raw)
        return next_state, next_input, outcome

    def _start(self, lane: Lane, keys: Array, task: Task) -> tuple[Array, Any]:
        """The first observation and state of a trial in every row."""
        if self.same_start:
            keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), task.id)
        return jax.vmap(lane.family.base.reset)(keys, task.params)

    def _starts(self, lane: Lane, key: Array) -> tuple[Array, Any] | None:
        """What a simulator's trials begin from, if not each from a start of its task's own."""
        base = lane.family.base
        if not base.simulated or self.same_start:
            return None
        # whatever the task: a simulator's parameters are its time limit alone
        return jax.vmap(base.reset, (0, None))(jax.random.split(key, max(lane.count, _STARTS)), base.params)

    def _sample_ids(self, lane: Lane, key: Array) -> Int[Array, " N"]:
        ids = lane.family.ids(self.split)
        return jax.random.randint(key, (lane.count,), ids.start, ids.stop)

    def _blanks(self, key: Array, rows: int) -> Bool[Array, " N"] | None:
        return jax.random.bernoulli(key, self.flicker, (rows,)) if self.flicker else None

    def _observe(self, task: Task, observation: Array) -> Array:
        if task.observation_matrix is not None:
            return task.observation_matrix @ observation
        missing = [(0, w - d) for w, d in zip(self.observation_shape, observation.shape, strict=True)]
        return jnp.pad(observation, missing)

    def _act(self, family: TaskFamily, task: Task, action: Array) -> Array:
        space = family.base.action
        if isinstance(space, Discrete):
            assert task.action_table is not None
            return task.action_table[action]
        action = jnp.clip(action, -1.0, 1.0)
        action = action[: space.size] if task.action_matrix is None else task.action_matrix @ action
        low, high = jnp.asarray(space.low), jnp.asarray(space.high)
        return low + (high - low) * (jnp.clip(action, -1.0, 1.0) + 1.0) / 2.0


def make_lanes(
    families: Sequence[TaskFamily], num_envs: int, reward_scales: Sequence[float] | None = None
) -> tuple[Lane, ...]:
    """Equal contiguous shares of `num_envs`, each with its reward scale (1 by default).

    Raises `ValueError` where they don't divide.
    """
    if num_envs % len(families):
        n = len(families)
        raise ValueError(
            f"num_envs={num_envs} is not divisible by the {n} base environments of this task; "
            f"use {num_envs // n * n or n} or {(num_envs // n + 1) * n}"
        )
    scales = [1.0] * len(families) if reward_scales is None else reward_scales
    return tuple(
        Lane(family, num_envs // len(families), scale) for family, scale in zip(families, scales, strict=True)
    )


def _select(condition: Bool[Array, " N"], new: Any, old: Any) -> Any:
    return jax.tree.map(
        lambda a, b: jnp.where(condition.reshape(condition.shape + (1,) * (b.ndim - 1)), a, b), new, old
    )


def _blank(observations: Array, blank: Bool[Array, " N"] | None) -> Array:
    return observations if blank is None else _select(blank, jnp.zeros_like(observations), observations)


def _concatenate(parts: list[Any]) -> Any:
    return parts[0] if len(parts) == 1 else jax.tree.map(lambda *xs: jnp.concatenate(xs), *parts)
