"""The teacher of a run, from the run that trained it."""

import jax
import numpy as np

from ..agents import Teacher
from .config import TrainConfig
from .errors import InputError
from .restore import restore_run


def load_teacher(config: TrainConfig) -> Teacher | None:
    """The agent of `teacher.run`, of its first seed, or None where no run is named.

    Raises `InputError` where there is no such run. Whoever only looks at a run needs no teacher.
    """
    if config.teacher.run is None:
        return None
    try:
        _, _, agent, state = restore_run({"run_dir": config.teacher.run, "device": config.device})
    except InputError as error:
        raise InputError(f"teacher.run cannot be used: {error}") from error
    # plain arrays: they belong to no device, and go wherever the update runs
    params, observations = jax.tree.map(lambda leaf: np.asarray(leaf[0]), (state.params, state.observations))
    return Teacher(agent, params, observations)
