"""The random-feature Fréchet distance: its frozen definition, its mathematics, and what it can see."""

import hashlib

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from resetta.video import rfvd
from resetta.video.rfvd import RandomFeatures, area_weights, features, floor, frechet, shuffled, windows_of


def blobs(clips: int, seed: int, frames: int = 16, size: int = 16) -> np.ndarray:
    """A blob moving straight over each clip: uint8 [frames, clips, size, size, 1]."""
    generator = np.random.default_rng(seed)
    place = generator.uniform(4, size - 4, (clips, 2))
    speed = generator.normal(0, 1.2, (clips, 2))
    where = place + speed * (np.arange(frames)[:, None, None] - frames / 2)  # [T, B, 2]
    where = np.abs((where - 2) % (2 * size - 8) - (size - 4)) + 2
    grid = np.arange(size)
    bell = np.exp(-0.5 * np.square((grid - where[..., None]) / 1.5))  # [T, B, 2, size]
    return np.rint(255 * bell[:, :, 0, :, None] * bell[:, :, 1, None, :]).astype(np.uint8)[..., None]


def test_the_weights_are_those_of_the_version() -> None:
    """Drawn again, apart from the module, in the documented order."""
    digest = hashlib.sha256()
    for net in range(5):
        generator = np.random.Generator(np.random.PCG64(net))
        for inputs, outputs in ((3, 16), (16, 32), (32, 64)):
            weights = generator.standard_normal((3, 3, 3, inputs, outputs)) * np.sqrt(2 / (27 * inputs))
            digest.update(weights.astype("<f4").tobytes())
    assert digest.hexdigest() == rfvd.WEIGHTS_SHA256 == rfvd.weights_sha256()


def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rfvd, "WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(RuntimeError, match="other weights"):
        RandomFeatures(0)
    with pytest.raises(ValueError, match="net=5"):
        RandomFeatures(5)


@given(st.integers(1, 40), st.integers(1, 12))
def test_area_resizing(size: int, target: int) -> None:
    """Through a grid that both sizes divide, where area averaging is a plain mean."""
    image = np.random.default_rng(size).uniform(size=size)
    expected = np.repeat(image, target).reshape(target, size).mean(1)
    np.testing.assert_allclose(area_weights(size, target) @ image, expected, atol=1e-6)


def by_hand(window: np.ndarray, net: int) -> np.ndarray:
    """The features of one window [16, 64, 64, C], in float64 by plain loops over the taps."""
    x = np.broadcast_to(window.astype(float), (*window.shape[:-1], 3)) / 127.5 - 1
    for layer in RandomFeatures(net).layers:
        padded = np.pad(x, ((1, 1),) * 3 + ((0, 0),))
        half = [n // 2 for n in x.shape[:3]]
        x = np.zeros((*half, layer.shape[-1]))
        for tap in np.ndindex(3, 3, 3):
            index = tuple(slice(k, k + 2 * n, 2) for k, n in zip(tap, half, strict=True))
            x += padded[index] @ layer[tap].astype(float)
        x = np.maximum(x, 0)
    return np.concatenate([x.mean((0, 1, 2)), x.std(0).mean((0, 1))])


@pytest.mark.parametrize(("channels", "net"), [(1, 0), (3, 4)])
def test_features_against_plain_loops(channels: int, net: int) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (37, 1, 64, 64, channels)).astype(np.uint8)
    ours = RandomFeatures(net).features(frames)
    assert ours.shape == (2, 128)
    assert ours.dtype == np.float32
    for k in range(2):
        np.testing.assert_allclose(
            ours[k], by_hand(frames[16 * k : 16 * k + 16, 0], net), rtol=1e-4, atol=1e-5
        )


def test_windows_are_those_of_one_clip_side_by_side() -> None:
    frames = np.arange(40 * 3).reshape(40, 3, 1, 1, 1)
    windows = windows_of(frames)
    assert windows.shape == (6, 16, 1, 1, 1)
    for clip in range(3):
        for k in range(2):
            np.testing.assert_array_equal(windows[2 * clip + k], frames[16 * k : 16 * k + 16, clip])


def test_sizes_and_channels() -> None:
    """Enlarged by whole numbers the video is the same one; so is grey as three equal channels."""
    video = blobs(3, 0, size=16)
    small = RandomFeatures(1).features(video)
    large = RandomFeatures(1).features(video.repeat(2, 2).repeat(2, 3))
    np.testing.assert_allclose(small, large, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(small, RandomFeatures(1).features(video.repeat(3, -1)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(small, RandomFeatures(1).features(video.astype(np.float32)), rtol=1e-6)
    for wrong in (video[:15], video.repeat(2, -1), video[0]):
        with pytest.raises(ValueError, match="no window"):
            RandomFeatures(0).features(wrong)


def test_shuffling_keeps_each_windows_frames() -> None:
    frames = np.arange(35 * 2).reshape(35, 2, 1, 1, 1)
    mixed = shuffled(frames, seed=1)
    for start in (0, 16):
        for clip in range(2):
            here = mixed[start : start + 16, clip, 0, 0, 0]
            np.testing.assert_array_equal(np.sort(here), frames[start : start + 16, clip, 0, 0, 0])
            assert (np.diff(here) != 2).any()
    np.testing.assert_array_equal(mixed[32:], frames[32:])
    assert not np.array_equal(mixed[:16, 0], mixed[:16, 1] - 1)  # every clip has an order of its own
    assert frames[1, 0, 0, 0, 0] == 2  # the given frames are untouched


def test_frechet_by_hand() -> None:
    """In one dimension: (μ_a − μ_b)² + (σ_a − σ_b)²."""
    a, b = np.array([[0.0], [2.0]]), np.array([[5.0], [11.0]])
    assert frechet(a, b) == pytest.approx(7**2 + (np.sqrt(18) - np.sqrt(2)) ** 2)


@given(st.integers(0, 10_000))
def test_frechet_against_scipy(seed: int) -> None:
    generator = np.random.default_rng(seed)
    a = generator.normal(size=(60, 7)) @ generator.normal(size=(7, 7)) + generator.normal(size=7)
    b = generator.normal(size=(50, 7)) @ generator.normal(size=(7, 7))
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    root = np.asarray(scipy.linalg.sqrtm(cov_a @ cov_b)).real
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(cov_a + cov_b - 2 * root)
    assert frechet(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet(a, b) == pytest.approx(frechet(b, a), rel=1e-8)
    assert frechet(a, a) == pytest.approx(0, abs=1e-7 * np.trace(cov_a))


def test_frechet_of_degenerate_sets() -> None:
    """Fewer rows than columns: the covariances have no full rank."""
    a = np.random.default_rng(0).normal(size=(5, 20))
    assert frechet(a, a + 1) == pytest.approx(20)


@pytest.fixture(scope="module")
def real() -> np.ndarray:
    return features(blobs(256, seed=1))


def two_nets(frames: np.ndarray) -> np.ndarray:
    return np.stack([RandomFeatures(net).features(frames) for net in (0, 3)])


def test_what_it_sees(real: np.ndarray) -> None:
    """Two real sets have the floor; every degradation is clearly above it, and more of it is worse."""
    video = blobs(256, seed=2)
    generator = np.random.default_rng(0)

    def noisy(amount: float) -> np.ndarray:
        return np.clip(video + generator.normal(0, amount, video.shape), 0, 255)

    def blurred(times: int) -> np.ndarray:
        out = video.astype(float)
        for _ in range(times):
            for axis in (2, 3):
                out = (np.roll(out, 1, axis) + 2 * out + np.roll(out, -1, axis)) / 4
        return out

    others = {
        "shuffled": shuffled(video),
        "frozen": np.broadcast_to(video[:1], video.shape),
        "little noise": noisy(8),
        "much noise": noisy(40),
        "little blur": blurred(1),
        "much blur": blurred(6),
    }
    table = rfvd.table(
        real[[0, 3]], {who: two_nets(v) for who, v in others.items()}, other_real=two_nets(video)
    )
    low = table["floor"]["mean"]
    assert table["version"] == "rfvd-v1"
    assert 0 < low < 0.5
    for who in ("shuffled", "frozen", "much noise", "much blur"):
        assert min(table[who]["per_net"]) > 1.3 * max(table["floor"]["per_net"]), who
    assert table["much noise"]["mean"] > table["little noise"]["mean"] > low
    assert table["much blur"]["mean"] > table["little blur"]["mean"] > low


def test_the_value_is_scaled_and_averaged_over_the_nets(real: np.ndarray) -> None:
    assert real.shape == (5, 256, 128)
    same = rfvd.rfvd(real, real)
    assert same["n"] == 256
    assert abs(same["mean"]) < 1e-6
    moved = rfvd.rfvd(real, real + 0.1)
    expected = [128 * 0.1**2 / np.trace(np.cov(f.astype(float).T)) for f in real]
    np.testing.assert_allclose(moved["per_net"], expected, rtol=1e-3)
    assert moved["mean"] == pytest.approx(np.mean(expected), rel=1e-3)
    assert moved["spread"] == pytest.approx(np.std(expected), rel=1e-2)


def test_the_floor_falls_with_the_number_of_windows() -> None:
    normal = np.random.default_rng(0).normal(size=(5, 2048, 128))
    few, many = floor(normal[:, :1024]), floor(normal)
    assert (few["n"], many["n"]) == (512, 1024)
    assert few["mean"] / many["mean"] == pytest.approx(2, rel=0.1)
    assert rfvd.table(normal[:, :256], {})["floor"] == "unavailable"


def test_what_it_refuses(real: np.ndarray) -> None:
    with pytest.raises(ValueError, match="255 windows"):
        rfvd.rfvd(real[:, :255], real[:, :255])
    with pytest.raises(ValueError, match="equally many"):
        rfvd.rfvd(real, real[:, :255])
    with pytest.raises(ValueError, match="all alike"):
        rfvd.rfvd(np.zeros_like(real), real)
    broken = real.copy()
    broken[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="finite"):
        rfvd.rfvd(real, broken)
