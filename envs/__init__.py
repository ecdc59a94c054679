"""Environments: base environments, random projections, trials, task splits.

>>> env = make_meta_env({"cartpole_catch": {}}, num_envs=64, trials=8, projection="orthogonal")
>>> state, inputs = env.reset(key)
>>> state, inputs, outcome = env.step(key, state, action)

Names are looked up lazily, so that importing this package imports neither jax nor gymnax.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import BaseEnv as BaseEnv
    from .base import Continuous as Continuous
    from .base import Discrete as Discrete
    from .make import make_meta_env as make_meta_env
    from .meta import Input as Input
    from .meta import MetaEnv as MetaEnv
    from .meta import Outcome as Outcome
    from .registry import env_names as env_names
    from .registry import make_env as make_env
    from .tasks import SPLITS as SPLITS
    from .tasks import Task as Task
    from .tasks import TaskFamily as TaskFamily

_HOME = {
    "BaseEnv": "base",
    "Continuous": "base",
    "Discrete": "base",
    "Input": "meta",
    "MetaEnv": "meta",
    "Outcome": "meta",
    "SPLITS": "tasks",
    "Task": "tasks",
    "TaskFamily": "tasks",
    "env_names": "registry",
    "make_env": "registry",
    "make_meta_env": "make",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
