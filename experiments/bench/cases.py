"""What a benchmark is asked to measure: its own settings, and a training configuration per case."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ..config import TrainConfig, build_dataclass, train_config
from ..errors import InputError, input_errors

ADDED = ("command", "label", "variant")  # keys of `expand`, which are no settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Keys that every benchmark of training has beside those of `train`."""

    out: str

    @property
    def folder(self) -> Path:
        """Where results go."""
        return Path(self.out)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CoresSettings(Settings):
    """And those of a benchmark that compares cores."""

    cores: list[str]


@dataclasses.dataclass(frozen=True)
class Case:
    """One configuration that is measured; `variant` is what its label says beside the core."""

    label: str
    variant: str
    command: str
    train: TrainConfig
    raw: dict[str, Any]  # what `train` was made from, and `resetta train` runs on

    @property
    def core(self) -> str:
        """The core's name."""
        return str(self.train.core["name"])


S = TypeVar("S", bound=Settings)
One = TypeVar("One")


def read_one(
    configs: Sequence[Mapping[str, Any]],
    settings: type[One],
    cure: str = "run it again with another out= to compare",
) -> One:
    """The settings of a benchmark that takes one value of each key; `InputError` for a mistake."""
    if len(configs) != 1:
        name = configs[0]["command"].split()[2]
        raise InputError(f"bench {name} takes one value of each key; {cure}")
    with input_errors():
        return build_dataclass(settings, plain_settings(configs[0]), "")


def plain_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without the keys that `expand` adds."""
    return {key: value for key, value in config.items() if key not in ADDED}


def read_cases(configs: Sequence[Mapping[str, Any]], settings: type[S]) -> tuple[S, list[Case]]:
    """The benchmark's settings, which are the same for all, and the cases; `InputError` for a mistake."""
    own = [field.name for field in dataclasses.fields(settings)]
    cases, found = [], []
    with input_errors():
        for config in configs:
            found.append(_settings(settings, {name: config[name] for name in own}))
            raw = {key: value for key, value in config.items() if key not in (*own, *ADDED)}
            if raw.get("run_dir"):
                raise InputError(f"run_dir={raw['run_dir']} is not a setting of a benchmark; use out=...")
            case = Case(config["label"], config["variant"], config["command"], train_config(raw), raw)
            cases.append(case)
    folder = found[0].folder
    if folder.exists() and not folder.is_dir():
        raise InputError(f"out={folder} is a file; give a folder")
    for name in own:
        values = [getattr(each, name) for each in found]
        if any(value != values[0] for value in values):
            raise InputError(f"{name} is the benchmark's own and takes one value, not {values[0]} and others")
    if len({(case.train.device, case.train.precision == "highest") for case in cases}) > 1:
        raise InputError(
            "device and precision=highest must be the same for all cases; measure others in another out="
        )
    return found[0], cases


def _settings(cls: type[S], raw: Mapping[str, Any]) -> S:
    for field in dataclasses.fields(cls):
        value = raw[field.name]
        if str(field.type).startswith("list") and not (isinstance(value, list) and value):
            raise InputError(
                f"{field.name}={value!r} must be a list with a value at least, as {field.name}=[...]"
            )
    return build_dataclass(cls, raw, "")


def check_counts(name: str, values: Sequence[Any]) -> None:
    """Raise `ValueError` unless `values` are ascending whole numbers from 1."""
    whole = all(isinstance(value, int) and not isinstance(value, bool) and value >= 1 for value in values)
    if not whole or list(values) != sorted(set(values)):
        raise ValueError(f"{name}={list(values)} must be ascending whole numbers, such as {name}=[2,4,8]")
