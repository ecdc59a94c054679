"""From a name to a core, with errors that say what the valid names and options are."""

import dataclasses
import difflib
import importlib
import os
import sys
from importlib.metadata import entry_points
from typing import Any

from .base import Core

# name -> module:class; modules are imported when a core is made, so that listing names is instant.
_CORES = {
    "s5": ".s5:S5",
    "mamba": ".mamba:Mamba",
    "conv_s5": ".conv_s5:ConvS5",
    "conv_lstm": ".conv_lstm:ConvLSTM",
    "gru": ".rnn:GRU",
    "lstm": ".rnn:LSTM",
    "attention": ".attention:Attention",
    "fast_weights": ".fast_weights:FastWeights",
    "frame_attention": ".frame_attention:FrameAttention",
    "none": ".none:Memoryless",
    "stack": ".stack:Stack",
}


def core_names() -> list[str]:
    """Our own cores; those of other packages (`installed_cores`) and any `module:Name` work beside them."""
    return list(_CORES)


def installed_cores() -> dict[str, str]:
    """Cores that other installed packages bring, name to `module:Name`: entry points of `resetta.cores`.

    A name of ours stays ours, whatever is installed.
    """
    found = entry_points(group="resetta.cores")
    return {point.name: f"{point.module}:{point.attr}" for point in found if point.name not in _CORES}


def core_options(name: str) -> dict[str, Any]:
    """The options of a core and their defaults (`dataclasses.MISSING` where one must be given)."""
    return {
        field.name: field.default
        for field in dataclasses.fields(core_class(name))
        if field.name not in ("parent", "name")
    }


def make_core(name: str, **options: Any) -> Core:
    """Make a core by name (see `core_names`), an installed package's, or your own by `module:Name`.

    Raises `ValueError` for an unknown name or option, naming the valid ones.
    """
    cls = core_class(name)
    valid = core_options(name)
    for option in options:
        if option not in valid:
            raise ValueError(
                f"core {name!r} has no option {option!r}{_nearest(option, valid)}; "
                f"its options are {', '.join(valid)}"
            )
    missing = [o for o, default in valid.items() if default is dataclasses.MISSING and o not in options]
    if missing:
        raise ValueError(f"core {name!r} needs the option {missing[0]!r}")
    return cls(**options)


def core_class(name: str) -> type[Core]:
    """The class behind a name, or behind `module:Name`; raises `ValueError` where there is none."""
    others = {} if name in _CORES or ":" in name else installed_cores()
    if ":" in name or name in others:
        module, _, attribute = others.get(name, name).partition(":")
        # A console script, unlike `python -m`, does not look for modules where it is run.
        if os.getcwd() not in sys.path and "" not in sys.path:
            sys.path.append(os.getcwd())
        try:
            cls = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(f"core {name!r} cannot be loaded: {error}") from error
        if not (isinstance(cls, type) and issubclass(cls, Core)):
            raise ValueError(f"core {name!r} is not a subclass of resetta.cores.Core; derive it from that")
        return cls
    if name not in _CORES:
        raise ValueError(
            f"unknown core {name!r}{_nearest(name, [*_CORES, *others])}; "
            f"choose from {', '.join([*_CORES, *others])}, or give module:Name"
        )
    module, _, attribute = _CORES[name].partition(":")
    return getattr(importlib.import_module(module, __package__), attribute)


def _nearest(word: str, valid: Any) -> str:
    close = difflib.get_close_matches(word, list(valid), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
