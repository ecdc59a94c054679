"""Folders of every format, from the files to the batch: what is found, checked, split, converted and kept."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from resetta.video.clip import NO_ACTION, ActionSpace
from resetta.video.decode import write_video
from resetta.video.folder import load_folder
from resetta.video.formats import arrangement, find_clips, natural
from resetta.video.inspect import inspect
from resetta.video.manifest import ingest, split
from resetta.video.recording import RecordingWriter, open_recording
from resetta.video.shards import fit, nice_bytes, plan

SIZE = 16


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def _clip(frames=6, size=SIZE, seed=0, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (frames, size, size, channels), np.uint8)


def _videos(folder, count=4, frames=6, suffix=".mp4"):
    folder.mkdir(parents=True, exist_ok=True)
    codec = {".mkv": "ffv1", ".avi": "ffv1", ".webm": "libvpx-vp9"}.get(suffix, "libx264rgb")
    for k in range(count):
        write_video(folder / f"clip_{k}{suffix}", _clip(frames + k, seed=k), codec=codec)
    return folder


def _load(folder, **options):
    return load_folder(folder, **{"size": SIZE, "backend": "pyav", **options})


def _all(data, split):
    """Every clip of a split whole."""
    ids = np.arange(data.count(split))
    return [
        data.read(split, np.array([i]), np.zeros(1, int), int(n))
        for i, n in zip(ids, data.lengths(split, ids), strict=True)
    ]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".avi", ".webm"])
def test_videos_are_read_bit_exactly(tmp_path, suffix):
    folder = _videos(tmp_path / "a", suffix=suffix)
    data = _load(folder)
    assert (data.count("train"), data.count("test")) == (3, 1)
    read = [clip.frames[:, 0] for part in ("train", "test") for clip in _all(data, part)]
    assert sorted(len(frames) for frames in read) == [6, 7, 8, 9]
    for frames in read:
        np.testing.assert_array_equal(frames, _clip(len(frames), seed=len(frames) - 6))


def test_pieces_agree_with_the_whole_from_copies_and_from_the_files(tmp_path):
    folder = _videos(tmp_path / "a", frames=9)
    copies, files = _load(folder), _load(folder, shards=False)
    ids, starts = np.array([2, 0, 2]), np.array([3, 0, 1])
    for data in (copies, files):
        whole = _all(data, "train")
        piece = data.read("train", ids, starts, 5)
        for b, (i, start) in enumerate(zip(ids, starts, strict=True)):
            np.testing.assert_array_equal(piece.frames[:, b], whole[i].frames[start : start + 5, 0])
        assert piece.actions is None
        assert piece.reset.tolist() == [[False, True, False]] + [[False] * 3] * 4
    with pytest.raises(ValueError, match=r"clip 0 of train has .* frames and 8 to 12 were asked for"):
        copies.read("train", np.array([0]), np.array([8]), 5)


def test_what_is_bad_is_named_counted_and_only_skipped_on_request(tmp_path):
    folder = _videos(tmp_path / "a", frames=4)
    (folder / "empty.mp4").write_bytes(b"")
    data = (folder / "clip_3.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"2 of 6 clips in .* cannot be used .*cut.mp4: .*data.max_bad=2"):
        _load(folder)
    with pytest.raises(ValueError, match=r"data\.max_bad=2"):
        _load(folder, max_bad=1)
    kept = _load(folder, max_bad=2)
    assert kept.count("train") + kept.count("test") == 4
    with pytest.raises(ValueError, match=r"clip_0.mp4: it has 4 frames and 5 are needed"):
        _load(folder, max_bad=2, min_frames=5)
    with pytest.raises(ValueError, match=r"max_bad=-1 must be at least 0"):
        _load(folder, max_bad=-1)
    lines = inspect(folder, size=SIZE, backend="pyav")
    assert [line.split()[1] for line in lines if line.startswith("bad")] == ["cut.mp4:", "empty.mp4:"]


def test_damage_in_the_middle_is_found_before_anything_compiles(tmp_path):
    folder = _videos(tmp_path / "a", count=3, frames=30)
    path = folder / "clip_1.mp4"
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 300] = bytes(300)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"1 of 3 clips .*clip_1.mp4"):
        _load(folder)
    assert _load(folder, max_bad=1).count("train") == 1


def test_nothing_found_says_what_is_accepted(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        _load(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"holds no clips; accepted are videos \(.mp4, .mov, .avi, "):
        _load(tmp_path)


def test_a_checked_file_is_not_opened_again_until_it_changes(tmp_path, monkeypatch):
    folder = _videos(tmp_path / "a")
    first = ingest(folder, size=SIZE, backend="pyav")
    assert first.survey.remembered == 0
    again = ingest(folder, size=SIZE, backend="pyav")
    assert again.survey.remembered == 4
    assert again.survey.shards == first.survey.shards
    write_video(folder / "clip_1.mp4", _clip(12, seed=9))
    changed = ingest(folder, size=SIZE, backend="pyav")
    assert changed.survey.remembered == 3
    by_name = {c.source.name: p for c, p in zip(changed.clips, changed.pixels, strict=True)}
    np.testing.assert_array_equal(by_name["clip_1.mp4"], _clip(12, seed=9))
    np.testing.assert_array_equal(by_name["clip_2.mp4"], _clip(8, seed=2))


def test_a_torn_copy_and_a_spoilt_manifest_are_made_again(tmp_path):
    folder = _videos(tmp_path / "a")
    made = ingest(folder, size=SIZE, backend="pyav").survey
    shard = next(made.folder.glob("copy-*/frames-00000.bin"))
    with shard.open("r+b") as file:
        file.truncate(100)
    (frames,) = [p for c, p in _by_name(folder) if c == "clip_2.mp4"]
    np.testing.assert_array_equal(frames, _clip(8, seed=2))
    (made.folder / "manifest.json").write_text('{"version": 1')
    (frames,) = [p for c, p in _by_name(folder) if c == "clip_2.mp4"]
    np.testing.assert_array_equal(frames, _clip(8, seed=2))


def _by_name(folder):
    made = ingest(folder, size=SIZE, backend="pyav")
    return [(c.source.name, p) for c, p in zip(made.clips, made.pixels, strict=True)]


def test_the_split_is_by_name_alone(tmp_path):
    folder = _videos(tmp_path / "a", count=12)
    sources = find_clips(folder)
    train, test, _ = split(sources)
    names = {sources[i].name for i in test}
    assert (len(test), len(train)) == (2, 10)  # a tenth, rounded up
    back = sources[::-1]
    assert {back[i].name for i in split(back)[1]} == names
    os.rename(folder, tmp_path / "elsewhere")
    moved = find_clips(tmp_path / "elsewhere")
    assert {moved[i].name for i in split(moved)[1]} == names
    two = split(sources[:2])
    assert (len(two[0]), len(two[1])) == (1, 1)
    one = split(sources[:1])
    assert one[:2] == ((0,), (0,))
    assert "trained on and tested on" in one[2][0]


def test_folders_train_and_test_are_the_split(tmp_path):
    _videos(tmp_path / "a" / "train", count=2)
    _videos(tmp_path / "a" / "test", count=3)
    data = _load(tmp_path / "a")
    assert (data.count("train"), data.count("test")) == (2, 3)


def _teco(folder, frames=5, actions=True, **more):
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {"video": _clip(frames), **more}
    if actions:
        arrays["actions"] = np.arange(frames, dtype=np.int64) % 3
    np.savez(folder / "0.npz", **arrays)
    np.savez(folder / "1.npz", **arrays)


def test_actions_of_a_format_are_turned_into_ours(tmp_path):
    _teco(tmp_path / "teco")
    data = _load(tmp_path / "teco")
    assert data.actions == ActionSpace("discrete", 3)
    # what led to frame t is what leads from frame t - 1
    assert _all(data, "train")[0].actions[:, 0].tolist() == [1, 2, 0, 1, NO_ACTION]
    told = _load(tmp_path / "teco", actions="next")
    assert _all(told, "train")[0].actions[:, 0].tolist() == [0, 1, 2, 0, 1]
    assert _load(tmp_path / "teco", actions="none").actions == ActionSpace()
    (line,) = [x for x in inspect(tmp_path / "teco", size=SIZE) if x.startswith("actions")]
    assert "3 discrete; teco: stored as what led to frame t" in line


def test_actions_beside_a_video_lead_on(tmp_path):
    folder = _videos(tmp_path / "a", count=2)
    for k in range(2):
        values = np.random.default_rng(k).normal(size=(6 + k, 2)).astype(np.float32)
        np.savez(folder / f"clip_{k}.npz", actions=values)
    data = _load(folder)
    assert data.actions == ActionSpace("continuous", 2)
    (clip,) = _all(data, "train")
    k = len(clip.frames) - 6
    np.testing.assert_array_equal(
        clip.actions[:, 0], np.random.default_rng(k).normal(size=(6 + k, 2)).astype(np.float32)
    )
    (folder / "clip_1.npz").unlink()
    with pytest.raises(ValueError, match=r"1 of 2 clips have no actions \(first: clip_1.mp4\)"):
        _load(folder)
    np.savez(folder / "clip_1.npz", actions=np.zeros(3))
    with pytest.raises(ValueError, match="it has 3 actions and 7 frames"):
        _load(folder)


def test_moving_mnist_is_known_by_its_shape(tmp_path):
    assert arrangement((20, 7, 64, 64), ".npy") == "tnhw"
    assert arrangement((7, 20, 64, 64), ".npz") == "nthw"
    assert arrangement((20, 7, 64, 64), ".npz") == "nthw"
    assert arrangement((7, 20, 64, 64, 1), ".npz") == "nthwc"
    assert arrangement((9, 64, 64, 3), ".npy") == "thwc"
    array = np.random.default_rng(0).integers(0, 256, (20, 5, SIZE, SIZE), np.uint8)
    for name, stored in {"a.npy": array, "b.npz": array.swapaxes(0, 1)}.items():
        folder = tmp_path / name[0]
        folder.mkdir()
        np.save(folder / name, stored) if name[-1] == "y" else np.savez(folder / name, data=stored)
        data = _load(folder, channels=1)
        assert (data.count("train"), data.count("test")) == (4, 1)
        read = [clip.frames[:, 0, ..., 0] for part in ("train", "test") for clip in _all(data, part)]
        assert {frames.tobytes() for frames in read} == {array[:, n].tobytes() for n in range(5)}


def test_images_in_natural_order(tmp_path):
    folder = tmp_path / "a" / "walk"
    folder.mkdir(parents=True)
    frames = _clip(12)
    for t in range(12):
        Image.fromarray(frames[t]).save(folder / f"{t}.png")
    clip = _load(tmp_path / "a").read("train", np.array([0]), np.array([0]), 12)
    np.testing.assert_array_equal(clip.frames[:, 0], frames)
    assert sorted(["10", "9", "b2", "b10"], key=natural) == ["9", "10", "b2", "b10"]


def test_lists_of_clips(tmp_path):
    _teco(tmp_path / "clips")
    _teco(tmp_path / "other", actions=False)
    (tmp_path / "train.json").write_text(json.dumps([{"video_path": "clips/0.npz"}]))
    (tmp_path / "test.json").write_text(json.dumps([{"video_path": "clips/1.npz"}]))
    data = _load(tmp_path)
    assert (data.count("train"), data.count("test")) == (1, 1)
    (tmp_path / "latents.json").write_text(json.dumps([{"latent_path": "x.npz"}]))
    with pytest.raises(ValueError, match=r"latents.json lists latents, .*; give `video_path`"):
        _load(tmp_path / "latents.json")
    (tmp_path / "null.json").write_text(json.dumps([{"video_path": "x\0.npz"}]))
    with pytest.raises(ValueError, match=r"entry 0 of null.json has a null character in a path"):
        _load(tmp_path / "null.json")


@pytest.mark.parametrize("how", ["link", "parent", "absolute"])
def test_nothing_outside_the_folder_is_followed(tmp_path, how):
    outside = _videos(tmp_path / "outside", count=1)
    root = _videos(tmp_path / "root", count=2)
    if how == "link":
        (root / "clip_7.mp4").symlink_to(outside / "clip_0.mp4")
    else:
        path = "../outside/clip_0.mp4" if how == "parent" else str(outside / "clip_0.mp4")
        (root / "train.json").write_text(json.dumps([{"video_path": path}]))
    with pytest.raises(ValueError, match="leads out of"):
        _load(root)


@pytest.mark.parametrize("name", ["pipe.mp4", "pipe.npy", "images/2.png"])
def test_a_pipe_is_named_and_never_opened(tmp_path, name):
    frame = Image.new("RGB", (SIZE, SIZE))
    (tmp_path / "images").mkdir()
    for k in range(2):
        frame.save(tmp_path / "images" / f"{k}.png")
    os.mkfifo(tmp_path / name)  # nobody writes into it: opening it would wait for ever
    with pytest.raises(ValueError, match=r"1 of . clips .* is a pipe, a socket or a device"):
        _load(tmp_path)


def test_an_array_cut_short_is_truncated(tmp_path):
    np.save(tmp_path / "all.npy", np.zeros((2, 5, SIZE, SIZE), np.uint8))
    data = (tmp_path / "all.npy").read_bytes()
    (tmp_path / "all.npy").write_bytes(data[:-SIZE])
    with pytest.raises(ValueError, match=r"2 of 2 clips .*all.npy#0: is truncated"):
        _load(tmp_path)


def test_no_pickle_is_ever_opened(tmp_path):
    np.savez(tmp_path / "0.npz", video=np.array([{"a": 1}], object))
    with pytest.raises(ValueError, match=r"1 of 1 clips .*0.npz"):
        _load(tmp_path)


def test_mixed_sizes_are_resized_and_cropped_in_the_middle():
    frames = np.zeros((1, 8, 16, 3), np.uint8)
    frames[:, :, 4:12] = 200
    np.testing.assert_array_equal(fit(frames, 8, 3), np.full((1, 8, 8, 3), 200))
    half = fit(_clip(3, 8), 4, 3).astype(float)
    assert half.shape == (3, 4, 4, 3)
    # the antialiased filter of half size: weights 1 3 3 1 over 8 inside, so far from the border
    source = _clip(3, 8).astype(float)
    weights = np.array([1, 3, 3, 1]) / 8
    row = np.einsum("a,ntaxc->ntxc", weights, np.stack([source[:, 1:5], source[:, 3:7]], 1))
    both = np.einsum("a,ntxac->ntxc", weights, np.stack([row[:, :, 1:5], row[:, :, 3:7]], 2))
    assert np.abs(half[:, 1:3, 1:3] - both).max() <= 1.0
    grey = fit(np.array([[[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [77, 77, 77]]]], np.uint8), 2, 1)
    assert grey[0, ..., 0].tolist() == [[76, 150], [29, 77]]
    np.testing.assert_array_equal(fit(grey, 2, 3), grey.repeat(3, -1))


def test_clips_lie_whole_in_their_files():
    places, shards = plan([6, 3, 4, 20, 1], limit=10)
    assert [tuple(p) for p in places] == [(0, 0), (0, 6), (1, 0), (2, 0), (3, 0)]
    assert shards == [9, 4, 20, 1]
    assert [nice_bytes(n) for n in (999, 1200, 3_400_000_000)] == ["999 bytes", "1.2 kB", "3.4 GB"]


def _recorded(folder, clips=2, **options):
    space, rng = ActionSpace("discrete", 4), np.random.default_rng(0)
    with RecordingWriter(folder, SIZE, 3, space, **options) as writer:
        for k in range(clips):
            frames = 8 + k
            resets = np.arange(frames) % 4 == 0
            writer.add(_clip(frames, seed=k), rng.integers(0, 4, frames), np.ones(frames), resets)
    return folder


def test_a_recording_is_read_as_it_was_written(tmp_path):
    folder = _recorded(tmp_path / "r", clips=3, shard_bytes=20 * SIZE * SIZE * 3)
    assert len(list(folder.glob("frames-*.bin"))) == 2
    data = _load(folder)
    assert data.actions == ActionSpace("discrete", 4)
    for clip in _all(data, "train"):
        n = len(clip.frames)
        np.testing.assert_array_equal(clip.frames[:, 0], _clip(n, seed=n - 8))
        assert clip.reset[:, 0].tolist() == [t % 4 == 0 for t in range(n)]
    rng = np.random.default_rng(0)
    expected = {n: rng.integers(0, 4, n).tolist() for n in (8, 9, 10)}
    for part in ("train", "test"):
        for clip in _all(data, part):
            assert clip.actions[:, 0].tolist() == expected[len(clip.frames)]
    assert not list(data.manifest.survey.folder.glob("copy-*"))  # mapped where they are
    smaller = _load(folder, size=8)
    assert smaller.read("train", np.array([0]), np.array([0]), 2).frames.shape == (2, 1, 8, 8, 3)


def test_a_recording_is_whole_or_not_there(tmp_path):
    def fail():
        with RecordingWriter(tmp_path / "r", 8, 1, ActionSpace()) as writer:
            writer.add(_clip(3, 8, channels=1), None, np.zeros(3), np.zeros(3, bool))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert list(tmp_path.iterdir()) == []
    folder = _recorded(tmp_path / "r")
    with pytest.raises(ValueError, match="is not empty; choose another folder"):
        RecordingWriter(folder, 8, 1, ActionSpace())
    shard = folder / "frames-00000.bin"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"shards have .* bytes where its clips need"):
        open_recording(folder)
    with pytest.raises(ValueError, match=r"1 of 1 clips .* cannot be used"):
        _load(folder)


def test_a_recording_cannot_lead_elsewhere(tmp_path):
    folder = _recorded(tmp_path / "r")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["shards"] = ["../secret.bin"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="must be a plain name inside its folder"):
        open_recording(folder)


def test_a_refused_clip_leaves_no_rows_behind(tmp_path):
    writer = RecordingWriter(tmp_path / "r", SIZE, 3, ActionSpace("discrete", 2))
    with pytest.raises(ValueError, match="actions have shape"):
        writer.add(_clip(4), np.zeros(3, int), np.zeros(4), np.zeros(4, bool))
    with pytest.raises(ValueError, match="actions from 0 to 2 are not all below 2"):
        writer.add(_clip(3), np.arange(3), np.zeros(3), np.zeros(3, bool))
    writer.add(_clip(4), np.ones(4, int), np.arange(4), np.zeros(4, bool))
    recording = open_recording(writer.close())
    assert recording.frames == (4,)
    assert recording.rows(recording.actions, 0).tolist() == [1, 1, 1, 1]
