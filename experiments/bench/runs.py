"""Benchmarks that train: ordinary run directories, so that a long grid can be stopped and continued."""

import re
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import train
from ..checkpoint import Checkpoints
from ..errors import InputError, TrainingFailed
from ..run_dir import RunDir, check_run_dir
from .cases import Case


def train_all(
    cases: Sequence[Case], folder: Path, evaluated: Collection[str] = ()
) -> tuple[dict[str, RunDir], dict[str, str]]:
    """Train every case in a run directory below `folder`, going on with what is there.

    Finished runs are left alone, and of the labels in `evaluated`, whose agents nobody needs any more, also
    those without a checkpoint. Gives the runs by label, and the reasons of those whose training failed:
    one diverging core does not keep the others from being measured. Raises `InputError` before anything
    starts where a directory holds a run of another configuration, and `Interrupted` after a signal.
    """
    raws = {case.label: _raw(case, folder) for case in cases}
    for raw in raws.values():
        try:
            check_run_dir(raw)
        except InputError as error:
            raise InputError(str(error).replace("another run_dir", "another out")) from error
    runs, failures = {}, {}
    for number, case in enumerate(cases, 1):
        raw, path = raws[case.label], Path(raws[case.label]["run_dir"])
        known = case.label in evaluated and has_last_row(path, case.train.updates)
        finished = known or is_finished(path, case.train.updates)
        already = f"is {'evaluated' if known else 'trained'} already"
        state = already if finished else f"training in {path}"
        print(f"[{number}/{len(cases)}] {case.label}: {state}", file=sys.stderr, flush=True)
        if not finished:
            try:
                train.run(raw)
            except TrainingFailed as failure:
                failures[case.label] = str(failure)
                print(f"{case.label}: {failure}", file=sys.stderr, flush=True)
                continue
        runs[case.label] = RunDir.read(path)
    if not runs:
        raise TrainingFailed("; ".join(f"{label}: {reason}" for label, reason in failures.items()))
    return runs, failures


def run_path(case: Case, folder: Path) -> Path:
    """The run directory of a case."""
    return folder / re.sub(r"[^\w.=+-]+", "_", case.label)


def is_finished(path: Path, updates: int) -> bool:
    """Whether the run in `path` has its last row and its last checkpoint."""
    if not has_last_row(path, updates):
        return False
    checkpoints = Checkpoints(path / "checkpoints")
    try:
        return (checkpoints.latest() or 0) >= updates
    finally:
        checkpoints.close()


def has_last_row(path: Path, updates: int) -> bool:
    """Whether the run in `path` tells of all its updates."""
    if not (path / "config.yaml").exists():
        return False
    rows = RunDir.read(path).rows()
    return bool(rows) and rows[-1]["update"] >= updates


def raise_failures(failures: Mapping[str, str]) -> None:
    """After the results are written: exit status 1 where a case is missing from them."""
    if failures:
        raise TrainingFailed(
            f"{', '.join(failures)} could not be trained and is missing from the results: "
            + "; ".join(failures.values())
        )


def _raw(case: Case, folder: Path) -> dict[str, Any]:
    """The run's configuration; the benchmark evaluates by itself, and films nothing."""
    return {
        **case.raw,
        "run_dir": str(run_path(case, folder)),
        "eval_tasks": 0,
        "render": False,
        "resume": "auto",
    }
