"""The environments by name. Listing them imports neither JAX nor gymnax; making one does.

    base_env = make_env("cartpole", gravity=12.0, max_steps_in_episode=200)

Options are fields of the environment's parameters or arguments of its constructor. `module:Name` stands
for a user's own gymnax 1.0 `Environment` class, or a factory of one, and so does the name of an entry point
of another package (see `installed`).
"""

import dataclasses
import difflib
import functools
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .installed import installed

if TYPE_CHECKING:
    from .base import BaseEnv

# name: module and class within gymnax.environments
_GYMNAX = {
    "acrobot": "classic_control.acrobot:Acrobot",
    "bsuite_bandit": "bsuite.bandit:SimpleBandit",
    "bsuite_catch": "bsuite.catch:Catch",
    "bsuite_deep_sea": "bsuite.deep_sea:DeepSea",
    "bsuite_discounting_chain": "bsuite.discounting_chain:DiscountingChain",
    "bsuite_memory_chain": "bsuite.memory_chain:MemoryChain",
    "bsuite_umbrella_chain": "bsuite.umbrella_chain:UmbrellaChain",
    "cartpole": "classic_control.cartpole:CartPole",
    "four_rooms": "misc.rooms:FourRooms",
    "frozen_lake": "misc.frozen_lake:FrozenLake",
    "gaussian_bandit": "misc.gaussian_bandit:GaussianBandit",
    "gymnax_bernoulli_bandit": "misc.bernoulli_bandit:BernoulliBandit",
    "meta_maze": "misc.meta_maze:MetaMaze",
    "minatar_asterix": "minatar.asterix:MinAsterix",
    "minatar_breakout": "minatar.breakout:MinBreakout",
    "minatar_freeway": "minatar.freeway:MinFreeway",
    "minatar_seaquest": "minatar.seaquest:MinSeaquest",
    "minatar_space_invaders": "minatar.space_invaders:MinSpaceInvaders",
    "mountain_car": "classic_control.mountain_car:MountainCar",
    "mountain_car_continuous": "classic_control.continuous_mountain_car:ContinuousMountainCar",
    "pendulum": "classic_control.pendulum:Pendulum",
    "point_robot": "misc.point_robot:PointRobot",
    "pong": "misc.pong:Pong",
    "reacher": "misc.reacher:Reacher",
    "swimmer": "misc.swimmer:Swimmer",
}

_BRAX = (
    "ant",
    "fast",
    "halfcheetah",
    "hopper",
    "humanoid",
    "humanoidstandup",
    "inverted_double_pendulum",
    "inverted_pendulum",
    "pusher",
    "reacher",
    "swimmer",
    "walker2d",
)

# MuJoCo Playground's dm_control suite, under names that spell its own: PointMass is dm_point_mass
_PLAYGROUND = (
    "dm_acrobot_swingup",
    "dm_acrobot_swingup_sparse",
    "dm_ball_in_cup",
    "dm_cartpole_balance",
    "dm_cartpole_balance_sparse",
    "dm_cartpole_swingup",
    "dm_cartpole_swingup_sparse",
    "dm_cheetah_run",
    "dm_finger_spin",
    "dm_finger_turn_easy",
    "dm_finger_turn_hard",
    "dm_fish_swim",
    "dm_hopper_hop",
    "dm_hopper_stand",
    "dm_humanoid_run",
    "dm_humanoid_stand",
    "dm_humanoid_walk",
    "dm_pendulum_swingup",
    "dm_point_mass",
    "dm_reacher_easy",
    "dm_reacher_hard",
    "dm_swimmer_swimmer6",
    "dm_walker_run",
    "dm_walker_stand",
    "dm_walker_walk",
)
# How the names of Playground's other robots begin, which download their meshes.
_ROBOTS = (
    *("aero", "aloha", "apollo", "barkour", "berkeley", "g1", "go1", "h1", "leap", "op3", "panda", "spot"),
    "t1",
)

# name: module and class within this package
_OURS = {
    "bernoulli_bandit": "bernoulli_bandit:BernoulliBandit",
    "cartpole_catch": "cartpole_catch:CartPoleCatch",
    "dark_room": "dark_room:DarkRoom",
    "point_mass": "point_mass:PointMass",
}

# name: module and class within this package, and what `_easy`, `_medium` and `_hard` stand for (POPGym's)
_GRADED: dict[str, tuple[str, tuple[dict[str, Any], ...]]] = {
    "autoencode": (
        "memory.autoencode:Autoencode",
        ({"num_decks": 1}, {"num_decks": 2}, {"num_decks": 3}),
    ),
    "battleship": (
        "memory.battleship:Battleship",
        ({"board_size": 8}, {"board_size": 10}, {"board_size": 12}),
    ),
    "concentration": (
        "memory.concentration:Concentration",
        (
            {"num_decks": 1, "deck_type": "colors"},
            {"num_decks": 2, "deck_type": "colors"},
            {"num_decks": 1, "deck_type": "ranks"},
        ),
    ),
    "count_recall": (
        "memory.count_recall:CountRecall",
        (
            {"num_decks": 1, "deck_type": "colors"},
            {"num_decks": 2, "deck_type": "suits"},
            {"num_decks": 4, "deck_type": "ranks"},
        ),
    ),
    "higher_lower": (
        "memory.higher_lower:HigherLower",
        ({"num_decks": 1}, {"num_decks": 2}, {"num_decks": 3}),
    ),
    "labyrinth_escape": (
        "memory.labyrinth:LabyrinthEscape",
        ({"rooms": 5}, {"rooms": 7}, {"rooms": 9}),
    ),
    "labyrinth_explore": (
        "memory.labyrinth:LabyrinthExplore",
        ({"rooms": 5}, {"rooms": 7}, {"rooms": 9}),
    ),
    "minesweeper": (
        "memory.minesweeper:MineSweeper",
        (
            {"board_size": 4, "mines": 2},
            {"board_size": 6, "mines": 6},
            {"board_size": 8, "mines": 10},
        ),
    ),
    "multiarmed_bandit": (
        "memory.multiarmed_bandit:MultiarmedBandit",
        (
            {"arms": 10, "max_steps_in_episode": 200},
            {"arms": 20, "max_steps_in_episode": 400},
            {"arms": 30, "max_steps_in_episode": 600},
        ),
    ),
    "noisy_stateless_cartpole": (
        "memory.stateless_cartpole:NoisyStatelessCartPole",
        ({"noise": 0.1}, {"noise": 0.2}, {"noise": 0.3}),
    ),
    "noisy_stateless_pendulum": (
        "memory.stateless_pendulum:NoisyStatelessPendulum",
        ({"noise": 0.1}, {"noise": 0.2}, {"noise": 0.3}),
    ),
    "repeat_first": (
        "memory.repeat_first:RepeatFirst",
        ({"num_decks": 1}, {"num_decks": 8}, {"num_decks": 16}),
    ),
    "repeat_previous": (
        "memory.repeat_previous:RepeatPrevious",
        ({"num_decks": 1, "k": 4}, {"num_decks": 2, "k": 32}, {"num_decks": 3, "k": 64}),
    ),
    "stateless_cartpole": (
        "memory.stateless_cartpole:StatelessCartPole",
        ({"max_steps_in_episode": 200}, {"max_steps_in_episode": 400}, {"max_steps_in_episode": 600}),
    ),
    "stateless_pendulum": (
        "memory.stateless_pendulum:StatelessPendulum",
        ({"max_steps_in_episode": 200}, {"max_steps_in_episode": 150}, {"max_steps_in_episode": 100}),
    ),
}
_GRADES = ("easy", "medium", "hard")

# gymnax environments whose trials always end by themselves, long before gymnax's time limit: their length.
_OWN_LENGTH: dict[str, Callable[[Any, Any], int]] = {
    "bsuite_bandit": lambda env, params: 1,
    "bsuite_catch": lambda env, params: env.rows - 1,
    "bsuite_deep_sea": lambda env, params: env.size,
    "bsuite_memory_chain": lambda env, params: params.memory_length + 1,
    "bsuite_umbrella_chain": lambda env, params: params.chain_length,
}


def env_names() -> list[str]:
    """Every name of ours that `make_env` knows, sorted; fast, since nothing is imported."""
    graded = [f"{family}_{grade}" for family in _GRADED for grade in _GRADES]
    return sorted([*_GYMNAX, *_OURS, *graded, *(f"brax_{name}" for name in _BRAX), *_PLAYGROUND])


def installed_envs() -> dict[str, str]:
    """Environments of other installed packages, name to `module:Name`."""
    return installed("envs", env_names())


def not_offered(name: str) -> str | None:
    """Why an environment that exists elsewhere is none of ours, and what to use; None for any other name."""
    if "mnist" in name.lower():
        return f"{name} is not offered because it downloads MNIST; use bsuite_bandit"
    if name.lower().removeprefix("dm_").startswith(_ROBOTS):
        return (
            f"{name} is not offered because MuJoCo Playground's locomotion and manipulation download meshes; "
            f"use its dm_control suite, such as {_PLAYGROUND[0]}"
        )
    return None


def make_env(name: str, **options: Any) -> "BaseEnv":
    """An environment by name, or a user's own as `module:Name`, with options; see the module.

    Raises ValueError, in one sentence, on an unknown name or option, a value that does not fit, or an
    object that is not a gymnax 1.0 `Environment` with one-dimensional actions and array observations.
    """
    if ":" in name:
        return _make_users(name, name, options)
    others = {} if name in env_names() else installed_envs()
    if name in others:
        return _make_users(name, others[name], options)
    _check_name(name, [*env_names(), *others])
    if name.startswith("brax_"):
        from .brax import BraxEnvironment, brax_arguments

        brax_name = name.removeprefix("brax_")
        constructor = functools.partial(BraxEnvironment, brax_name)
        return _build(name, constructor, options, brax_arguments(brax_name))
    if name in _PLAYGROUND:
        from .playground import PlaygroundEnvironment

        return _build(name, functools.partial(PlaygroundEnvironment, name), options, set())
    family, _, grade = name.rpartition("_")
    if name in _OURS or family in _GRADED:
        path, graded = _GRADED[family] if family in _GRADED else (_OURS[name], None)
        defaults = graded[_GRADES.index(grade)] if graded else {}
        constructor = load_attribute(f"{__package__}.{path}")
        return _build(name, constructor, {**defaults, **options}, _arguments(constructor))
    constructor = load_attribute(f"gymnax.environments.{_GYMNAX[name]}")
    base_env = _build(name, constructor, options, _arguments(constructor))
    if name in _OWN_LENGTH and "max_steps_in_episode" not in options:
        length = _OWN_LENGTH[name](base_env.env, base_env.params)
        base_env.env.never_truncates = True  # pyright: ignore[reportAttributeAccessIssue]
        base_env = dataclasses.replace(base_env, params=base_env.params.replace(max_steps_in_episode=length))
    return base_env


def _check_name(name: str, names: list[str]) -> None:
    if name in names:
        return
    reason = not_offered(name)
    if reason:
        raise ValueError(reason)
    near = difflib.get_close_matches(name.lower().replace("-", "_"), names, 3, 0.5)
    cure = f"did you mean {' or '.join(near)}?" if near else "`resetta list envs` shows them all"
    raise ValueError(f"unknown environment {name!r}; {cure}")


def _build(
    name: str, constructor: Callable[..., Any], options: dict[str, Any], arguments: set[str]
) -> "BaseEnv":
    """Constructor options build the environment, the others replace its parameters."""
    from .base import BaseEnv
    from .contract import interface_findings
    from .physics import derived_fields

    made: Any = constructor(**{key: value for key, value in options.items() if key in arguments})
    # gymnax.make returns a pair; a user's factory may do as it does
    pair = isinstance(made, tuple) and len(made) == 2
    env: Any = made[0] if pair else made
    params: Any = made[1] if pair else getattr(made, "default_params", None)
    findings = interface_findings(env, params)
    if findings:
        raise ValueError(findings[0])
    changes = {key: value for key, value in options.items() if key not in arguments}
    fields = {field.name for field in dataclasses.fields(params)}
    if getattr(env, "never_truncates", False):
        if "max_steps_in_episode" in changes:
            raise ValueError(f"a trial of {name} ends by itself; max_steps_in_episode cannot be set")
        fields.discard("max_steps_in_episode")
    derived = derived_fields(params)
    fields -= derived.keys()
    valid = sorted(fields | arguments)
    for key in changes:
        if key in derived:
            raise ValueError(f"{key} of {name} is derived: it is always {derived[key]}; set those instead")
        if key not in fields:
            near = difflib.get_close_matches(key, valid, 3, 0.4) or valid
            cure = f"valid names are {', '.join(near)}" if near else "it takes none"
            raise ValueError(f"{name} has no option {key!r}; {cure}")
    base_env = BaseEnv(name, env, params)
    changes = {key: fitted(name, key, value, getattr(params, key)) for key, value in changes.items()}
    return dataclasses.replace(base_env, params=base_env.with_physics(params, changes))


def fitted(name: str, key: str, value: Any, default: Any) -> Any:
    """An option's value as the type of the default that it replaces; raises ValueError if it does not fit."""
    if hasattr(default, "shape"):
        import jax.numpy as jnp

        try:
            array = jnp.asarray(value, default.dtype)
        except (TypeError, ValueError):
            array = None
        if array is None or array.shape != default.shape:
            raise ValueError(f"{key}={value!r} of {name} must be numbers of shape {tuple(default.shape)}")
        return array
    if isinstance(default, bool):
        fits, kind = isinstance(value, bool), "true or false"
    elif isinstance(default, str):
        fits, kind = isinstance(value, str), "a word"
    elif isinstance(default, int):
        fits, kind = isinstance(value, int) and not isinstance(value, bool), "a whole number"
    else:
        fits, kind = isinstance(value, int | float) and not isinstance(value, bool), "a number"
    if not fits:
        raise ValueError(f"{key}={value!r} of {name} must be {kind}")
    if key == "max_steps_in_episode" and value < 1:
        raise ValueError(f"max_steps_in_episode={value} of {name} must be at least 1")
    return type(default)(value)


def _make_users(name: str, path: str, options: dict[str, Any]) -> "BaseEnv":
    constructor = load_attribute(path)
    if not callable(constructor):
        raise ValueError(
            f"{path} is a {type(constructor).__name__}, not an Environment class or a factory of one"
        )
    base_env = _build(name, constructor, options, _arguments(constructor))
    from .contract import contract_findings

    findings = contract_findings(base_env)
    if findings:
        raise ValueError(findings[0])
    return base_env


def load_attribute(path: str) -> Any:
    """What `module:Name` stands for; raises ValueError, in one sentence, where there is no such thing."""
    module_name, _, attribute = path.partition(":")
    # A console script, unlike `python -m`, does not look for modules where it is run.
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise
        raise ValueError(f"{path}: there is no module {error.name!r} to import from here") from None
    except ValueError as error:  # an empty module name
        raise ValueError(f"{path}: write module:Name") from error
    if not hasattr(module, attribute):
        near = difflib.get_close_matches(
            attribute, [name for name in vars(module) if not name.startswith("_")]
        )
        cure = f"did you mean {' or '.join(near)}?" if near else "write module:Name"
        raise ValueError(f"{path}: {module_name} has no {attribute!r}; {cure}")
    return getattr(module, attribute)


def _arguments(constructor: Callable[..., Any]) -> set[str]:
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(constructor).parameters.values()
    return {parameter.name for parameter in parameters if parameter.kind in kinds}
