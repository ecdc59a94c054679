"""What exactly was evaluated: the question that goes with a result, frozen into its file.

Two numbers may be compared when the same things were measured the same way on the same data; `comparable`
says what stands in the way. Nothing here imports jax, so that a mistaken name is answered at once.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

METRIC_VERSIONS: Mapping[str, str] = MappingProxyType(
    {"mse": "mse-v1", "psnr": "psnr-v1", "ssim": "ssim-v1", "rfvd": "rfvd-v1"}
)
"""A measure whose definition changes gets another version here, and old results stop being comparable."""

ACTIONS = ("recorded", "none")
_OWN = "own"  # a protocol that is no preset: the run's own context and frames


@dataclasses.dataclass(frozen=True)
class Protocol:
    """`context` true frames are seen and `frames − context` predicted, in each of `clips` clips.

    `frames` is the total, context included. `samples` futures are drawn of each clip. `seed` draws the clips
    (where there are more than `clips`, or endlessly many) and the model's noise. `actions` says whether the
    model is given the recorded actions or none. `data` is the data's name and options, as plain values.
    `metric_versions` has the version of every measure in the result.

    Raises `ValueError` for numbers that make no evaluation.
    """

    name: str = _OWN
    context: int = 1
    frames: int = 2
    clips: int = 1
    samples: int = 1
    seed: int = 0
    split: str = "test"
    actions: str = "recorded"
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    metric_versions: Mapping[str, str] = dataclasses.field(default_factory=lambda: dict(METRIC_VERSIONS))

    def __post_init__(self) -> None:
        for field, least in (("context", 1), ("frames", 2), ("clips", 1), ("samples", 1), ("seed", 0)):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{field}={value!r} must be a whole number; use {least} or more")
        if self.frames <= self.context:
            raise ValueError(
                f"frames={self.frames} is the total length and leaves nothing to predict after "
                f"context={self.context}; use {self.context + 1} or more"
            )
        if self.split not in ("train", "test"):
            raise ValueError(f"split={self.split!r} is unknown; use train or test")
        if self.actions not in ACTIONS:
            raise ValueError(f"actions={self.actions!r} is unknown; use one of {', '.join(ACTIONS)}")

    @property
    def horizon(self) -> int:
        """How many frames are predicted."""
        return self.frames - self.context

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: dict(v) if isinstance(v, Mapping) else v for name, v in fields.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Protocol":
        """The protocol of `to_dict`; raises `ValueError` for unknown and for missing keys."""
        known = {field.name for field in dataclasses.fields(cls)}
        for wrong, what in ((set(values) - known, "unknown"), (known - set(values), "missing")):
            if wrong:
                raise ValueError(
                    f"{what} in this protocol: {', '.join(sorted(wrong))}; it has {', '.join(sorted(known))}"
                )
        plain: dict[str, Any] = {k: dict(v) if isinstance(v, Mapping) else v for k, v in values.items()}
        return cls(**plain)


def _presets() -> dict[str, Protocol]:
    """The published ones, and each at about a tenth of its length with 16 clips to try things out.

    Moving digits: the lengths and the 1,024 test clips of ConvS5 on Moving-MNIST (arXiv 2310.19694);
    on our digits the figures aren't theirs. TECO (arXiv 2210.02396): 36 frames of context without
    actions, and 144 with them, of 300; 512 clips as its DMLab evaluation had (others took 256 to 1,024).
    """
    out: dict[str, Protocol] = {}
    for total in (500, 900, 1300):
        out[f"digits_100_{total}"] = Protocol(context=100, frames=total, clips=1024)
        out[f"digits_100_{total}_tiny"] = Protocol(context=10, frames=total // 10, clips=16)
    for context, actions in ((36, "none"), (144, "recorded")):
        out[f"teco_{context}_300"] = Protocol(context=context, frames=300, clips=512, actions=actions)
        out[f"teco_{context}_300_tiny"] = Protocol(
            context=round(context / 10), frames=30, clips=16, actions=actions
        )
    return {name: dataclasses.replace(protocol, name=name) for name, protocol in out.items()}


PRESETS: Mapping[str, Protocol] = MappingProxyType(_presets())


def protocol_from(
    name: str | None = None,
    context: int | None = None,
    frames: int | None = None,
    clips: int | None = None,
    samples: int | None = None,
    seed: int | None = None,
    **others: Any,
) -> Protocol:
    """The preset `name`, or the run's own `context` and `frames` when that is None.

    A preset's context and frames are what it is: other values raise `ValueError`, as an unknown name does.
    How many clips and samples, and the seed, may be chosen freely; without a preset there are 64 clips and
    one sample. `others` are further fields.
    """
    given: dict[str, Any] = {
        "context": context,
        "frames": frames,
        "clips": clips,
        "samples": samples,
        "seed": seed,
        **others,
    }
    given = {key: value for key, value in given.items() if value is not None}
    if name is None or name == _OWN:
        if context is None or frames is None:
            raise ValueError("without a protocol both context and frames are needed; give them")
        return dataclasses.replace(Protocol(clips=64, context=context, frames=frames), **given)
    if name not in PRESETS:
        raise ValueError(f"protocol={name} is unknown; use one of {', '.join(PRESETS)}")
    preset = PRESETS[name]
    for key in ("context", "frames"):
        if given.get(key, getattr(preset, key)) != getattr(preset, key):
            raise ValueError(
                f"{key}={given[key]} contradicts protocol={name}, which has {getattr(preset, key)}; "
                "leave out one of the two"
            )
    return dataclasses.replace(preset, **given)


def comparable(a: Protocol, b: Protocol) -> list[str]:
    """Why two results may not be compared, a sentence each; empty when they may.

    The preset's name and the seed don't matter: other clips of the same data are what the intervals are for.
    A measure that only one of them has doesn't matter either.
    """
    reasons = [
        f"{field} differs: {getattr(a, field)} and {getattr(b, field)}"
        for field in ("context", "frames", "clips", "samples", "split", "actions")
        if getattr(a, field) != getattr(b, field)
    ]
    for key in sorted(a.data.keys() | b.data.keys()):
        here, there = a.data.get(key), b.data.get(key)
        if here != there:
            reasons.append(f"data.{key} differs: {here} and {there}")
    for key in sorted(a.metric_versions.keys() & b.metric_versions.keys()):
        here, there = a.metric_versions[key], b.metric_versions[key]
        if here != there:
            reasons.append(f"{key} was measured in versions that differ: {here} and {there}")
    return reasons
