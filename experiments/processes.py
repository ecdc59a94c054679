"""Several processes, on one host or on many, that train one agent together: the first writes and talks."""

import contextlib
import io
import os
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from rich.console import Console

from .errors import InputError
from .run_dir import RunDir

_ENVIRONMENT = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def join_processes() -> None:
    """Make this process one of those that train together; must come before anything asks JAX for devices.

    Which they are is read from `_ENVIRONMENT`, or by JAX itself from Slurm, Open MPI, Kubernetes or a TPU
    pod. Raises `InputError` where nothing says it.
    """
    if jax.distributed.is_initialized():
        return
    address, *numbers = map(os.environ.get, _ENVIRONMENT)
    try:
        count, number = (None if text is None else int(text) for text in numbers)
        jax.distributed.initialize(address, count, number)
    except ValueError as error:
        raise InputError(
            f"distributed=true does not know the other processes ({error}); start them under Slurm, Open MPI "
            f"or Kubernetes, or set {', '.join(_ENVIRONMENT)} for each"
        ) from error


def primary() -> bool:
    """Whether this process writes files and talks; of several, the first."""
    return jax.process_index() == 0


def agreed(signum: int | None) -> int | None:
    """A signal that any of the processes has received, so that all stop after the same update."""
    if jax.process_count() == 1:
        return signum
    return int(multihost_utils.process_allgather(np.int32(signum or 0)).max()) or None


@contextlib.contextmanager
def open_together(config: Mapping[str, Any]) -> Iterator[RunDir]:
    """`RunDir.open` in the first process, which writes; the others follow."""
    first = RunDir.open(config) if primary() else None
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("the run's directory is open")
    with first or RunDir.follow(config) as run_dir:
        yield run_dir


def screen() -> Console:
    """Standard error, or nowhere for a process that does not talk."""
    return Console(stderr=True) if primary() else Console(file=io.StringIO())
