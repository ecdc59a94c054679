"""MuJoCo Playground's dm_control suite as gymnax 1.0 environments; an extra, imported when one is made.

The suite of arXiv 1801.00690 in MJX (MuJoCo Playground, arXiv 2502.08844): rewards lie in [0, 1], and a trial
lasts 1000 steps. Always with `impl="jax"`: Playground's own default, Warp, compiles kernels for minutes on a
CPU. Playground's other families, locomotion and manipulation, download meshes and are not offered.
"""

import contextlib
import importlib
import io
import warnings
from typing import Any

import jax
from jaxtyping import Array

from .simulation import SimulatedEnvironment


class PlaygroundEnvironment(SimulatedEnvironment):
    """An environment of the suite by its registered name, `dm_point_mass` for Playground's PointMass.

    Raises ValueError, with the cure, where the extra is not installed.
    """

    def __init__(self, registered: str):
        words = registered.removeprefix("dm_").split("_")
        playground = _playground(registered)
        simulator = playground.dm_control_suite.load(
            "".join(word.capitalize() for word in words), config_overrides={"impl": "jax"}
        )
        super().__init__(registered, simulator, int(simulator.action_size))

    def _reset(self, key: Array) -> Any:
        # Playground keeps the key in its state, where a typed key would be a leaf that is no number.
        return self.simulator.reset(jax.random.key_data(key))


def _playground(registered: str) -> Any:
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.filterwarnings(
                "ignore", message="JAXopt is no longer maintained", category=DeprecationWarning
            )
            return importlib.import_module("mujoco_playground")
    except ModuleNotFoundError as error:
        if error.name != "mujoco_playground":
            raise
        raise ValueError(
            f"{registered} needs MuJoCo Playground, which is not installed; "
            "install it with `pip install 'resetta[playground]'` "
            "(in a checkout: `uv sync --extra playground`)"
        ) from None
