"""Protocols: presets, what may be overridden, the way to a file and back, and what may be compared."""

import dataclasses
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resetta.video import rfvd
from resetta.video.protocol import METRIC_VERSIONS, PRESETS, Protocol, comparable, protocol_from


@pytest.mark.parametrize(
    ("name", "context", "frames", "clips"),
    [
        ("digits_100_500", 100, 500, 1024),
        ("digits_100_900", 100, 900, 1024),
        ("digits_100_1300", 100, 1300, 1024),
        ("teco_36_300", 36, 300, 512),
        ("teco_144_300", 144, 300, 512),
        ("digits_100_500_tiny", 10, 50, 16),
        ("digits_100_900_tiny", 10, 90, 16),
        ("digits_100_1300_tiny", 10, 130, 16),
        ("teco_36_300_tiny", 4, 30, 16),
        ("teco_144_300_tiny", 14, 30, 16),
    ],
)
def test_presets(name: str, context: int, frames: int, clips: int) -> None:
    preset = protocol_from(name)
    assert preset == PRESETS[name]
    assert preset.name == name
    assert (preset.context, preset.frames, preset.clips) == (context, frames, clips)
    assert preset.horizon == frames - context
    assert preset.split == "test"
    assert preset.actions == ("none" if name.startswith("teco_36") else "recorded")
    assert len(PRESETS) == 10


def test_presets_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PRESETS["teco_36_300"].clips = 3  # pyright: ignore[reportAttributeAccessIssue]
    PRESETS["teco_36_300"].to_dict()["metric_versions"]["psnr"] = "mine"
    assert PRESETS["teco_36_300"].metric_versions["psnr"] == METRIC_VERSIONS["psnr"]


def test_metric_versions_are_those_of_the_measures() -> None:
    assert METRIC_VERSIONS["rfvd"] == rfvd.VERSION


def test_overrides() -> None:
    own = protocol_from(None, context=4, frames=16, data={"name": "folder"})
    assert (own.name, own.context, own.frames, own.clips, own.data) == ("own", 4, 16, 64, {"name": "folder"})
    few = protocol_from("digits_100_500", context=100, clips=8, samples=3, seed=7)
    assert (few.name, few.clips, few.samples, few.seed, few.frames) == ("digits_100_500", 8, 3, 7, 500)
    with pytest.raises(ValueError, match=re.escape("context=36 contradicts protocol=digits_100_500")):
        protocol_from("digits_100_500", context=36)
    with pytest.raises(ValueError, match="protocol=mnist is unknown"):
        protocol_from("mnist")
    with pytest.raises(ValueError, match="both context and frames"):
        protocol_from(None, context=4)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"context": 0}, "context=0"),
        ({"context": 2}, "leaves nothing to predict"),
        ({"clips": 0}, "clips=0"),
        ({"samples": True}, "samples=True"),
        ({"seed": 1.5}, "seed=1.5"),
        ({"split": "validation"}, "split='validation'"),
        ({"actions": "mine"}, "actions='mine'"),
    ],
)
def test_what_a_protocol_refuses(wrong: dict, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        Protocol(**wrong)


@given(st.integers(1, 200), st.integers(1, 200), st.sampled_from(["train", "test"]), st.text(max_size=5))
def test_to_a_file_and_back(context: int, horizon: int, split: str, name: str) -> None:
    data = {"name": name, "size": 64, "speed": [1.5, 4.0]}
    protocol = Protocol(context=context, frames=context + horizon, split=split, data=data)
    again = Protocol.from_dict(json.loads(json.dumps(protocol.to_dict())))
    assert again == protocol
    assert comparable(again, protocol) == []


def test_from_dict_wants_exactly_its_keys() -> None:
    values = Protocol().to_dict()
    with pytest.raises(ValueError, match="unknown in this protocol: horizons"):
        Protocol.from_dict(values | {"horizons": 3})
    del values["clips"], values["seed"]
    with pytest.raises(ValueError, match="missing in this protocol: clips, seed"):
        Protocol.from_dict(values)


def test_comparable() -> None:
    a = protocol_from("digits_100_500", data={"name": "moving_digits", "digits": 2})
    assert comparable(a, dataclasses.replace(a, seed=3, name="own")) == []

    def only(**changes: object) -> str:
        (reason,) = comparable(a, dataclasses.replace(a, **changes))  # type: ignore[arg-type]
        return reason

    assert only(clips=8) == "clips differs: 1024 and 8"
    assert only(frames=900) == "frames differs: 500 and 900"
    assert only(samples=4).startswith("samples differs")
    assert only(actions="none").startswith("actions differs")
    assert only(data={"name": "moving_digits", "digits": 1}) == "data.digits differs: 2 and 1"
    assert only(data={"name": "moving_digits"}) == "data.digits differs: 2 and None"
    assert only(metric_versions={"ssim": "ssim-v2"}).startswith("ssim was measured in versions that differ")
    assert comparable(a, dataclasses.replace(a, metric_versions={})) == []
