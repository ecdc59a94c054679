"""The composed configuration as frozen dataclasses: unknown keys are rejected, before anything is traced."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

from .errors import InputError

PRECISIONS = ("default", "highest", "bfloat16")
DEVICES = ("auto", "cpu", "gpu", "tpu")


@dataclasses.dataclass(frozen=True)
class EnvConfig:
    """The `env` group; configs/env/plain.yaml says what each key means."""

    name: str
    lanes: dict[str, Any]
    held_out_lanes: dict[str, Any] = dataclasses.field(default_factory=dict)
    hold_out: str | list[str] = dataclasses.field(default_factory=list)
    leave_out: str | list[str] = dataclasses.field(default_factory=list)
    projection: str = "none"
    observation_width: int | None = None
    observation_scale: str = "own"
    action_width: int | None = None
    permute_actions: bool = False
    physics: dict[str, Any] = dataclasses.field(default_factory=dict)
    held_out_physics: dict[str, Any] = dataclasses.field(default_factory=dict)
    train_tasks: int | None = None
    reward_scale: float = 1.0
    reward_scales: dict[str, Any] = dataclasses.field(default_factory=dict)
    reward_input: bool = True
    same_start: bool = False
    flicker: float = 0.0
    word_generators: int = 4
    word_length: int = 12
    target: str | None = None  # env=module:Name only; already part of lanes

    @property
    def met(self) -> dict[str, Any]:
        """The base environments of training, with their options."""
        out = [*self._held, *self._left]
        return {name: options for name, options in self.lanes.items() if name not in out}

    @property
    def unmet(self) -> dict[str, Any]:
        """Those of held-out evaluation alone; empty where held-out tasks are of the environments met."""
        unmet = {**self.held_out_lanes, **{name: self.lanes[name] for name in self._held}}
        return {name: options for name, options in unmet.items() if name not in self._left}

    def played(self, split: str) -> dict[str, Any]:
        """The base environments of a split's tasks, with their options."""
        return (split == "held_out" and self.unmet) or self.met

    def with_only(self, split: str, only: str | list[str]) -> "EnvConfig":
        """Of a split's base environments those in `only`, or all where that is empty.

        Raises `InputError` for one that is none of the split's.
        """
        names, kept = [*self.played(split)], _names(only)
        for name in kept:
            if name not in names:
                raise InputError(
                    f"only={name} is no base environment of split={split}; use {', '.join(names)}"
                )
        if not kept:
            return self
        others = [name for name in names if name not in kept]
        return dataclasses.replace(self, leave_out=[*self._left, *others])

    @property
    def scales(self) -> dict[str, Any]:
        """`reward_scales` without those of the environments that are left out."""
        return {name: scale for name, scale in self.reward_scales.items() if name not in self._left}

    @property
    def _left(self) -> list[str]:
        return _names(self.leave_out)

    @property
    def _held(self) -> list[str]:
        return _names(self.hold_out)

    def __post_init__(self) -> None:
        for name in self._held:
            if name not in self.lanes:
                valid = ", ".join(self.lanes)
                raise ValueError(f"env.hold_out names {name!r}, which is none of env.lanes; it has {valid}")
        known = {**self.lanes, **self.held_out_lanes}
        for name in self._left:
            if name not in known:
                valid = ", ".join(known)
                raise ValueError(f"env.leave_out names {name!r}, which is no lane; it may name {valid}")
        if self.lanes and not self.met:
            left = f" and env.leave_out={self.leave_out}" if self._left else ""
            raise ValueError(f"env.hold_out={self.hold_out}{left} leaves nothing to train on; hold out fewer")


def _names(given: str | list[str]) -> list[str]:
    return [given] if isinstance(given, str) else given


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """The `network` section."""

    encoder: str = "bilinear"
    head_features: int = 0
    action_levels: int | None = None
    changes: bool = False


@dataclasses.dataclass(frozen=True)
class GivenAgent:
    """A trained agent that a run is given: the `init` section, and part of `teacher`."""

    run: str | None = None
    pretrained: str | None = None

    @property
    def named(self) -> str | None:
        """The agent's run or name, whichever is given."""
        return self.run if self.pretrained is None else self.pretrained


@dataclasses.dataclass(frozen=True)
class TeacherConfig(GivenAgent):
    """The `teacher` section."""

    weight: float = 1.0
    steps: int | None = None

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise ValueError(f"teacher.weight={self.weight} must not be negative")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"teacher.steps={self.steps} must be at least 1, or null for always")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """The `mesh` section."""

    data: int | None = None
    sequence: int = 1

    def __post_init__(self) -> None:
        for name in ("data", "sequence"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"mesh.{name}={value} must be at least 1")

    def check(self, rows: tuple[int, str], steps: tuple[int, str] | None = None) -> None:
        """Raise `ValueError` unless the devices divide a batch's rows and its steps, each with its name."""
        for parts, name, shared in ((self.data, "data", rows), (self.sequence, "sequence", steps)):
            number, what = shared or (0, "")
            if parts is not None and number % parts:
                fits = [str(n) for n in range(1, min(number, 2 * parts) + 1) if number % n == 0]
                raise ValueError(
                    f"{what} {number}, which mesh.{name}={parts} does not divide; "
                    f"use mesh.{name}={' or '.join(fits[-2:])}"
                )


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """What `resetta train` runs on; configs/train.yaml says what each key means."""

    env: EnvConfig
    core: dict[str, Any]
    network: NetworkConfig
    seed: int
    seeds: int
    total_steps: int
    num_envs: int
    num_steps: int
    epochs: int
    minibatches: int
    lr: float
    lr_final: float | None
    gamma: float
    gae_lambda: float
    gae_across_trials: bool
    clip: float
    entropy: float
    value_coef: float
    max_grad_norm: float
    normalize_observations: bool
    normalize_returns: bool
    trials: int
    eval_tasks: int
    eval_trials: int | None
    eval_greedy: bool
    render: bool
    checkpoint_every: int
    keep_checkpoints: int
    log_every: int
    max_bad_updates: int
    precision: str
    device: str
    tensorboard: bool
    wandb: bool
    run_dir: str | None
    resume: str
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    distributed: bool = False
    stagger: bool = False
    hold_noise: int = 1
    observation_clip: float = 10.0
    advantages_by_environment: bool = False
    init: GivenAgent = dataclasses.field(default_factory=GivenAgent)
    teacher: TeacherConfig = dataclasses.field(default_factory=TeacherConfig)
    checkpoint_environments: bool = True

    @property
    def steps_per_update(self) -> int:
        """Environment steps of one seed in one update."""
        return self.num_envs * self.num_steps

    @property
    def updates(self) -> int:
        """Updates of the whole run: `total_steps` rounded up."""
        return math.ceil(self.total_steps / self.steps_per_update)

    @property
    def evaluation_trials(self) -> int:
        """Trials per evaluated task."""
        return self.eval_trials or 2 * self.trials

    def __post_init__(self) -> None:
        at_least_one = "seeds total_steps num_envs num_steps epochs minibatches trials checkpoint_every"
        for name in (*at_least_one.split(), "keep_checkpoints", "log_every", "max_bad_updates"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.eval_tasks < 0:
            raise ValueError(f"eval_tasks={self.eval_tasks} must not be negative; 0 means no evaluation")
        if self.eval_trials is not None and self.eval_trials < 1:
            raise ValueError(f"eval_trials={self.eval_trials} must be at least 1, or null for twice trials")
        if self.num_envs % self.minibatches:
            low = self.num_envs // self.minibatches * self.minibatches
            cure = f"use {low} or {low + self.minibatches}" if low else f"use {self.minibatches}"
            raise ValueError(
                f"num_envs={self.num_envs} is not divisible by minibatches={self.minibatches}; {cure}"
            )
        lanes = len(self.env.met)
        if lanes and self.num_envs % lanes:
            low = self.num_envs // lanes * lanes
            raise ValueError(
                f"num_envs={self.num_envs} is not divisible by the {lanes} base environments of "
                f"{self.env.name}; use {low or lanes} or {low + lanes}"
            )
        for section, given in (("init", self.init), ("teacher", self.teacher)):
            if given.run is not None and given.pretrained is not None:
                raise ValueError(
                    f"{section}.run={given.run} and {section}.pretrained={given.pretrained} are two agents; "
                    "give one"
                )
        self.check_mesh(self.mesh)
        check_choice("precision", self.precision, PRECISIONS)
        check_choice("device", self.device, DEVICES)
        check_choice("resume", self.resume, ("auto", "never"))
        check_distributed(self.distributed, self.run_dir)

    def check_mesh(self, mesh: MeshConfig) -> None:
        """Raise `ValueError` unless minibatches and rollouts can be cut into equal parts for all devices."""
        rows = f"num_envs={self.num_envs} in minibatches={self.minibatches} makes minibatches of"
        mesh.check((self.num_envs // self.minibatches, rows), (self.num_steps, "num_steps is"))


def train_config(raw: Mapping[str, Any]) -> TrainConfig:
    """A checked `TrainConfig` from the composed dictionary; `ValueError`, one sentence, for a mistake."""
    return build_dataclass(TrainConfig, raw, "")


def defaults(cls: type, prefix: str = "") -> dict[str, Any]:
    """The keys of a configuration that may be absent, dotted, and what their absence means.

    A key that a later version adds has such a default, which is what every run before it did.
    """
    hints, found = typing.get_type_hints(cls), {}
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(hints[field.name]):
            found |= defaults(typing.cast(type, hints[field.name]), f"{prefix}{field.name}.")
        elif field.default is not dataclasses.MISSING:
            found[prefix + field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            found[prefix + field.name] = field.default_factory()
    return found


def build_dataclass(cls: type, raw: Any, prefix: str) -> Any:
    """A dataclass from a mapping, types checked; `prefix` is what comes before a key in an error."""
    if not isinstance(raw, Mapping):
        raise ValueError(
            f"{prefix.rstrip('.') or 'the configuration'}={raw!r} must be a mapping of keys to values"
        )
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = sorted(set(raw) - set(fields))
    if unknown:
        raise ValueError(f"unknown key {prefix}{unknown[0]}; valid keys are {', '.join(fields)}")
    missing = [
        name
        for name, field in fields.items()
        if name not in raw
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"the key {prefix}{missing[0]} is missing")
    return cls(**{name: _convert(hints[name], value, prefix + name) for name, value in raw.items()})


def _convert(hint: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return build_dataclass(typing.cast(type, hint), value, name + ".")
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and type(None) in options:
        return None
    for option in options:
        kind = typing.get_origin(option) or option
        if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
            if math.isnan(value):
                break
            return float(value)
        if kind is int and isinstance(value, float) and value.is_integer():
            return int(value)  # 1e6 is how people write a million
        if kind is int and isinstance(value, bool):
            continue
        if isinstance(kind, type) and isinstance(value, kind):
            return {**value} if isinstance(value, Mapping) else value
    wanted = " or ".join(
        {
            int: "a whole number",
            float: "a number",
            bool: "true or false",
            str: "a word",
            dict: "a mapping",
            list: "a list",
        }.get(typing.get_origin(o) or o, "null")
        for o in options
    )
    raise ValueError(f"{name}={value!r} must be {wanted}")


def check_distributed(distributed: bool, run_dir: str | None) -> None:
    """Raise `ValueError` where several processes would each choose a directory."""
    if distributed and run_dir is None:
        raise ValueError("distributed=true needs run_dir=..., a folder that all processes see")


def check_choice(name: str, value: str, valid: tuple[str, ...]) -> None:
    """Raise `ValueError` for a value that is none of the valid ones."""
    if value not in valid:
        raise ValueError(f"{name}={value!r} must be one of {', '.join(valid)}")
