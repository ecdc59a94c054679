"""Measuring several things in turns, so that what else the machine does meets all of them alike."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax

from .timing import now


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device's memory did not hold it."""
    return "RESOURCE_EXHAUSTED" in str(error)


def in_turns(
    cases: Mapping[str, Callable[[], Any]], blocks: int, what: str = ""
) -> dict[str, dict[str, list[float]]]:
    """Seconds (`wall`, and `cpu` of this process) of each case's turns, one block after the other.

    What else the machine does meets every case alike. A case's first call isn't counted: it compiles. Cases
    that the device's memory doesn't hold are left out.
    """
    fit = {}
    for label, case in cases.items():
        try:
            jax.block_until_ready(case())
        except jax.errors.JaxRuntimeError as error:
            if not is_out_of_memory(error):
                raise
            print(f"{what}{label} is out of memory", file=sys.stderr, flush=True)
            continue
        fit[label] = case
    cases = fit
    taken: dict[str, dict[str, list[float]]] = {label: {"wall": [], "cpu": []} for label in cases}
    for block in range(blocks):
        for label, case in cases.items():
            start = now()
            jax.block_until_ready(case())
            spent = now() - start
            taken[label]["wall"].append(spent.wall)
            taken[label]["cpu"].append(spent.cpu)
        print(f"{what}block {block + 1}/{blocks}", file=sys.stderr, flush=True)
    return taken
