"""MSE, PSNR and SSIM against other implementations, the baselines, futures, and how scores are summed up."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from resetta.video.measures import (
    copy_last,
    diversity,
    load_metric,
    mean_frame,
    mse,
    psnr,
    ssim,
    unavailable,
)
from resetta.video.scores import Scores, bootstrap, higher_is_better, sample_scores


def pair(shape: tuple[int, ...], seed: int = 0, noise: float = 20.0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    truth = np.cumsum(generator.normal(0, 12, shape), axis=2) + 120
    predicted = truth + generator.normal(0, noise, shape)
    return tuple(np.clip(x, 0, 255).astype(np.uint8) for x in (predicted, truth))  # type: ignore[return-value]


# 19 frames: more than are measured at a time, and not a multiple of them
@pytest.mark.parametrize("shape", [(19, 2, 12, 9, 3), (1, 1, 4, 4, 1)])
def test_mse_and_psnr_against_float64(shape: tuple[int, ...]) -> None:
    predicted, truth = pair(shape)
    error = np.square((predicted.astype(float) - truth) / 255).mean((2, 3, 4))
    np.testing.assert_allclose(mse(predicted, truth), error, rtol=1e-5)
    np.testing.assert_allclose(psnr(predicted, truth), -10 * np.log10(error), rtol=1e-5)


def test_psnr_of_known_errors() -> None:
    black, white = np.zeros((1, 1, 4, 4, 1), np.uint8), np.full((1, 1, 4, 4, 1), 255, np.uint8)
    assert psnr(black, white) == 0.0
    assert psnr(white, white) == pytest.approx(100.0)  # the floor of 1e-10
    one_level = psnr(white - 1, white)
    assert one_level == pytest.approx(20 * np.log10(255), abs=1e-4)


def test_floats_measure_as_uint8() -> None:
    predicted, truth = pair((2, 2, 16, 16, 3))
    for measure in (mse, psnr, ssim):
        np.testing.assert_array_equal(
            measure(predicted.astype(np.float32), truth.astype(np.float32)), measure(predicted, truth)
        )


@pytest.mark.parametrize("shape", [(2, 2, 20, 16, 3), (3, 1, 11, 11, 1)])
@pytest.mark.parametrize("noise", [0.5, 20.0, 90.0])
def test_ssim_against_skimage(shape: tuple[int, ...], noise: float) -> None:
    predicted, truth = pair(shape, noise=noise)
    ours = ssim(predicted, truth)
    for t in range(shape[0]):
        for b in range(shape[1]):
            _, whole = structural_similarity(
                predicted[t, b] / 255.0,
                truth[t, b] / 255.0,
                data_range=1.0,
                channel_axis=-1,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
                full=True,
            )
            # skimage's window reaches as far (5 pixels); its borders are mirrored, ours left out
            assert ours[t, b] == pytest.approx(whole[5:-5, 5:-5].mean(), abs=2e-5)


def test_ssim_of_equal_and_of_opposite_frames() -> None:
    _, truth = pair((1, 2, 14, 14, 1))
    np.testing.assert_allclose(ssim(truth, truth), 1.0, atol=1e-6)
    assert (ssim(255 - truth, truth) < 0).all()


def test_what_measures_refuse() -> None:
    small = np.zeros((1, 1, 10, 30, 1), np.uint8)
    with pytest.raises(ValueError, match="10x30"):
        ssim(small, small)
    for measure in (mse, psnr, ssim):
        with pytest.raises(ValueError, match="can't be compared"):
            measure(np.zeros((1, 1, 12, 12, 1), np.uint8), np.zeros((1, 1, 12, 12, 3), np.uint8))
    with pytest.raises(ValueError, match="no pairs"):
        diversity(small[None])


def test_baselines() -> None:
    context = np.array([[0, 10], [1, 20], [4, 255]], np.uint8).reshape(3, 2, 1, 1, 1)
    last = copy_last(context, 4)
    assert last.shape == (4, 2, 1, 1, 1)
    assert last.dtype == np.uint8
    assert (last[:, 0] == 4).all()
    assert (last[:, 1] == 255).all()
    mean = mean_frame(context, 2)
    assert mean.shape == (2, 2, 1, 1, 1)
    assert mean.dtype == np.uint8
    assert (mean[:, 0] == 2).all()
    assert (mean[:, 1] == 95).all()
    np.testing.assert_allclose(mean_frame(context.astype(np.float32), 1)[0, :, 0, 0, 0], [5 / 3, 95])


def test_diversity_is_the_mean_over_pairs() -> None:
    samples = np.random.default_rng(0).integers(0, 256, (4, 3, 2, 5, 5, 1)).astype(np.uint8)
    pairs = [
        np.square((samples[i].astype(float) - samples[j]) / 255).mean((2, 3, 4))
        for i in range(4)
        for j in range(i)
    ]
    np.testing.assert_allclose(diversity(samples), np.mean(pairs, 0), rtol=1e-5)
    assert (diversity(samples[[1, 1, 1]]) == 0).all()


def test_load_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_users_metric.py").write_text(
        "import numpy as np\n"
        "def gap(p, t): return np.abs(p.astype(float) - t).mean((2, 3, 4))\n"
        "gap.higher_is_better = False\n"
        "def wrong(p, t): return 0.0\n"
        "number = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    predicted, truth = pair((2, 3, 4, 4, 1))
    metric = load_metric("a_users_metric:gap")
    expected = np.abs(predicted.astype(float) - truth).mean((2, 3, 4))
    np.testing.assert_allclose(metric(predicted, truth), expected, rtol=1e-6)
    assert metric.higher_is_better is False  # type: ignore[attr-defined]
    for spec, says in (
        ("a_users_metric:nothing", "doesn't exist"),
        ("a_users_metric:number", "isn't callable"),
        ("no_such_module_here:f", "can't import"),
        ("gap", "module:Name"),
        (":gap", "module:Name"),
        ("lpips", "weights of your own"),
    ):
        with pytest.raises(ValueError, match=says):
            load_metric(spec)
    with pytest.raises(ValueError, match=r"returned shape \(\)"):
        load_metric("a_users_metric:wrong")(predicted, truth)
    assert unavailable("lpips") == "unavailable"


# Scores


def test_summary_has_the_form_of_the_result_file() -> None:
    generator = np.random.default_rng(0)
    batches = [generator.normal(20, 3, (5, n)) for n in (4, 4, 1)]
    scores = Scores(horizon=5)
    for batch in batches:
        scores.add("psnr", "model", batch)
        scores.add("psnr", "copy_last", batch - 1)
        scores.add("psnr", "mean_frame", 0 * batch)
    scores.unavailable("lpips", "no weights")
    out = json.loads(json.dumps(scores.summary(), allow_nan=False))
    assert out["lpips"] == "unavailable"
    assert scores.missing == {"lpips": "no weights"}
    every = np.concatenate(batches, 1)
    entry = out["psnr"]
    assert set(entry) == {w + e for w in ("model", "copy_last", "mean_frame") for e in ("", "_low", "_high")}
    np.testing.assert_allclose(entry["model"], every.mean(1))
    assert all(len(v) == 5 for v in entry.values())
    assert all(
        lo < v < hi for lo, v, hi in zip(*(entry["model" + e] for e in ("_low", "", "_high")), strict=True)
    )
    # The same resamples for everybody
    np.testing.assert_allclose(np.array(entry["copy_last_low"]) + 1, entry["model_low"])
    assert entry["mean_frame_low"] == entry["mean_frame_high"] == [0.0] * 5
    np.testing.assert_array_equal(scores.arrays()["psnr_model"], every)
    assert scores.summary() == scores.summary()


def test_one_clip_has_no_interval() -> None:
    scores = Scores(horizon=2)
    scores.add("mse", "model", np.array([[0.5], [0.25]]))
    assert scores.summary()["mse"] == {"model": [0.5, 0.25], "model_low": None, "model_high": None}


def test_undefined_entries_are_left_out() -> None:
    nan = np.nan
    scores = Scores(horizon=4)
    scores.add("identity", "model", np.array([[1, 0, 1], [1, nan, 0], [nan, 1, nan], [nan, nan, nan]]))
    entry = scores.summary()["identity"]
    assert entry["model"] == [pytest.approx(2 / 3), 0.5, 1.0, None]  # type: ignore[index]
    assert entry["model_defined"] == [3, 2, 1, 0]  # type: ignore[index]
    for end in ("model_low", "model_high"):
        values = entry[end]  # type: ignore[index]
        assert values[2] is None
        assert values[3] is None
        assert None not in values[:2]


def test_the_interval_is_the_textbook_one_and_covers() -> None:
    """Close to normal theory at 400 clips; over many data sets it holds the truth 95 % of the times."""
    values = np.random.default_rng(1).normal(3, 2, (1, 400))
    low, high = bootstrap(values, resamples=4000)
    half = 1.96 * values.std() / 20
    np.testing.assert_allclose([low[0], high[0]], values.mean() + np.array([-half, half]), atol=0.1 * half)
    many = np.random.default_rng(2).normal(0, 1, (1500, 40))
    low, high = bootstrap(many)
    assert 0.92 < ((low < 0) & (high > 0)).mean() < 0.97


@given(st.integers(0, 10_000))
def test_the_bootstrap_against_a_plain_loop(seed: int) -> None:
    generator = np.random.default_rng(seed)
    values = generator.normal(1e3, 1, (3, 6))
    values[1, generator.integers(6)] = np.nan
    draws = np.random.default_rng(0).integers(6, size=(50, 6))
    means = np.array([[np.nanmean(row[draw]) for row in values] for draw in draws])
    expected = np.nanquantile(means, [0.025, 0.975], axis=0)
    np.testing.assert_allclose(bootstrap(values, resamples=50), expected, rtol=1e-12)


def test_what_scores_refuse() -> None:
    scores = Scores(horizon=2)
    with pytest.raises(ValueError, match="infinite"):
        scores.add("psnr", "model", np.array([[np.inf], [0.0]]))
    with pytest.raises(ValueError, match="horizon 2"):
        scores.add("psnr", "model", np.zeros((3, 1)))
    with pytest.raises(ValueError, match="horizon=0"):
        Scores(horizon=0)
    scores.add("psnr", "model", np.zeros((2, 3)))
    scores.add("psnr", "copy_last", np.zeros((2, 2)))
    with pytest.raises(ValueError, match="model 3, copy_last 2"):
        scores.summary()
    scores.add_fact("delay", np.zeros(3))
    with pytest.raises(ValueError, match="copy_last was measured on 2 clips, and delay is known of 3"):
        scores.by_fact("psnr", "delay")


def test_the_best_future_is_one_for_the_whole_clip() -> None:
    values = np.array([[[0.0, 1.0], [9.0, 1.0]], [[4.0, 0.0], [4.0, 0.0]]])  # [S = 2, K = 2, B = 2]
    low = sample_scores("mse", values)
    np.testing.assert_array_equal(low["mse"], [[2, 0.5], [6.5, 0.5]])
    np.testing.assert_array_equal(low["mse_best"], [[4, 0], [4, 0]])  # not the 0 of the first frame
    high = sample_scores("psnr", values)
    np.testing.assert_array_equal(high["psnr_best"], [[0, 1], [9, 1]])
    assert set(sample_scores("mystery", values)) == {"mystery"}
    assert set(sample_scores("mystery", values, higher=True)) == {"mystery", "mystery_best"}
    assert set(sample_scores("mse", values[:1])) == {"mse"}
    assert higher_is_better("position_error") is False
    assert higher_is_better("mystery") is None


def test_undefined_futures_are_never_the_best() -> None:
    values = np.full((3, 2, 1), np.nan)
    values[1] = [[7.0], [np.nan]]
    out = sample_scores("mse", values)
    np.testing.assert_array_equal(out["mse"], [[7.0], [np.nan]])
    np.testing.assert_array_equal(out["mse_best"], [[7.0], [np.nan]])


def test_scores_of_samples() -> None:
    values = np.random.default_rng(0).uniform(size=(4, 3, 2))
    scores = Scores(horizon=3)
    scores.add_samples("ssim", values)
    assert set(scores.summary()) == {"ssim", "ssim_best"}
    np.testing.assert_allclose(scores.array("ssim", "model"), values.mean(0))
    best = values.mean(1).argmax(0)
    np.testing.assert_array_equal(scores.array("ssim_best", "model")[:, 0], values[best[0], :, 0])
