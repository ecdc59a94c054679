"""Probes: small tasks with known scores, each of which asks one thing of a memory.

>>> probe = make_probe("needle", length=256)
>>> episode = probe.episode(key)                 # tokens [T, D]; targets, mask, reset [T]; payoff [T, A]
>>> batch = probe.sequences(key, 32)             # the same, time-major, for supervised training
>>> env = probe_env("needle", length=256)        # the same, as an environment that an agent acts in
>>> probe.normalize(probe.score(batch, answers)) # 0 is what needs no memory, 1 the reference

One generator makes both views: the same key gives the same episode in either. Names are looked up lazily.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import Episode as Episode
    from .base import Figure as Figure
    from .base import Probe as Probe
    from .drawing import picture as picture
    from .environment import ProbeEnv as ProbeEnv
    from .environment import probe_env as probe_env
    from .registry import make_probe as make_probe
    from .registry import probe_names as probe_names
    from .registry import probe_options as probe_options

_HOME = {
    "Episode": "base",
    "Figure": "base",
    "Probe": "base",
    "ProbeEnv": "environment",
    "make_probe": "registry",
    "picture": "drawing",
    "probe_env": "environment",
    "probe_names": "registry",
    "probe_options": "registry",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
