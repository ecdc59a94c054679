"""The background queue: order, cursors, exceptions, its end."""

import itertools
import threading
import time

import pytest

from resetta.video.prefetch import Prefetcher

SOON = 20.0  # seconds; only a broken queue takes so long


def count(cursor):
    return f"item {cursor}", cursor + 1


def following(cursor):
    return cursor + 1


THREADS = pytest.mark.parametrize("threads", [1, 3])


def make(produce, cursor=0, depth=3, threads=1, put=None):
    return Prefetcher(produce, cursor, depth, threads, put, following if threads > 1 else None)


@THREADS
def test_items_come_in_order_each_with_the_cursor_after_it(threads):
    with make(count, cursor=5, threads=threads) as items:
        got = list(itertools.islice(items, 200))
    assert got == [(f"item {k}", k + 1) for k in range(5, 205)]


def test_order_is_kept_where_a_later_item_is_ready_first():
    second_made = threading.Event()

    def produce(cursor):
        if cursor == 0:
            assert second_made.wait(SOON)
        if cursor == 1:
            second_made.set()
        return cursor, cursor + 1

    with make(produce, depth=2, threads=2) as items:
        assert list(itertools.islice(items, 4)) == [(0, 1), (1, 2), (2, 3), (3, 4)]


@THREADS
def test_no_more_than_depth_items_are_made_ahead(threads):
    made, enough = [], threading.Semaphore(0)

    def produce(cursor):
        made.append(cursor)
        enough.release()
        return cursor, cursor + 1

    with make(produce, depth=3, threads=threads) as items:
        for _ in range(3):
            assert enough.acquire(timeout=SOON)
        assert not enough.acquire(timeout=0.05)  # a fourth would have to wait for room
        next(items)
        assert enough.acquire(timeout=SOON)
        assert not enough.acquire(timeout=0.05)
    assert sorted(made) == [0, 1, 2, 3]


@THREADS
def test_an_exception_comes_after_the_items_before_it_and_stays(threads):
    def produce(cursor):
        if cursor == 4:
            raise OSError("a bad file")
        return cursor, cursor + 1

    with make(produce, threads=threads) as items:
        assert [next(items)[0] for _ in range(4)] == [0, 1, 2, 3]
        for _ in range(2):
            with pytest.raises(OSError, match="a bad file"):
                next(items)


def test_exceptions_of_put_and_of_advance_arrive_too():
    def bad(cursor):
        raise KeyError("bad")

    with make(count, put=bad) as items, pytest.raises(KeyError):
        next(items)
    with Prefetcher(count, 0, 3, 2, advance=bad) as items, pytest.raises(KeyError):
        next(items)


@THREADS
def test_stop_iteration_ends_the_items(threads):
    def produce(cursor):
        if cursor >= 6:
            raise StopIteration
        return cursor, cursor + 1

    with make(produce, threads=threads) as items:
        assert [item for item, _ in items] == [0, 1, 2, 3, 4, 5]


def test_put_runs_in_the_thread():
    with make(count, put=lambda item: (item, threading.current_thread())) as items:
        (item, where), cursor = next(items)
    assert (item, cursor) == ("item 0", 1)
    assert where is not threading.current_thread()


@THREADS
def test_closing_while_full_ends_the_threads(threads):
    before, made = threading.active_count(), threading.Semaphore(0)

    def produce(cursor):
        made.release()
        return cursor, cursor + 1

    items = make(produce, depth=3, threads=threads)
    for _ in range(3):
        assert made.acquire(timeout=SOON)
    items.close()
    items.close()  # again does nothing
    assert threading.active_count() == before
    with pytest.raises(StopIteration):
        next(items)


def test_closing_wakes_a_consumer_that_waits():
    asked, go, ended = threading.Event(), threading.Event(), threading.Event()

    def produce(cursor):
        asked.set()
        assert go.wait(SOON)
        return cursor, cursor + 1

    items = make(produce)

    def consume():
        for _ in items:
            pass
        ended.set()

    consumer = threading.Thread(target=consume, daemon=True)
    consumer.start()
    assert asked.wait(SOON)
    closer = threading.Thread(target=items.close, daemon=True)
    closer.start()
    assert ended.wait(SOON)
    go.set()
    closer.join(SOON)
    assert not closer.is_alive()


def test_no_item_is_lost_to_a_run_that_resumes():
    got, cursor = [], 0
    for taken in (3, 1, 4):  # each run is stopped with items still in its queue
        with make(count, cursor, depth=4, threads=2) as items:
            for _ in range(taken):
                item, cursor = next(items)
                got.append(item)
    assert got == [f"item {k}" for k in range(8)]


def test_fill_is_one_where_the_consumer_never_waits_and_zero_where_it_always_does():
    made = threading.Semaphore(0)

    def produce(cursor):
        made.release()
        return cursor, cursor + 1

    with make(produce, depth=2) as items:
        assert items.fill is None  # never asked
        # an item is in the queue for certain once the next is begun, and there's no room for a fourth
        assert made.acquire(timeout=SOON)
        assert made.acquire(timeout=SOON)
        next(items)
        assert items.fill in (0.5, 1.0)
        assert items.fill is None  # since last read

    go = threading.Semaphore(0)

    def slow(cursor):
        assert go.acquire(timeout=SOON)
        return cursor, cursor + 1

    with make(slow, depth=2) as items:
        consumer = threading.Thread(target=next, args=(items,), daemon=True)
        consumer.start()
        while (fill := items.fill) is None:  # until the consumer has asked: nothing is ready then
            time.sleep(0.001)
        assert fill == 0.0
        for _ in range(10):
            go.release()
        consumer.join(SOON)
        for _ in range(5):
            next(items)
        assert 0.0 <= items.fill <= 1.0


def test_numbers_that_make_no_queue_are_refused():
    for numbers, match in (
        ({"depth": 0}, "depth=0"),
        ({"depth": 2, "threads": 3}, "threads=3"),
        ({"threads": 0}, "threads=0"),
        ({"threads": 2}, "advance="),
    ):
        with pytest.raises(ValueError, match=match):
            Prefetcher(count, 0, **numbers)
