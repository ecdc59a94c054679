"""From a configuration to an agent and its environments."""

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from ..agents import Agent, AgentState, PPOConfig, Teacher
from ..cores import make_core
from ..envs import MetaEnv, make_meta_env
from .config import EnvConfig, TrainConfig
from .errors import InputError


class Placed(Protocol):
    """A configuration that says where it runs, and how exactly."""

    @property
    def device(self) -> str:
        """One of `config.DEVICES`."""
        ...

    @property
    def precision(self) -> str:
        """One of `config.PRECISIONS`, or a dtype: only `highest` means anything to `settings`."""
        ...


def ppo_config(config: TrainConfig) -> PPOConfig:
    """PPO's part of the configuration."""
    shared = {
        name: getattr(config, name)
        for name in (
            *("num_steps", "epochs", "minibatches", "updates", "lr", "lr_final", "gamma", "gae_lambda"),
            *("gae_across_trials", "clip", "entropy", "value_coef", "max_grad_norm"),
            *("normalize_observations", "observation_clip", "normalize_returns"),
            *("advantages_by_environment", "stagger", "hold_noise"),
        )
    }
    return PPOConfig(
        **shared,
        encoder=config.network.encoder,
        head_features=config.network.head_features,
        action_levels=config.network.action_levels,
        changes=config.network.changes,
        teacher_weight=config.teacher.weight,
        teacher_updates=config.teacher.steps and config.teacher.steps / config.steps_per_update,
        dtype="bfloat16" if config.precision == "bfloat16" else "float32",
    )


def build_env(env: EnvConfig, num_envs: int, trials: int, split: str) -> MetaEnv:
    """A batch of the run's environments."""
    return make_meta_env(
        env.met,
        num_envs=num_envs,
        trials=trials,
        split=split,
        held_out_lanes=env.unmet,
        projection=env.projection,
        observation_width=env.observation_width,
        observation_scale=env.observation_scale,
        action_width=env.action_width,
        permute_actions=env.permute_actions,
        physics=env.physics,
        held_out_physics=env.held_out_physics,
        train_tasks=env.train_tasks,
        reward_scale=env.reward_scale,
        reward_scales=env.scales,
        reward_input=env.reward_input,
        same_start=env.same_start,
        flicker=env.flicker,
        word_generators=env.word_generators,
        word_length=env.word_length,
    )


def build_agent(config: TrainConfig, teacher: Teacher | None = None) -> Agent:
    """The agent of a run, with its training environments; nothing is compiled yet."""
    options = dict(config.core)
    core = make_core(options.pop("name"), **{k: v for k, v in options.items() if k != "target"})
    env = build_env(config.env, config.num_envs, config.trials, "train")
    return Agent(ppo_config(config), env, core, teacher)


def seed_keys(config: TrainConfig) -> jax.Array:
    """One key a seed, `[S]`; seed 3 of a batch of seeds is seed 3 alone."""
    return jax.vmap(jax.random.key)(jax.numpy.arange(config.seed, config.seed + config.seeds))


def init_seeds(agent: Agent, config: TrainConfig) -> AgentState:
    """Fresh agents of all seeds, leaves `[S, ...]`.

    One after the other: batched QR (orthogonal initialisation) inside a larger program can deadlock XLA's CPU
    thread pool where there are two cores (seen with jaxlib 0.10.2), so `init` is never vmapped.
    """
    # Two programs: starting simulators takes long to compile, and a run that begins them again finds it kept.
    environments, fresh = jax.jit(agent.environments), jax.jit(agent.fresh)
    states = []
    for key in seed_keys(config):
        key, key_env, key_params = jax.random.split(key, 3)
        states.append(fresh(key, key_params, environments(key_env)))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def begin_again_seeds(agent: Agent, state: AgentState) -> AgentState:
    """The learners of all seeds, `[S, ...]`, in freshly reset environments; one by one, as in `init_seeds`.

    `state` needs none of `ENVIRONMENTS`.
    """
    environments = jax.jit(agent.environments)
    states = []
    for seed in range(state.update.shape[0]):
        alone = jax.tree.map(lambda leaf, seed=seed: leaf[seed], state)
        # a key that lies nowhere in particular, as `init_seeds`' do, or the program would be another one
        here = jnp.asarray(np.asarray(jax.random.key_data(alone.key)))
        key, key_env = jax.random.split(jax.random.wrap_key_data(here))
        states.append(alone.replace(key=key, **environments(key_env)))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def default_device() -> Any:
    """The device that `settings` chose, or JAX's own first."""
    chosen: Any = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    return chosen or jax.local_devices()[0]


@contextlib.contextmanager
def settings(config: Placed) -> Iterator[Any]:
    """The device and the precision of matrix products that the configuration asks for."""
    with contextlib.ExitStack() as stack:
        if config.device != "auto":
            try:
                device = jax.local_devices(backend=config.device)[0]
            except RuntimeError as error:
                present = ", ".join(sorted({d.platform for d in jax.devices()}))
                raise InputError(f"device={config.device} is not here; this machine has {present}") from error
            stack.enter_context(jax.default_device(device))
        if config.precision == "highest":
            stack.enter_context(jax.default_matmul_precision("highest"))
        yield
