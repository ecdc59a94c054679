"""Recurrent PPO (arXiv 1707.06347) over any memory core.

Whole sequences per minibatch, with the carry that the rollout began with: on the first minibatch the
recomputed policy is the one that acted, so the ratio is 1. Minibatches are drawn over the batch, never over
time.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int

from ..cores import Carry, Core
from ..cores.sharded import by_rows, over_rows, over_time, rows_everywhere
from ..envs import Input, MetaEnv
from .distributions import Policy, make_policy
from .gae import advantages
from .network import ENCODERS, ActorCritic
from .normalize import Statistics, add, no_statistics, normalize
from .pack import pack, unpack
from .teacher import Teacher

DTYPES = ("float32", "bfloat16")
ENVIRONMENTS = ("env_state", "inputs", "carry", "discounted")  # of an `AgentState`: one row an environment
_LARGEST_LIFT = 10.0  # rewards of one lane are divided by no less than a tenth of the widest lane's spread


@dataclasses.dataclass(frozen=True)
class PPOConfig:
    """Hyper-parameters; configs/train.yaml says what each means. Checked before anything is traced."""

    num_steps: int = 128
    epochs: int = 4
    minibatches: int = 4
    updates: int = 1000  # length of the learning-rate schedule
    lr: float = 5e-4
    lr_final: float | None = None
    gamma: float = 0.99
    gae_lambda: float = 0.95
    gae_across_trials: bool = False
    clip: float = 0.2
    entropy: float = 0.01
    value_coef: float = 0.5
    max_grad_norm: float = 0.5
    normalize_observations: bool = False
    observation_clip: float = 10.0
    normalize_returns: bool = False
    advantages_by_environment: bool = False
    stagger: bool = False
    hold_noise: int = 1
    encoder: str = "bilinear"
    head_features: int = 0
    action_levels: int | None = None
    changes: bool = False
    teacher_weight: float = 1.0
    teacher_updates: float | None = None  # until a teacher's word counts for nothing (None: it always counts)
    dtype: str = "float32"  # of activations: see `ActorCritic`

    def __post_init__(self) -> None:
        for name in ("num_steps", "epochs", "minibatches", "updates", "hold_noise"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("lr", "clip", "max_grad_norm", "observation_clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be greater than 0")
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must lie between 0 and 1")
        if self.lr_final is not None and self.lr_final < 0:
            raise ValueError(f"lr_final={self.lr_final} must not be negative")
        if self.encoder not in ENCODERS:
            raise ValueError(f"unknown network.encoder={self.encoder!r}; choose from {', '.join(ENCODERS)}")
        if self.head_features < 0:
            raise ValueError(f"network.head_features={self.head_features} must not be negative")
        if self.dtype not in DTYPES:
            raise ValueError(f"unknown dtype={self.dtype!r}; choose from {', '.join(DTYPES)}")


class AgentState(struct.PyTreeNode):
    """Everything that training needs to go on: what a checkpoint holds.

    `inputs` and `carry` are those of the next step; `discounted` is the running discounted return of each
    row, whose spread, in `returns`, scales rewards where `normalize_returns` is on: an entry a lane, or no
    axis where there is one lane (or one spread for all, as in runs that began so).
    """

    params: Any
    opt_state: Any
    env_state: Any
    inputs: Input
    carry: Carry
    key: Array
    update: Int[Array, ""]
    observations: Statistics
    returns: Statistics
    discounted: Float[Array, " B"]
    bad_updates: Int[Array, ""]
    bad_in_a_row: Int[Array, ""]


class Rollout(struct.PyTreeNode):
    """What one rollout leaves for the update; leaves `[T, B, ...]`."""

    inputs: Input
    action: Array  # raw, as the policy drew it
    log_prob: Float[Array, "T B"]
    value: Float[Array, "T B"]
    reward: Float[Array, "T B"]
    terminated: Bool[Array, "T B"]
    truncated: Bool[Array, "T B"]
    final_value: Float[Array, "T B"]
    trial_end: Bool[Array, "T B"]
    trial_return: Float[Array, "T B"]
    advice: Float[Array, "T B A"] | None = None  # a teacher's


class Agent:
    """A network, its policy and PPO's `init` and `update`, as pure functions of an `AgentState`.

    A `teacher` is followed in training alone, beside the rewards: see `Teacher`.
    """

    def __init__(self, config: PPOConfig, env: MetaEnv, core: Core, teacher: Teacher | None = None):
        if env.num_envs % config.minibatches:
            n = config.minibatches
            raise ValueError(
                f"num_envs={env.num_envs} is not divisible by minibatches={n}; "
                f"use {env.num_envs // n * n or n} or {(env.num_envs // n + 1) * n}"
            )
        if core.spatial and len(env.observation_shape) != 3:
            raise ValueError(
                f"the core {type(core).__name__} is spatial and needs pixels, but "
                f"{env.lanes[0].family.base.name} observes {env.observation_shape}; "
                "use a vector core such as core=s5"
            )
        if config.dtype != "float32":
            _check_dtype(core, env.observation_shape, jnp.dtype(config.dtype))
        if teacher is not None:
            teacher.check(env)
        self.config, self.env, self.teacher = config, env, teacher
        self.policy: Policy = make_policy(env.action, config.action_levels)
        self.network = ActorCritic(
            core, self.policy.num_params, config.encoder, config.head_features, jnp.dtype(config.dtype)
        )
        self.optimizer = optax.chain(
            optax.clip_by_global_norm(config.max_grad_norm), optax.adam(self._schedule, eps=1e-5)
        )

    def _schedule(self, count: Any) -> Array:
        config = self.config
        final = config.lr if config.lr_final is None else config.lr_final
        steps = config.updates * config.epochs * config.minibatches
        return config.lr + (final - config.lr) * jnp.minimum(count / steps, 1.0)

    def init(self, key: Array) -> AgentState:
        """A fresh agent in freshly reset environments."""
        key, key_env, key_params = jax.random.split(key, 3)
        return self.fresh(key, key_params, self.environments(key_env))

    def fresh(self, key: Array, key_params: Array, environments: dict[str, Any]) -> AgentState:
        """A fresh agent, which goes on by `key`, in what `environments` gave."""
        learnt = self.learnt(key_params)
        zero = jnp.zeros((), jnp.int32)
        lanes = len(self.env.lanes)
        return AgentState(
            **environments,
            **learnt,
            opt_state=self.optimizer.init(learnt["params"]),
            key=key,
            update=zero,
            returns=no_statistics((lanes,) if lanes > 1 else ()),
            bad_updates=zero,
            bad_in_a_row=zero,
        )

    def learnt(self, key: Array) -> dict[str, Any]:
        """What acting needs of a fresh agent: `params` and `observations`. No environment is reset for it."""
        no = jnp.zeros(1, bool)
        blank = jnp.zeros((1, *self.env.observation_shape))
        inputs = Input(blank, jnp.zeros((1, self.env.action.size)), jnp.zeros(1), no, no)
        carry, inputs = self._with_changes(self.initial_carry(1), _one_step(inputs))
        return {
            "params": self.network.init(key, carry, inputs),
            "observations": no_statistics(inputs.observation.shape[2:]),
        }

    def environments(self, key: Array) -> dict[str, Any]:
        """The parts of a state that `ENVIRONMENTS` names, at the start of training."""
        env_state, inputs = self.env.reset(key)
        if self.config.stagger:
            env_state = self.env.stagger(env_state, self.config.num_steps)
        batch = self.env.num_envs
        carry = self.initial_carry(batch)
        return {
            "env_state": env_state,
            "inputs": inputs,
            "carry": carry,
            "discounted": jnp.zeros(batch),
        }

    def initial_carry(self, batch: int) -> Carry:
        """The core's empty memory for `batch` rows; with `changes`, the last observation beside it."""
        shape = self.env.observation_shape
        carry = self.network.initial_carry(batch, shape)
        return (carry, jnp.zeros((batch, *shape))) if self.config.changes else carry

    def apply(
        self, params: Any, observations: Statistics, carry: Carry, inputs: Input
    ) -> tuple[Carry, Float[Array, "T B P"], Float[Array, "T B"]]:
        """Carry, policy parameters and values for inputs `[T, B, ...]`."""
        carry, y = self._remember(params, observations, carry, inputs)
        return carry, self._head("policy", params, y), self._head("value", params, y)

    def _remember(
        self, params: Any, observations: Statistics, carry: Carry, inputs: Input
    ) -> tuple[Carry, Float[Array, "T B D"]]:
        last = inputs.observation[-1]
        carry, inputs = self._with_changes(carry, inputs)
        if self.config.normalize_observations:
            observation = normalize(observations, inputs.observation, self.config.observation_clip)
            inputs = inputs.replace(observation=observation)
        remember = partial(self.network.apply, method="remember")
        carry, y = by_rows(remember, params, carry, inputs)
        return ((carry, last) if self.config.changes else carry), y

    def _with_changes(self, carry: Carry, inputs: Input) -> tuple[Carry, Input]:
        """The core's carry, and inputs `[T, B, ...]` that show observations and their changes since the last.

        How an action changes what is seen is what a projection hides. A memory could keep the observation
        before, but first it would have to learn to. Nothing changes where a trial begins.
        """
        if not self.config.changes:
            return carry, inputs
        carry, last = carry
        now = inputs.observation
        before = jnp.concatenate([last[None], now[:-1]])
        begins = inputs.episode_start | inputs.reset
        before = jnp.where(begins.reshape(begins.shape + (1,) * (now.ndim - 2)), now, before)
        return carry, inputs.replace(observation=jnp.concatenate([now, now - before], axis=-1))

    def _head(self, name: str, params: Any, y: Array) -> Array:
        out: Any = self.network.apply(params, y, method=name)
        return out

    def act(
        self, params: Any, observations: Statistics, carry: Carry, inputs: Input, key: Array, greedy: bool
    ) -> tuple[Carry, Array]:
        """One step for inputs `[B, ...]`: the next carry and a raw action."""
        carry, y = self._remember(params, observations, carry, _one_step(inputs))
        policy_params = self._head("policy", params, y[0])
        noise = None if greedy else self.policy.noise(key, policy_params.shape[0])
        return carry, self.policy.mode(policy_params) if noise is None else self.policy.draw(
            noise, policy_params
        )

    def update(self, state: AgentState) -> tuple[AgentState, dict[str, Array]]:
        """One rollout and the epochs over it; metrics are scalars."""
        key, key_rollout, key_epochs = jax.random.split(state.key, 3)
        state = state.replace(key=key)
        first_carry = state.carry
        state, rollout = self._rollout(state, key_rollout)
        _, _, last_value = self.apply(state.params, state.observations, state.carry, _one_step(state.inputs))
        rewards, returns, discounted = self._scale_rewards(state, rollout)
        advantage = advantages(
            rewards,
            rollout.value,
            last_value[0],
            rollout.terminated,
            rollout.truncated,
            rollout.final_value,
            self.config.gamma,
            self.config.gae_lambda,
        )
        params, opt_state, losses = self._epochs(state, first_carry, rollout, advantage, key_epochs)
        bad = losses.pop("bad").sum().astype(jnp.int32)
        state = state.replace(
            params=params,
            opt_state=opt_state,
            update=state.update + 1,
            returns=returns,
            discounted=discounted,
            bad_updates=state.bad_updates + (bad > 0),
            bad_in_a_row=jnp.where(bad > 0, state.bad_in_a_row + 1, 0),
        )
        if self.config.normalize_observations:
            seen = self._with_changes(first_carry, rollout.inputs)[1].observation
            state = state.replace(observations=add(state.observations, seen))
        metrics = {name: value.mean() for name, value in losses.items() if name != "ratio_error"}
        metrics |= self._returns(rollout)
        metrics |= {
            "trials_finished": rollout.trial_end.sum(),
            "first_ratio_error": losses["ratio_error"][0],
            "explained_variance": _explained_variance(rollout.value, rollout.value + advantage),
            "bad_minibatches": bad,
            "bad_updates": state.bad_updates,
            "bad_in_a_row": state.bad_in_a_row,
        }
        return state, metrics

    def _rollout(self, state: AgentState, key: Array) -> tuple[AgentState, Rollout]:
        """Act for `num_steps` steps.

        The loop holds what has to wait for the step before, and nothing else: all random numbers are drawn
        ahead of it, and log-probabilities and values are taken from its outputs at once. On a GPU a step of
        a small network costs what its kernels cost to start.
        """
        keys = jax.vmap(jax.random.split)(jax.random.split(key, self.config.num_steps))  # [T, 2]
        # Independent from step to step, it averages itself out before a body moves: see configs/train.yaml.
        held = jnp.arange(self.config.num_steps) // self.config.hold_noise * self.config.hold_noise
        noise = jax.vmap(self.policy.noise, (0, None))(keys[held, 0], self.env.num_envs)
        env_keys = jax.vmap(self.env.step_keys)(keys[:, 1])

        like: list[Any] = []  # the shapes of what a step leaves, left behind by tracing it

        def step(loop: tuple[Any, Input, Carry], chance: tuple[Array, Any]) -> tuple[Any, Any]:
            states, inputs, carry = loop
            noise, env_keys = chance
            carry, y = self._remember(state.params, state.observations, carry, _one_step(inputs))
            policy_params = self._head("policy", state.params, y[0])
            raw = self.policy.draw(noise, policy_params)
            env_state, next_inputs, outcome = self.env.step_with(env_keys, states, self.policy.to_env(raw))
            terminated, truncated = outcome.terminated, outcome.truncated
            if self.config.gae_across_trials:
                terminated, truncated = terminated & next_inputs.reset, truncated & next_inputs.reset
            seen: dict[str, Any] = {
                "inputs": inputs,
                "action": raw,
                "reward": outcome.reward,
                "terminated": terminated,
                "truncated": truncated,
                "final_value": self._final_value(state, carry, outcome.final, truncated),
                "trial_end": outcome.trial_end,
                "trial_return": outcome.trial_return,
            }
            if self.teacher is not None:
                seen["advice"] = self.teacher.advise(self.env, states, inputs)
            seen |= {"policy_params": policy_params, "y": y[0]}
            like.append(jax.eval_shape(lambda: seen))
            return (env_state, next_inputs, carry), pack(seen)

        start = (state.env_state, state.inputs, state.carry)
        # Two steps a turn: half the copies from what a step made to where the next one reads; not where a
        # step is a simulator's, beside which copies are nothing and whose program takes minutes to compile.
        unroll = 1 if jax.default_backend() == "cpu" or self.env.simulated else 2
        (env_state, inputs, carry), seen = jax.lax.scan(step, start, (noise, env_keys), unroll=unroll)
        transition = unpack(seen, like.pop())
        policy_params, y = transition.pop("policy_params"), transition.pop("y")
        rollout = Rollout(
            **transition,
            log_prob=self.policy.log_prob(policy_params, transition["action"]),
            value=self._head("value", state.params, y),
        )
        return state.replace(env_state=env_state, inputs=inputs, carry=carry), rollout

    def _final_value(
        self, state: AgentState, carry: Carry, final: Input, truncated: Array
    ) -> Float[Array, " B"]:
        """The value of the state a time limit cut off: one extra core step, whose carry is thrown away."""
        none = jnp.zeros(truncated.shape)
        needed = self.env.truncates and not (self.config.gae_across_trials and self.env.trials > 1)
        if not needed:
            return none
        return jax.lax.cond(
            truncated.any(),
            lambda: self.apply(state.params, state.observations, carry, _one_step(final))[2][0],
            lambda: none,
        )

    def _returns(self, rollout: Rollout) -> dict[str, Array]:
        """The mean return of the trials that ended, of all and of every lane; NaN where none did."""
        returns = {"episode_return": _masked_mean(rollout.trial_return, rollout.trial_end)}
        if len(self.env.lanes) > 1:
            for lane, rows in zip(self.env.lanes, self.env.rows, strict=True):
                mean = _masked_mean(rollout.trial_return[:, rows], rollout.trial_end[:, rows])
                returns[f"episode_return/{lane.family.base.name}"] = mean
        return returns

    def _scale_rewards(self, state: AgentState, rollout: Rollout) -> tuple[Array, Statistics, Array]:
        if not self.config.normalize_returns:
            return rollout.reward, state.returns, state.discounted

        def accumulate(total: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
            reward, end = step
            total = self.config.gamma * total + reward
            return jnp.where(end, 0.0, total), total

        end = rollout.terminated | rollout.truncated
        discounted, totals = jax.lax.scan(accumulate, state.discounted, (rollout.reward, end))
        # The spread known before this rollout, so that all of its rewards are scaled alike. A lane that pays
        # much must not drown those that pay little, and one that has hardly ever paid has hardly a spread.
        spread = state.returns.std
        spread = jnp.maximum(spread, spread.max() / _LARGEST_LIFT)
        # Before any lane has paid there is nothing to go by: the first reward ever would count as 10,000.
        spread = jnp.where(state.returns.squares.max() > 0, spread, 1.0).reshape(-1, 1)
        spread = jnp.broadcast_to(spread, (spread.size, self.env.num_envs // spread.size)).reshape(-1)
        # the rows of every lane apart: lanes share the batch equally (`make_lanes`)
        totals = jnp.moveaxis(totals.reshape(len(totals), *state.returns.mean.shape, -1), -1, 1)
        return rollout.reward / spread, add(state.returns, totals), discounted

    def _epochs(
        self, state: AgentState, first_carry: Carry, rollout: Rollout, advantage: Array, key: Array
    ) -> tuple[Any, Any, dict[str, Array]]:
        config, batch = self.config, self.env.num_envs
        rows = jax.vmap(lambda k: jax.random.permutation(k, batch))(jax.random.split(key, config.epochs))
        rows = rows.reshape(config.epochs * config.minibatches, batch // config.minibatches)
        # Several devices: any row may be in any device's part of a minibatch. The rollout, small beside what
        # the network makes of it, is exchanged once; every minibatch then lies at hand.
        first_carry = jax.tree.map(lambda leaf: rows_everywhere(leaf, axis=0), first_carry)
        fade = config.teacher_updates
        shown = config.teacher_weight * (1.0 if fade is None else jnp.maximum(1 - state.update / fade, 0.0))
        scaled = self._scale_advantages(advantage)
        rollout, advantage, scaled = jax.tree.map(
            lambda leaf: rows_everywhere(leaf, axis=1), (rollout, advantage, scaled)
        )

        loss = jax.value_and_grad(
            lambda params, *args: self._loss(whole(params), state.observations, shown, *args), has_aux=True
        )
        names: list[str] = []  # of the losses, left behind by tracing a minibatch

        def minibatch(train: tuple[Array, Any], rows: Array) -> tuple[Any, Array]:
            params, opt_state = train
            carry = jax.tree.map(lambda leaf: over_rows(leaf[rows], axis=0), first_carry)
            part, adv, wanted = jax.tree.map(
                lambda leaf: over_time(over_rows(_take_rows(leaf, rows), axis=1), axis=0),
                (rollout, advantage, scaled),
            )
            (total, terms), gradient = loss(params, carry, part, adv, wanted)
            norm = optax.tree.norm(gradient)
            good = jnp.isfinite(total) & jnp.isfinite(norm)
            changes, new_opt_state = self.optimizer.update(gradient, opt_state, params)
            new = (optax.apply_updates(params, changes), new_opt_state)
            train = jax.tree.map(lambda a, b: jnp.where(good, a, b), new, train)
            terms |= {"loss": total, "grad_norm": norm, "bad": ~good}
            names[:] = terms
            return train, jnp.stack([jnp.asarray(term, jnp.float32) for term in terms.values()])

        # All parameters are one vector in here: the gradient's norm and Adam are then a kernel or two,
        # where leaf by leaf they are two for each of some thirty.
        params, whole = ravel_pytree(state.params)
        like = jax.tree.structure(state.params)

        def is_whole(node: Any) -> bool:
            return jax.tree.structure(node) == like

        opt_state = jax.tree.map(
            lambda node: ravel_pytree(node)[0] if is_whole(node) else node, state.opt_state, is_leaf=is_whole
        )
        (params, opt_state), losses = jax.lax.scan(minibatch, (params, opt_state), rows)
        opt_state = jax.tree.map(lambda leaf: whole(leaf) if leaf.shape == params.shape else leaf, opt_state)
        return whole(params), opt_state, dict(zip(names, losses.T, strict=True))

    def _scale_advantages(self, advantage: Float[Array, "T B"]) -> Float[Array, "T B"]:
        """What the policy's loss weighs actions by, before a minibatch's own mean and spread are taken out.

        Beside an environment whose returns vary much, the differences that another's actions make are small,
        and its policy hardly moves: apart, each has mean 0 and spread 1, lifted by `_LARGEST_LIFT` at most,
        since the advantages of one that has never paid are a value function's errors.
        """
        lanes = len(self.env.lanes)
        if not self.config.advantages_by_environment or lanes == 1:
            return advantage
        apart = advantage.reshape(len(advantage), lanes, -1)  # lanes share the batch equally (`make_lanes`)
        spread = apart.std((0, 2), keepdims=True)
        spread = jnp.maximum(spread, spread.max() / _LARGEST_LIFT) + 1e-8
        return ((apart - apart.mean((0, 2), keepdims=True)) / spread).reshape(advantage.shape)

    def _loss(
        self,
        params: Any,
        observations: Statistics,
        teacher_weight: Array | float,
        carry: Carry,
        rollout: Rollout,
        advantage: Array,
        scaled: Array,
    ) -> tuple[Array, dict[str, Array]]:
        config = self.config
        _, policy_params, value = self.apply(params, observations, carry, rollout.inputs)
        log_ratio = self.policy.log_prob(policy_params, rollout.action) - rollout.log_prob
        ratio = jnp.exp(log_ratio)
        target = rollout.value + advantage
        scaled = (scaled - scaled.mean()) / (scaled.std() + 1e-8)
        clipped = jnp.clip(ratio, 1 - config.clip, 1 + config.clip)
        policy_loss = -jnp.minimum(ratio * scaled, clipped * scaled).mean()
        near = rollout.value + jnp.clip(value - rollout.value, -config.clip, config.clip)
        value_loss = 0.5 * jnp.maximum((value - target) ** 2, (near - target) ** 2).mean()
        entropy = self.policy.entropy(policy_params).mean()
        loss = policy_loss + config.value_coef * value_loss - config.entropy * entropy
        taught = {}
        if self.teacher is not None:
            assert rollout.advice is not None
            taught["teacher_loss"] = self.policy.cross_entropy(policy_params, rollout.advice).mean()
            loss = loss + teacher_weight * taught["teacher_loss"]
        return loss, taught | {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            "approx_kl": (ratio - 1 - log_ratio).mean(),
            "clip_fraction": (jnp.abs(ratio - 1) > config.clip).mean(),
            "ratio_error": jnp.abs(ratio - 1).max(),
        }


def _check_dtype(core: Core, observation_shape: tuple[int, ...], dtype: jnp.dtype) -> None:
    """Raise `ValueError` unless the core takes inputs of `dtype` as it takes float32; nothing is computed."""
    size = (observation_shape[0], observation_shape[1]) if core.spatial else None
    carry = jax.eval_shape(lambda: core.initial_carry(1, size))
    x = jax.ShapeDtypeStruct((1, 1, *(size or ()), core.features), dtype)
    reset = jax.ShapeDtypeStruct((1, 1), jnp.bool_)
    (after, y), _ = jax.eval_shape(core.init_with_output, jax.random.key(0), carry, x, reset)
    before, after = ([leaf.dtype for leaf in jax.tree.leaves(tree)] for tree in (carry, after))
    if y.dtype != dtype or before != after:
        raise ValueError(
            f"the core {type(core).__name__} changes the dtype of its memory or of {dtype} inputs; "
            "use precision=default"
        )


def _one_step(inputs: Input) -> Input:
    """Inputs `[B, ...]` as a sequence of one, `[1, B, ...]`."""
    return jax.tree.map(lambda leaf: leaf[None], inputs)


def _take_rows(x: Float[Array, "T B *D"], rows: Int[Array, " b"]) -> Float[Array, "T b *D"]:
    """`x[:, rows]`, gathered along one flat axis of steps and rows.

    Of a gather along the second axis XLA makes one along the first and a transposition, which it puts off by
    laying out all that follows with the rows outermost: on a GPU every layer then transposes back and forth.
    """
    steps, batch = x.shape[:2]
    at = jnp.arange(steps)[:, None] * batch + rows
    return x.reshape(steps * batch, *x.shape[2:]).at[at].get(mode="promise_in_bounds")


def _masked_mean(values: Array, mask: Array) -> Array:
    """NaN where nothing is masked."""
    return jnp.where(mask, values, 0.0).sum() / mask.sum()


def _explained_variance(values: Array, targets: Array) -> Array:
    variance = targets.var()
    return jnp.where(variance > 0, 1 - (targets - values).var() / variance, 0.0)
