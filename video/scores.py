"""Scores over a whole evaluation: values by horizon and clip, gathered batch by batch, then summed up.

A measure is kept for everybody who predicts: `model`, the baselines `copy_last` and `mean_frame`, and
whatever else stands beside them, such as a `constant` position.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

# Which way is better, for the choice of the best of several futures. A measure in neither has no best.
HIGHER_IS_BETTER = frozenset(
    {"psnr", "ssim", "iou", "identity", "recall", "accuracy", "revisit_psnr", "new_psnr"}
)
LOWER_IS_BETTER = frozenset({"mse", "lpips"})

Summary = dict[str, list[float | None] | None]


def higher_is_better(measure: str) -> bool | None:
    """Which way is better; None where that isn't known. Whatever ends in `error` is better low."""
    if measure in HIGHER_IS_BETTER:
        return True
    return False if measure in LOWER_IS_BETTER or measure.endswith("error") else None


class Scores:
    """Values `[K, clips]` of every measure and everybody measured, K the horizon.

        scores = Scores(horizon=200)
        scores.add("psnr", "model", psnr(predicted, truth))          # once for each batch of clips
        result["metrics"] = scores.summary()

    A value is NaN where the measure isn't defined, as identity is while the object is hidden. The clips of
    one measure come in the same order for everybody, and nobody may lack one.
    """

    def __init__(self, horizon: int, resamples: int = 1000, seed: int = 0, level: float = 0.95):
        if horizon < 1 or resamples < 1 or not 0 < level < 1:
            raise ValueError(
                f"horizon={horizon}, resamples={resamples} and level={level} must satisfy horizon >= 1, "
                "resamples >= 1 and 0 < level < 1"
            )
        self.horizon, self.resamples, self.seed, self.level = horizon, resamples, seed, level
        self._values: dict[str, dict[str, list[np.ndarray]]] = {}
        self._facts: dict[str, list[np.ndarray]] = {}
        self.missing: dict[str, str] = {}  # measure -> why it can't be computed

    def add(self, measure: str, who: str, values: Float[np.ndarray, "K B"]) -> None:
        """Values of another batch of clips; raises `ValueError` for another horizon or an infinite value."""
        values = np.asarray(values, np.float64)
        if values.ndim != 2 or values.shape[0] != self.horizon:
            raise ValueError(
                f"{measure} of {who} has shape {values.shape}; give [horizon, clips] with horizon "
                f"{self.horizon}"
            )
        if np.isinf(values).any():
            raise ValueError(
                f"{measure} of {who} has an infinite value; floor it, or use NaN where undefined"
            )
        self._values.setdefault(measure, {}).setdefault(who, []).append(values)

    def add_samples(
        self,
        measure: str,
        values: Float[np.ndarray, "S K B"],
        who: str = "model",
        higher: bool | None = None,
    ) -> None:
        """Values of several futures of each clip, as `sample_scores` makes one of them."""
        for name, chosen in sample_scores(measure, values, higher).items():
            self.add(name, who, chosen)

    def add_fact(self, fact: str, values: Shaped[np.ndarray, " B"]) -> None:
        """What is true of each clip of another batch, such as how long its object is hidden."""
        self._facts.setdefault(fact, []).append(np.asarray(values))

    def unavailable(self, measure: str, reason: str) -> None:
        """The measure can't be computed: its entry is the word, and the reason stays in `missing`."""
        self.missing[measure] = reason

    def array(self, measure: str, who: str) -> Float[np.ndarray, "K N"]:
        """Every clip's values, in the order in which they came."""
        return np.concatenate(self._values[measure][who], axis=1)

    def arrays(self) -> dict[str, Float[np.ndarray, "K N"]]:
        """Everything by `<measure>_<who>`, for an npz file."""
        return {f"{m}_{who}": self.array(m, who) for m, by in self._values.items() for who in by}

    def summary(self) -> dict[str, Summary | str]:
        """By measure: `<who>`, a list with the mean over clips at each horizon, and the ends of its interval.

        `<who>_low` and `<who>_high` are a percentile bootstrap over clips, the same resamples for everybody;
        None of one clip, whose spread nobody can know. A horizon at which no clip has a value is None in the
        lists, as are the ends where only one has. Where some are undefined, `<who>_defined` counts those that
        aren't. An unavailable measure is the word.

        Raises `ValueError` when somebody was measured on fewer clips than the others.
        """
        out: dict[str, Summary | str] = {}
        for measure, by in self._values.items():
            if measure in self.missing:
                continue
            values = {who: self.array(measure, who) for who in by}
            if len({v.shape[1] for v in values.values()}) > 1:
                counts = ", ".join(f"{who} {v.shape[1]}" for who, v in values.items())
                raise ValueError(
                    f"{measure} was measured on unequal clips ({counts}); add every batch for all"
                )
            entry: Summary = {}
            for who, array in values.items():
                entry |= self._one(who, array)
            out[measure] = entry
        return out | dict.fromkeys(self.missing, "unavailable")

    def by_fact(self, measure: str, fact: str) -> dict[str, Any]:
        """A measure summed up by what is true of clips, as `summary` does by horizon.

        `values` are those of the fact in order, `clips` how many have each, and entry k of the lists is about
        the clips that have `values[k]`: the mean over clips of a clip's mean over the horizons at which the
        measure is defined. Raises `ValueError` where the fact isn't known of every clip.
        """
        facts = np.concatenate(self._facts[fact])
        of, clips = np.unique(facts, return_counts=True)
        entry: dict[str, Any] = {"values": of.tolist(), "clips": clips.tolist()}
        for who in self._values[measure]:
            values = self.array(measure, who)
            if values.shape[1] != len(facts):
                raise ValueError(
                    f"{measure} of {who} was measured on {values.shape[1]} clips, and {fact} is known of "
                    f"{len(facts)}; add every batch to both"
                )
            defined = np.isfinite(values)
            means = _ratio(np.where(defined, values, 0.0).sum(0), defined.sum(0))
            entry |= self._one(who, np.where(facts == of[:, None], means, np.nan))
            entry[f"{who}_defined"] = [int(n) for n in (np.isfinite(means) & (facts == of[:, None])).sum(1)]
        return entry

    def _one(self, who: str, values: np.ndarray) -> Summary:
        defined = np.isfinite(values)
        count = defined.sum(1)
        mean = _ratio(np.where(defined, values, 0.0).sum(1), count)
        entry: Summary = {who: _plain(mean), f"{who}_low": None, f"{who}_high": None}
        if values.shape[1] > 1:
            low, high = bootstrap(values, self.resamples, self.seed, self.level)
            entry[f"{who}_low"] = _plain(np.where(count > 1, low, np.nan))
            entry[f"{who}_high"] = _plain(np.where(count > 1, high, np.nan))
        if not defined.all():
            entry[f"{who}_defined"] = [int(n) for n in count]
        return entry


def bootstrap(
    values: Float[np.ndarray, "K N"], resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[Float[np.ndarray, " K"], Float[np.ndarray, " K"]]:
    """The ends of the percentile interval of the mean over clips at each horizon.

    Whole clips are drawn with replacement: the frames of one clip aren't independent. NaN are left out of the
    means; a horizon where no resample has a value has NaN ends.
    """
    n = values.shape[1]
    draws = np.random.default_rng(seed).integers(n, size=(resamples, n))
    times = np.stack([np.bincount(draw, minlength=n) for draw in draws]).astype(float)  # [resamples, N]
    defined = np.isfinite(values)
    # A mean of the values less their centre, so that equal values have exactly equal ends.
    centre = np.nan_to_num(_ratio(np.where(defined, values, 0.0).sum(1), defined.sum(1)))
    total = times @ np.where(defined, values - centre[:, None], 0.0).T
    means = _ratio(total, times @ defined.T.astype(float)) + centre  # [resamples, K]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a horizon without any value
        low, high = np.nanquantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def sample_scores(
    measure: str, values: Float[np.ndarray, "S K B"], higher: bool | None = None
) -> Mapping[str, Float[np.ndarray, "K B"]]:
    """Several futures of each clip as one value: `<measure>`, their mean, and `<measure>_best`.

    The best future is one for the whole clip, the one with the best mean over horizons, so that nobody picks
    another future for every frame. `higher` says which way is better (`higher_is_better(measure)` when None);
    where that is unknown, or of a single future, there is no `_best`.
    """
    values = np.asarray(values, np.float64)
    defined = np.isfinite(values)
    filled = np.where(defined, values, 0.0)
    out = {measure: _ratio(filled.sum(0), defined.sum(0))}
    higher = higher_is_better(measure) if higher is None else higher
    if values.shape[0] > 1 and higher is not None:
        whole = _ratio(filled.sum(1), defined.sum(1))  # [S, B]
        whole = np.where(np.isnan(whole), -np.inf, whole if higher else -whole)
        best = whole.argmax(0)
        out[f"{measure}_best"] = values[best, :, np.arange(values.shape[2])].T
    return out


def _ratio(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)


def _plain(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(v) else float(v) for v in values]
