"""Clips made ready in the background, so that an accelerator never waits for them if that can be helped."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

Produce = Callable[[Any], tuple[Any, Any]]  # a cursor to (item, the next cursor)


class Prefetcher:
    """Iterates over `(item, cursor after it)`, in order, `depth` of them made ready by a thread.

    `put` is applied to each item in that thread (say, a copy to the device). An exception there is raised at
    the consumer's next request, after the items before it. A context manager: leaving it ends the thread.
    """

    def __init__(
        self, produce: Produce, cursor: Any, depth: int = 2, put: Callable[[Any], Any] | None = None
    ):
        self._ready: queue.Queue[Any] = queue.Queue(maxsize=depth)
        self._over = threading.Event()
        self._asked, self._found = 0, 0.0
        self._thread = threading.Thread(target=self._work, args=(produce, cursor, put), daemon=True)
        self._thread.start()

    @property
    def fill(self) -> float | None:
        """How full the queue was when items were asked for, 0 to 1, mean since last read; None if never.

        Near 0 the data is what training waits for; near 1 it isn't.
        """
        asked, found = self._asked, self._found
        self._asked, self._found = 0, 0.0
        return found / asked if asked else None

    def close(self) -> None:
        """End the thread; what is ready is dropped."""
        self._over.set()
        while self._thread.is_alive():
            try:
                self._ready.get_nowait()  # the thread may wait for room
            except queue.Empty:
                self._thread.join(0.05)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return self

    def __next__(self) -> tuple[Any, Any]:
        if self._over.is_set():
            raise StopIteration
        self._asked += 1
        self._found += self._ready.qsize() / self._ready.maxsize
        item = self._ready.get()
        if isinstance(item, _Failure):
            self._over.set()
            raise item.error
        return item

    def __enter__(self) -> "Prefetcher":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _work(self, produce: Produce, cursor: Any, put: Callable[[Any], Any] | None) -> None:
        try:
            while not self._over.is_set():
                item, cursor = produce(cursor)
                self._offer((put(item) if put else item, cursor))
        except BaseException as error:
            self._offer(_Failure(error))

    def _offer(self, item: Any) -> None:
        while not self._over.is_set():
            try:
                self._ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue


class _Failure:
    def __init__(self, error: BaseException):
        self.error = error
