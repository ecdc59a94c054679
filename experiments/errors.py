"""Mistakes in the input and interruptions: what ends a command without a traceback."""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType


class InputError(ValueError):
    """A mistake in what the user gave: one sentence with the value and the cure; exit status 2."""

    def __str__(self) -> str:
        return " ".join(super().__str__().split())


class Interrupted(BaseException):
    """Training stopped by a signal, after its checkpoint was written; exit status 128 + `signum`.

    Not an `Exception`, for the same reason as `KeyboardInterrupt`: code that survives a failed job, such as
    Hydra's launchers, must not start the next one.
    """

    def __init__(self, signum: int, run_dir: str | Path | None = None, command: str = "train"):
        super().__init__(signum, run_dir, command)
        self.signum, self.run_dir, self.command = signum, run_dir, command

    def __str__(self) -> str:
        where = "" if self.run_dir is None else f"; go on with: resetta {self.command} run_dir={self.run_dir}"
        return f"interrupted by {signal.Signals(self.signum).name}, a checkpoint is written{where}"


class TrainingFailed(RuntimeError):
    """Training that cannot go on, in one sentence, with its last good checkpoint kept; exit status 1."""

    def __str__(self) -> str:
        return " ".join(super().__str__().split())


@contextlib.contextmanager
def input_errors() -> Iterator[None]:
    """For the set-up phase: a `ValueError` that this package's own checks raise becomes an `InputError`.

    One from inside a library or a user's own module is more likely a bug than a mistake in the input, and
    keeps its traceback.
    """
    try:
        yield
    except InputError:
        raise
    except ValueError as error:
        if _raised_in() != __name__.partition(".")[0]:
            raise
        raise InputError(str(error)) from error


def _raised_in() -> str:
    """The top-level package whose code raised the exception being handled."""
    traceback = sys.exc_info()[2]
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    name = traceback.tb_frame.f_globals.get("__name__", "") if traceback is not None else ""
    return name.partition(".")[0]


@contextlib.contextmanager
def catch_signals() -> Iterator[Callable[[], int | None]]:
    """Hold SIGINT and SIGTERM back; the function it gives says which one has come, if any.

    >>> with catch_signals() as received:
    ...     while training:
    ...         train_a_chunk()
    ...         if received():
    ...             save_checkpoint()
    ...             raise Interrupted(received(), run_dir)

    A second signal stops at once. Outside the main thread, where Python allows no handlers, nothing is held.
    """
    caught: list[int] = []

    def hold(signum: int, frame: FrameType | None) -> None:
        if caught:
            if signum == signal.SIGINT:
                raise KeyboardInterrupt
            raise SystemExit(128 + signum)
        caught.append(signum)
        name = signal.Signals(signum).name
        print(
            f"{name}: writing a checkpoint, then stopping (again to stop at once)",
            file=sys.stderr,
            flush=True,
        )

    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, hold) for number in signals}
    try:
        yield lambda: caught[0] if caught else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
