"""Choosing options of a trained video model on clips that its evaluation doesn't look at."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ..video import measures
from ..video.data import VideoData
from ..video.model import FrameModel
from ..video.protocol import Protocol
from ..video.stream import read_windows
from .config import check_choice
from .errors import InputError, input_errors
from .logs import phase
from .run_dir import plain
from .video_build import build_model
from .video_config import VideoConfig
from .video_evaluate import clip_ids, predictions
from .video_restore import same_parameters

_BEST = {"psnr": max, "ssim": max, "mse": min, "position_error": min}
_VALIDATION = 1_000_000  # the seed of the clips: those of endless data are no others' of a usual seed


class Choice(NamedTuple):
    """The best options, the model with them, and what `eval.json` says about how they were found."""

    options: dict[str, Any]
    model: FrameModel
    record: dict[str, Any]


def choose(
    config: VideoConfig,
    model: FrameModel,
    data: VideoData,
    variables: Any,
    protocol: Protocol,
    raw: Mapping[str, Any],
) -> Choice:
    """The best of all combinations of `raw["choose"]`, an option's candidates each, beside `raw["model"]`.

    Judged by the mean of `choose_by` over horizons, samples and `choose_clips` clips of the protocol's
    lengths: of the train split, so that no clip that is evaluated had a say. Of equals the first is taken.
    Raises `InputError` before anything is predicted for candidates that are wrong or change the parameters.
    """
    with input_errors():
        check_choice("choose_by", raw["choose_by"], tuple(_BEST))
        other = {"split": "train", "clips": raw["choose_clips"], "seed": _VALIDATION + protocol.seed}
        validation = dataclasses.replace(protocol, **other)
        ids = clip_ids(data, validation)
    by, models = raw["choose_by"], []
    if by == "ssim" and data.size < measures.WINDOW:
        raise InputError(f"choose_by=ssim needs frames of {measures.WINDOW} pixels or more; use psnr")
    candidates = combinations(raw["choose"])
    for candidate in candidates:
        asked = {**raw["model"], **candidate}
        with input_errors():
            models.append(build_model(config, data, **asked))
            same_parameters(model, models[-1], asked)
    clip = read_windows(data, "train", ids, np.zeros_like(ids), validation.frames)
    facts = data.truth("train", ids, np.zeros_like(ids), validation.frames)
    if by == "position_error" and not facts:
        raise InputError("choose_by=position_error needs data that knows where its objects are; use psnr")
    scores = []
    for candidate, one in zip(candidates, models, strict=True):
        with phase(f"{_text(candidate)} on {len(ids)} train clips"):
            values = []
            for k in range(protocol.samples):
                key = jax.random.fold_in(jax.random.key(validation.seed), k)
                predicted = predictions(one, variables, clip, validation, key)
                values.append(_value(by, predicted, clip.frames, data, facts, validation.context))
        scores.append(float(np.mean(values)))
        print(f"{_text(candidate)}: {by} {scores[-1]:.4g}")
    best = scores.index(_BEST[by](scores))
    rows = [{"options": plain(c), by: score} for c, score in zip(candidates, scores, strict=True)]
    record = {"by": by, "clips": len(ids), "split": "train", "seed": validation.seed, "candidates": rows}
    return Choice(candidates[best], models[best], {"options": plain(candidates[best]), **record})


def combinations(choices: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every combination of the options' candidates; raises `InputError` where one has no list of them."""
    for name, values in choices.items():
        if not isinstance(values, Sequence) or isinstance(values, str) or not len(values):
            raise InputError(f"choose.{name}={values} must be a list of candidates, as in [0,0.03,0.1]")
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


def _value(
    by: str, predicted: np.ndarray, frames: Any, data: VideoData, facts: Mapping[str, Any], context: int
) -> float:
    """The mean over horizons and clips; what can't be seen is left out."""
    if by != "position_error":
        return float(np.mean(np.asarray(getattr(measures, by)(predicted, frames[context:]))))
    before, after = (
        {k: v[part] for k, v in facts.items()} for part in (slice(context), slice(context, None))
    )
    return float(np.nanmean(np.asarray(data.measures(predicted, after, before)[by])))


def _text(candidate: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in candidate.items())
