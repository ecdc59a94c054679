"""From names and options to a batch of meta-environments, with everything checked before it is built."""

from collections.abc import Mapping
from typing import Any

from .base import BaseEnv, Discrete
from .meta import MetaEnv, make_lanes
from .registry import make_env
from .scores import observation_rms
from .tasks import TaskFamily

PROJECTIONS = ("none", "orthogonal", "words")
OBSERVATION_SCALES = ("own", "random")


def make_meta_env(
    lanes: Mapping[str, Mapping[str, Any]],
    *,
    num_envs: int,
    trials: int,
    split: str = "train",
    held_out_lanes: Mapping[str, Mapping[str, Any]] | None = None,
    projection: str = "none",
    observation_width: int | None = None,
    action_width: int | None = None,
    observation_scale: str = "own",
    permute_actions: bool = False,
    physics: Mapping[str, tuple[float, float]] | None = None,
    held_out_physics: Mapping[str, tuple[float, float]] | None = None,
    train_tasks: int | None = None,
    reward_scale: float = 1.0,
    reward_scales: Mapping[str, float] | None = None,
    reward_input: bool = True,
    same_start: bool = False,
    flicker: float = 0.0,
    word_generators: int = 4,
    word_length: int = 12,
) -> MetaEnv:
    """A batch of `num_envs` meta-environments of the tasks described; see configs/env/plain.yaml.

    `lanes` maps names of base environments to their options. For `split="held_out"` the `held_out_lanes`
    take their place where there are any. Widths are shared by all base environments, met and unmet, so that
    one agent fits them all. `reward_scales` holds the scales of single base environments, in place of
    `reward_scale`. With `observation_scale="random"` all environments observe numbers of one size: entries
    are divided, before they are projected, by their root mean square under random actions. Raises
    `ValueError`, one sentence, for whatever does not fit.
    """
    if projection not in PROJECTIONS:
        raise ValueError(f"unknown projection {projection!r}; choose from {', '.join(PROJECTIONS)}")
    if observation_scale not in OBSERVATION_SCALES:
        valid = ", ".join(OBSERVATION_SCALES)
        raise ValueError(f"unknown observation_scale {observation_scale!r}; choose from {valid}")
    if observation_scale == "random" and projection == "none":
        raise ValueError(
            "env.observation_scale=random scales what is projected, but env.projection=none; "
            "use env.projection=orthogonal, or normalize_observations=true"
        )
    if trials < 1:
        raise ValueError(f"trials={trials} must be at least 1")
    if train_tasks is not None and train_tasks < 1:
        raise ValueError(f"train_tasks={train_tasks} must be at least 1, or null for an endless number")
    met = {name: make_env(name, **(options or {})) for name, options in lanes.items()}
    unmet = {name: make_env(name, **(options or {})) for name, options in (held_out_lanes or {}).items()}
    if not met:
        raise ValueError("env.lanes names no base environment; give at least one, such as {cartpole: {}}")
    every = [*met.values(), *unmet.values()]
    observation_width = _observation_width(every, projection, observation_width)
    action_width = _action_width(every, projection, action_width)
    if projection == "words":
        _check_words(every, observation_width, word_generators, word_length)
    for name, bounds in {**(physics or {}), **(held_out_physics or {})}.items():
        _check_physics(every, name, bounds)
    for name in held_out_physics or {}:
        if name not in (physics or {}):
            raise ValueError(
                f"env.held_out_physics names {name!r}, which env.physics does not; "
                "give its range for training too"
            )
    for name, scale in (reward_scales or {}).items():
        if name not in {**met, **unmet}:
            valid = ", ".join({**met, **unmet})
            raise ValueError(f"env.reward_scales names {name!r}, which is no lane; it may name {valid}")
        if isinstance(scale, bool) or not isinstance(scale, int | float):
            raise ValueError(f"env.reward_scales.{name}={scale!r} must be a number")
    chosen = unmet if split == "held_out" and unmet else met
    families = [
        TaskFamily(
            base=base,
            projection=projection,
            permute_actions=permute_actions,
            observation_width=observation_width,
            action_width=action_width,
            physics=dict(physics or {}),
            held_out_physics=dict(held_out_physics or {}),
            train_tasks=train_tasks,
            word_generators=word_generators,
            word_length=word_length,
            observation_rms=observation_rms(base.name) if observation_scale == "random" else None,
        )
        for base in chosen.values()
    ]
    for family in families:
        family.ids(split)  # raises where the split is empty
    scales = [float((reward_scales or {}).get(name, reward_scale)) for name in chosen]
    return MetaEnv(make_lanes(families, num_envs, scales), trials, split, reward_input, same_start, flicker)


def _observation_width(bases: list[BaseEnv], projection: str, width: int | None) -> int:
    if projection != "none" and width is not None and width >= 1 and not any(base.pixels for base in bases):
        return width  # whatever is projected: a simulator's own width takes seconds to find out
    shapes = {base.name: base.observation_shape for base in bases}
    if len({base.pixels for base in bases}) > 1:
        raise ValueError(f"environments with pixels and with vectors cannot share a batch: {shapes}")
    if bases[0].pixels:
        if projection != "none":
            raise ValueError(
                f"{bases[0].name} observes pixels, which cannot be projected; use env.projection=none"
            )
        if len(set(shapes.values())) > 1:
            raise ValueError(f"environments with pixels of different shapes cannot share a batch: {shapes}")
        return 0
    widest = max(shape[0] for shape in shapes.values())
    if width is None:
        return widest
    if width < 1 or (projection == "none" and width < widest):
        raise ValueError(
            f"observation_width={width} is too narrow for observations of width {widest}; "
            f"use {widest} or more"
        )
    return width


def _action_width(bases: list[BaseEnv], projection: str, width: int | None) -> int:
    kinds = {base.name: type(base.action).__name__.lower() for base in bases}
    if len(set(kinds.values())) > 1:
        raise ValueError(f"environments with discrete and continuous actions cannot share a batch: {kinds}")
    widest = max(base.action.size for base in bases)
    if width is None:
        return widest
    discrete = isinstance(bases[0].action, Discrete)
    if width < 1 or (width < widest and (discrete or projection == "none")):
        raise ValueError(f"action_width={width} is too narrow for {widest} actions; use {widest} or more")
    return width


def _check_words(bases: list[BaseEnv], width: int, generators: int, length: int) -> None:
    for name, value, least in (("word_generators", generators, 2), ("word_length", length, 1)):
        if value < least:
            raise ValueError(f"env.{name}={value} is too small; use {least} or more")
    for base in bases:
        # rotations of a plane commute, so that different words would be the same projection
        if max(width, base.observation_shape[0]) < 3:
            raise ValueError(
                f"env.projection=words needs three dimensions and {base.name} has "
                f"{base.observation_shape[0]}; use env.observation_width=3 or more"
            )


def _check_physics(bases: list[BaseEnv], name: str, bounds: Any) -> None:
    if name == "max_steps_in_episode":  # evaluation plays, and staggering cuts, trials of one known length
        raise ValueError(
            "env.physics cannot draw max_steps_in_episode: all trials of a lane have one limit; "
            "set it in env.lanes, such as {cartpole: {max_steps_in_episode: 200}}"
        )
    for base in bases:
        if not hasattr(base.params, name):
            valid = ", ".join(k for k in vars(base.params) if k != "max_steps_in_episode")
            raise ValueError(f"env.physics names {name!r}, which {base.name} does not have; it has {valid}")
    if len(bounds) != 2 or not bounds[0] <= bounds[1]:
        raise ValueError(f"env.physics.{name}={list(bounds)} must be [low, high] with low <= high")
