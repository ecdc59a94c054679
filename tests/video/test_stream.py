"""Windows and streams: every frame where it belongs, and everything a function of the seed and the cursor."""

import dataclasses
import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resetta.video.clip import NO_ACTION, ActionSpace, Clip
from resetta.video.data import ENDLESS
from resetta.video.stream import Streams, Windows, long_enough, read_windows

DISCRETE = ActionSpace("discrete", 5)


@dataclasses.dataclass
class Numbered:
    """Clips whose pixels say which clip and which frame they are; a frame's action is its number."""

    clip_lengths: tuple[int, ...]
    actions: ActionSpace = DISCRETE
    endless: bool = False
    inner_reset: int | None = None

    size, channels = 2, 1

    def __post_init__(self):
        self.calls = []

    def count(self, split):
        return None if self.endless else len(self.clip_lengths)

    def lengths(self, split, ids):
        return np.array([self.clip_lengths[0 if self.endless else i] for i in ids], np.int64)

    def read(self, split, ids, starts, frames):
        assert (np.asarray(starts) >= 0).all()
        assert (np.asarray(starts) + frames <= self.lengths(split, ids)).all(), "read beyond a clip's end"
        self.calls.append((len(ids), frames))
        times = np.asarray(starts) + np.arange(frames)[:, None]
        pixels = np.zeros((*times.shape, 2, 2, 1), np.uint8)
        pixels[:, :, 0, 0, 0], pixels[:, :, 1, 1, 0] = np.asarray(ids) % 256, times % 256
        actions = self.actions.nothing(*times.shape)
        if actions is not None:
            actions[...] = times if actions.ndim == 2 else times[..., None]
        return Clip(pixels, actions, (times == 0) | (times == self.inner_reset))


def tags(clip):
    """(clip, frame) of every frame, `[T, B, 2]`."""
    return np.stack([clip.frames[:, :, 0, 0, 0], clip.frames[:, :, 1, 1, 0]], -1).astype(int)


def run(stream, pieces, cursor=None):
    """The pieces from a cursor on, and the cursors after each."""
    cursor = stream.first() if cursor is None else cursor
    out, cursors = [], []
    for _ in range(pieces):
        clip, cursor = stream.next(cursor)
        out.append(clip)
        cursors.append(cursor)
    return out, cursors


def joined(pieces):
    """One long clip, without the frames that are repeated at the borders."""
    return Clip(*(np.concatenate([p[i][:-1] for p in pieces]) for i in range(3)))


lengths = st.lists(st.integers(2, 9), min_size=1, max_size=7).map(tuple)


@given(lengths, st.integers(1, 5), st.integers(1, 12), st.integers(0, 3))
def test_pieces_of_a_stream_are_whole_clips_one_after_the_other(clip_lengths, batch, chunk, seed):
    batch = min(batch, len(clip_lengths))
    stream = Streams(Numbered(clip_lengths), "train", batch, chunk, seed)
    steps = -(-3 * sum(clip_lengths) // chunk)
    pieces, _ = run(stream, steps)
    for before, after in itertools.pairwise(pieces):
        for i in range(3):  # frames, actions, resets
            np.testing.assert_array_equal(before[i][-1], after[i][0])
    whole = joined(pieces)
    assert whole.frames.shape[0] == steps * chunk
    for row in range(batch):
        seen = tags(whole)[:, row]
        starts = np.flatnonzero(whole.reset[:, row])
        assert starts[0] == 0
        for start, end in zip(starts, [*starts[1:], len(seen)], strict=True):
            number = seen[start, 0]
            length = clip_lengths[number] if end < len(seen) else end - start  # the last one is cut off
            expected = np.stack([np.full(length, number), np.arange(length)], -1)
            np.testing.assert_array_equal(seen[start:end], expected)
            acts = np.where(np.arange(length) == clip_lengths[number] - 1, NO_ACTION, np.arange(length))
            np.testing.assert_array_equal(whole.actions[start:end, row], acts)


@given(lengths, st.integers(1, 5), st.integers(0, 3))
def test_rows_together_see_every_clip_once_an_epoch(clip_lengths, batch, seed):
    count, batch = len(clip_lengths), min(batch, len(clip_lengths))
    stream = Streams(Numbered(clip_lengths), "train", batch, 7, seed)
    pieces, _ = run(stream, -(-3 * sum(clip_lengths) // 7))
    whole = joined(pieces)
    begun = [tags(whole)[whole.reset[:, row], row, 0] for row in range(batch)]
    for epoch in range(3):
        seen = []
        for row in range(batch):
            share = len(range(row, count, batch))
            seen += [*begun[row][epoch * share : (epoch + 1) * share]]
        assert sorted(seen) == list(range(count))


def test_epochs_have_orders_of_their_own_and_so_do_seeds():
    data = Numbered((2,) * 30)

    def order(seed):
        whole = joined(run(Streams(data, "train", 1, 60, seed), 2)[0])
        return tags(whole)[::2, 0, 0]

    first = order(0)
    assert not np.array_equal(first[:30], first[30:])
    assert not np.array_equal(first, order(1))
    np.testing.assert_array_equal(first, order(0))


@given(lengths, st.integers(1, 5), st.integers(1, 6), st.integers(0, 5), st.booleans())
def test_a_stream_resumes_from_a_cursor(clip_lengths, batch, chunk, at, endless):
    def make():
        return Streams(Numbered(clip_lengths, endless=endless), "train", batch, chunk, seed=1)

    pieces, cursors = run(make(), at + 3)
    cursor = cursors[at]
    saved = type(cursor)(*(leaf.astype(np.int32) for leaf in cursor))  # as a checkpoint holds it
    again, _ = run(make(), 2, saved)
    for old, new in zip(pieces[at + 1 :], again, strict=True):
        for i in range(3):
            np.testing.assert_array_equal(old[i], new[i])
    untouched = make()
    np.testing.assert_array_equal(untouched.advance(saved), cursors[at + 1])
    assert untouched.data.calls == []  # nothing is read for it


def test_next_leaves_its_cursor_alone():
    stream = Streams(Numbered((5, 4)), "train", 2, 3)
    cursor = stream.first()
    kept = [leaf.copy() for leaf in cursor]
    stream.next(cursor)
    np.testing.assert_array_equal(cursor, kept)


@given(st.integers(2, 30), st.integers(1, 12), st.integers(1, 3))
def test_endless_data_is_cut_into_clips_and_read_in_one_shape(length, chunk, batch):
    data = Numbered((ENDLESS,), endless=True)
    stream = Streams(data, "train", batch, chunk, length=length)
    pieces, _ = run(stream, 6)
    times = np.arange(6 * chunk)
    whole = joined(pieces)
    for row in range(batch):
        expected = np.stack([(row + batch * (times // length)) % 256, times % length], -1)
        np.testing.assert_array_equal(tags(whole)[:, row], expected)
        np.testing.assert_array_equal(whole.reset[:, row], times % length == 0)
        acts = np.where(times % length == length - 1, NO_ACTION, times % length)
        np.testing.assert_array_equal(whole.actions[:, row], acts)
    assert set(data.calls) == {(batch, min(chunk + 1, length))}  # one program draws it all


def test_endless_clips_with_an_end_of_their_own_need_no_length():
    stream = Streams(Numbered((5,), endless=True), "train", 1, 4)
    assert tags(joined(run(stream, 3)[0]))[:, 0, 1].tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]
    with pytest.raises(ValueError, match="length="):
        Streams(Numbered((ENDLESS,), endless=True), "train", 1, 4)


def test_length_ends_longer_clips_only():
    stream = Streams(Numbered((3, 9)), "train", 2, 8, length=4)
    whole = joined(run(stream, 8)[0])
    for row in range(2):
        begins = np.flatnonzero(whole.reset[:, row])
        shown = tags(whole)[begins[:-1], row, 0]
        assert {*shown} == {0, 1}
        np.testing.assert_array_equal(np.diff(begins), np.where(shown == 0, 3, 4))
        assert (whole.actions[begins[1:] - 1, row] == NO_ACTION).all()


def test_resets_inside_a_clip_stay():
    whole = joined(run(Streams(Numbered((7,), inner_reset=3), "train", 1, 2), 10)[0])
    np.testing.assert_array_equal(np.flatnonzero(whole.reset[:, 0]) % 7, [0, 3] * 3)


def test_a_clips_last_action_is_none_of_every_kind():
    pieces, _ = run(Streams(Numbered((3,), ActionSpace()), "train", 1, 6), 1)
    assert pieces[0].actions is None
    pieces, _ = run(Streams(Numbered((3,), ActionSpace("continuous", 2)), "train", 1, 6), 1)
    actions = joined(pieces).actions
    assert actions.dtype == np.float32
    np.testing.assert_array_equal(actions[:, 0], [[0, 0], [1, 1], [0, 0]] * 2)


def test_rows_that_share_a_clip_begin_at_different_frames():
    stream = Streams(Numbered((8, 8)), "train", 5, 4)
    assert stream.first().frame.tolist() == [0, 0, 2, 4, 5]  # three rows share one clip, two the other
    whole = joined(run(stream, 12)[0])
    for row in range(5):
        times = (np.arange(48) + stream.first().frame[row]) % 8
        np.testing.assert_array_equal(tags(whole)[:, row, 1], times)


def test_a_cursor_of_other_data_is_refused():
    _, cursors = run(Streams(Numbered((9,)), "train", 1, 6), 1)
    with pytest.raises(ValueError, match="frame 6 of a clip of 5 frames"):
        Streams(Numbered((5,)), "train", 1, 6).next(cursors[0])


def test_memory_does_not_grow_with_the_stream():
    data = Numbered((7, 5, 9))
    stream, cursor = Streams(data, "train", 2, 20), None
    held = []
    tracemalloc.start()
    try:
        for _ in range(6):
            _, cursors = run(stream, 50, cursor)
            cursor = cursors[-1]
            data.calls.clear()
            del cursors
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert max(held[2:]) - held[1] < 20 * 2 * 50  # bytes: not one a frame


@given(lengths, st.integers(1, 5), st.integers(2, 9), st.integers(0, 3))
def test_windows_see_every_long_enough_clip_once_an_epoch(clip_lengths, batch, frames, seed):
    data = Numbered(clip_lengths)
    long = [i for i, length in enumerate(clip_lengths) if length >= frames]
    if not long:
        with pytest.raises(ValueError, match=f"longest has {max(clip_lengths)}"):
            Windows(data, "train", batch, frames, seed)
        return
    windows = Windows(data, "train", batch, frames, seed)
    steps = -(-3 * len(long) // batch)
    at = [windows.at(step) for step in range(steps)]
    ids, starts = (np.concatenate(part) for part in zip(*at, strict=True))
    for epoch in range(3):
        assert sorted(ids[epoch * len(long) : (epoch + 1) * len(long)]) == long
    assert (starts >= 0).all()
    assert (starts + frames <= data.lengths("train", ids)).all()
    again = Windows(Numbered(clip_lengths), "train", batch, frames, seed)
    np.testing.assert_array_equal(again.at(steps - 1), at[-1])


def test_windows_begin_anywhere_in_a_clip():
    windows = Windows(Numbered((10,)), "train", 4, 7)
    starts = np.concatenate([windows.at(step)[1] for step in range(50)])
    assert sorted({*starts.tolist()}) == [0, 1, 2, 3]
    assert np.bincount(starts).min() > 25  # of 50 expected each


def test_windows_of_endless_data_are_new_videos_from_their_beginning():
    windows = Windows(Numbered((ENDLESS,), endless=True), "train", 3, 5)
    ids, starts = windows.at(2**31)  # beyond int32
    assert ids.tolist() == [3 * 2**31, 3 * 2**31 + 1, 3 * 2**31 + 2]
    assert starts.tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="no train clip has 5 frames"):
        Windows(Numbered((4,), endless=True), "train", 3, 5)


def test_a_window_begins_a_sequence():
    clip = read_windows(Numbered((10, 10), inner_reset=4), "train", np.array([1, 0]), np.array([2, 0]), 4)
    np.testing.assert_array_equal(tags(clip)[:, 0], [[1, 2], [1, 3], [1, 4], [1, 5]])
    np.testing.assert_array_equal(clip.reset.T, [[True, False, True, False], [True, False, False, False]])


def test_numbers_that_make_no_stream_are_refused():
    data = Numbered((4,))
    for make, match in (
        (lambda: Streams(data, "train", 0, 4), "batch=0"),
        (lambda: Streams(data, "train", 1, 0), "chunk=0"),
        (lambda: Streams(data, "train", 1, 4, length=1), "length=1"),
        (lambda: Windows(data, "train", 1, 0), "frames=0"),
        (lambda: Streams(Numbered(()), "train", 1, 4), "no train clips"),
        (lambda: long_enough(data, "train", 5), "no train clip has 5 frames"),
    ):
        with pytest.raises(ValueError, match=match):
            make()
