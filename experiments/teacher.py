"""The teacher of a run, from the run that trained it."""

import jax
import numpy as np

from ..agents import Teacher
from .config import TrainConfig
from .errors import InputError
from .pretrained_agents import shipped
from .restore import restore_run


def load_teacher(config: TrainConfig) -> Teacher | None:
    """The agent of `teacher.run` (its first seed) or of `teacher.pretrained`; None where neither is named.

    Raises `InputError` where there is no such agent. Whoever only looks at a run needs no teacher.
    """
    run, pretrained = config.teacher.run, config.teacher.pretrained
    if run is None and pretrained is None:
        return None
    try:
        folder = run if pretrained is None else shipped(pretrained)
        _, _, agent, state = restore_run({"run_dir": folder, "device": config.device})
    except InputError as error:
        named = "teacher.run" if pretrained is None else "teacher.pretrained"
        raise InputError(f"{named} cannot be used: {error}") from error
    # plain arrays: they belong to no device, and go wherever the update runs
    params, observations = jax.tree.map(lambda leaf: np.asarray(leaf[0]), (state.params, state.observations))
    return Teacher(agent, params, observations)
