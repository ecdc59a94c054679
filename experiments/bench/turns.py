"""Measuring several things in turns, so that what else the machine does meets all of them alike."""

import contextlib
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from .timing import now


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device's memory did not hold it."""
    return "RESOURCE_EXHAUSTED" in str(error) or "out of memory" in str(error).lower()


@contextlib.contextmanager
def within_memory(what: str) -> Iterator[None]:
    """Leave out, with a line that says so, what the device's memory doesn't hold."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        print(f"{what} is out of memory", file=sys.stderr, flush=True)


def in_turns(
    cases: Mapping[str, Callable[[], Any]], blocks: int, what: str = "", seconds: float = math.inf
) -> dict[str, dict[str, list[float]]]:
    """Seconds (`wall`, and `cpu` of this process) of each case's turns, one block after the other.

    What else the machine does meets every case alike. A case's first call isn't counted: it compiles. Cases
    that the device's memory doesn't hold are left out. There are `blocks` turns, or fewer, two at least,
    where they take more than `seconds`.
    """
    taken: dict[str, dict[str, list[float]]] = {}
    for label, case in cases.items():
        with within_memory(f"{what}{label}"):
            jax.block_until_ready(case())
            taken[label] = {"wall": [], "cpu": []}
    began = now()
    for block in range(blocks):
        if block >= 2 and (now() - began).wall > seconds:
            break
        for label, turns in taken.items():
            start = now()
            jax.block_until_ready(cases[label]())
            spent = now() - start
            turns["wall"].append(spent.wall)
            turns["cpu"].append(spent.cpu)
        print(f"{what}block {block + 1}/{blocks}", file=sys.stderr, flush=True)
    return taken
