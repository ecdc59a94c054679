"""Clips made ready in the background, so that an accelerator never waits for them if that can be helped."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

Produce = Callable[[Any], tuple[Any, Any]]  # a cursor to (item, the next cursor)


class Prefetcher:
    """Iterates over `(item, cursor after it)`, in order, up to `depth` of them made ready ahead by threads.

    `put` is applied to each item in its thread (say, a copy to the device). An exception there is raised at
    the consumer's request for that item, after the items before it, and at every request from then on;
    `StopIteration` ends the items. What was not handed out is not lost to a resumed run: it comes again from
    the cursor of the last item that was.

    More than one thread needs `advance`, a cursor to the next cursor without reading, and a `produce` and a
    `put` that may run in several threads at once. A context manager: leaving it ends the threads; `close`
    waits for items being made. Raises `ValueError` for numbers that make no queue.
    """

    def __init__(
        self,
        produce: Produce,
        cursor: Any,
        depth: int = 2,
        threads: int = 1,
        put: Callable[[Any], Any] | None = None,
        advance: Callable[[Any], Any] | None = None,
    ):
        if depth < 1:
            raise ValueError(f"depth={depth} leaves no room for an item; use 1 or more")
        if not 1 <= threads <= depth:
            raise ValueError(f"threads={threads} must be from 1 to depth={depth}, the items made at a time")
        if threads > 1 and advance is None:
            raise ValueError(
                f"threads={threads} need the cursors beforehand; give advance=, or use threads=1"
            )
        self._produce, self._put, self._advance = produce, put, advance
        self._depth = depth
        # All that follows is changed under this lock only.
        self._changed = threading.Condition()
        self._cursor = cursor  # of the item that is begun next; with one thread, once the one before is made
        self._begun, self._taken = 0, 0  # how many items
        self._ready: dict[int, tuple[Any, Any] | _Failure] = {}
        self._over = False  # closed, or an item failed: nothing more is begun
        self._closed = False
        self._asked, self._found = 0, 0.0
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    @property
    def fill(self) -> float | None:
        """How full the queue was when items were asked for, 0 to 1, mean since last read; None if never.

        Near 0 the data is what training waits for; near 1 it isn't.
        """
        with self._changed:
            asked, found = self._asked, self._found
            self._asked, self._found = 0, 0.0
        return found / asked if asked else None

    def close(self) -> None:
        """End the threads; what is ready is dropped. Afterwards there are no more items."""
        with self._changed:
            self._over = self._closed = True
            self._ready.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return self

    def __next__(self) -> tuple[Any, Any]:
        with self._changed:
            self._asked += 1
            self._found += len(self._ready) / self._depth
            self._changed.wait_for(lambda: self._closed or self._taken in self._ready)
            if self._closed:
                raise StopIteration
            item = self._ready[self._taken]
            if isinstance(item, _Failure):
                raise item.error
            del self._ready[self._taken]
            self._taken += 1
            self._changed.notify_all()
            return item

    def __enter__(self) -> "Prefetcher":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._over or self._begun < self._taken + self._depth)
                if self._over:
                    return
                number, cursor = self._begun, self._cursor
                self._begun += 1
                try:
                    if self._advance is not None:
                        self._cursor = self._advance(cursor)
                except BaseException as error:
                    self._fail(number, error)
                    return
            try:
                item, after = self._produce(cursor)
                item = self._put(item) if self._put else item
            except BaseException as error:
                with self._changed:
                    self._fail(number, error)
                return
            with self._changed:
                if self._advance is None:
                    self._cursor = after
                if not self._closed:
                    self._ready[number] = (item, after)
                self._changed.notify_all()
            del item, after  # or a thread that waits for room would hold one item more

    def _fail(self, number: int, error: BaseException) -> None:
        self._over = True
        self._ready[number] = _Failure(error)
        self._changed.notify_all()


class _Failure:
    def __init__(self, error: BaseException):
        self.error = error
