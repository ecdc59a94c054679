"""Video models by name, and what `size=tiny|small|paper` means for each."""

import dataclasses
import difflib
import importlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from ..cores import core_options, make_core
from ..cores.registry import core_class
from .autoencoder import Autoencoder
from .clip import ActionSpace
from .model import FrameModel

# name: (module:Name, the default core; None: the model has layers of its own)
_MODELS = {
    "conv_s5": ("predictor:Predictor", "conv_s5"),
    "conv_lstm": ("predictor:Predictor", "conv_lstm"),
    "transformer": ("predictor:Predictor", "attention"),
    "far": ("far:FAR", "frame_attention"),
    "far_long": ("long_context:LongFAR", None),
    "recurrent_flow": ("recurrent_flow:RecurrentFlow", "conv_s5"),
}
SIZES = ("tiny", "small", "paper")
_POSITIVE = (
    "features",
    "num_layers",
    "num_heads",
    "patch",
    "pooled_channels",
    "denoiser_features",
    "denoiser_layers",
    "theta",
    "mlp_ratio",
    "own_passes",
)
_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}

# Encoders: `tiny` stacks patches of 4 x 4 pixels, which is what a CPU can afford; `paper` is ConvS5's own.
_ENCODERS: dict[str, dict[str, Any]] = {
    "tiny": {"widths": (32, 64), "patch": 4},
    "small": {"widths": (64, 128), "patch": 2},
    "paper": {"widths": (64, 128, 256), "patch": 1},
}
# Autoencoders of flows: 64 latents of 64 x 64 pixels at every size, as FAR has them.
_AUTOENCODERS: dict[str, dict[str, Any]] = {
    "tiny": {"widths": (32, 64), "patch": 4},
    "small": {"widths": (64, 128), "patch": 4},
    "paper": {"widths": (64, 128, 256), "patch": 2},
}
_AUTOENCODER = ("widths", "patch", "latent_channels")  # options of a flow's autoencoder
_CORE = ("features", "num_layers", "remat", "window", "decay", "slopes")  # options that go on to the core
# Cores: about equal parameters within a size. far_long, which has none, is as large as frame_attention.
_CORES: dict[str, dict[str, dict[str, Any]]] = {
    "conv_s5": {
        "tiny": {"features": 64, "num_layers": 4, "state_size": 64},
        "small": {"features": 128, "num_layers": 8, "state_size": 128},
        "paper": {"features": 256, "num_layers": 8, "state_size": 256},
    },
    "conv_lstm": {
        "tiny": {"features": 64, "num_layers": 2},
        "small": {"features": 128, "num_layers": 4},
        "paper": {"features": 256, "num_layers": 4},
    },
    "attention": {
        "tiny": {"features": 128, "num_layers": 4, "num_heads": 4, "window": 128},
        "small": {"features": 384, "num_layers": 8, "num_heads": 8, "window": 512},
        "paper": {"features": 1024, "num_layers": 8, "num_heads": 16, "window": 1536},
    },
    "frame_attention": {
        "tiny": {"features": 96, "num_layers": 3, "num_heads": 3, "window": 16},
        "small": {"features": 384, "num_layers": 6, "num_heads": 6, "window": 16},
        "paper": {"features": 768, "num_layers": 12, "num_heads": 12, "window": 16},
    },
    "other": {
        "tiny": {"features": 128, "num_layers": 2},
        "small": {"features": 512, "num_layers": 4},
        "paper": {"features": 1024, "num_layers": 8},
    },
}


def model_names() -> list[str]:
    """The names that `make_model` takes."""
    return [*_MODELS]


def make_model(
    options: Mapping[str, Any], *, size: int, channels: int, actions: ActionSpace, dtype: Any = jnp.float32
) -> FrameModel:
    """A model from its options: `name`, `size` (tiny, small or paper), and what is to differ from that.

    An option that is None takes what `size` says. `module:Name` as the name is called with the options and
    `size`, `channels`, `actions`, `dtype` of the data. Raises `ValueError`, naming the valid ones, for
    unknown names and options.
    """
    given = {key: _hashable(value) for key, value in options.items() if value is not None}
    name, scale = str(given.pop("name")), str(given.pop("size", "tiny"))
    data = {"size": size, "channels": channels, "actions": actions, "dtype": dtype}
    if ":" in name:
        return load(name)(**given, **data)
    if name not in _MODELS:
        raise ValueError(f"unknown model {name!r}{_near(name, _MODELS)}; choose from {', '.join(_MODELS)}")
    if scale not in SIZES:
        raise ValueError(f"model.size={scale!r} must be one of {', '.join(SIZES)}")
    target, default_core = _MODELS[name]
    module, _, attribute = target.partition(":")
    cls: Any = getattr(importlib.import_module(f".{module}", __package__), attribute)
    made = {}
    if default_core is None:
        given = _CORES["frame_attention"][scale] | given
    else:
        made["core"] = _core(str(given.pop("core", default_core)), scale, given)
    valid = {field.name for field in dataclasses.fields(cls)} - {"core", *data}
    if "autoencoder" in valid:
        valid = (valid | set(_AUTOENCODER)) - {"autoencoder"}
    known = valid
    if default_core is not None:
        known = valid | {"core", "core_options", *(key for key in _CORE if hasattr(made["core"], key))}
    for option in given:
        if option not in valid:
            raise ValueError(
                f"model {name!r} has no option {option!r}{_near(option, known)}; "
                f"its options are {', '.join(sorted(known))}"
            )
    given = _typed(Autoencoder, _typed(cls, given))
    if "latent_channels" in valid:
        own = {key: given.pop(key) for key in _AUTOENCODER if key in given}
        made["autoencoder"] = Autoencoder(size, channels, **(_AUTOENCODERS[scale] | own), dtype=dtype)
    elif "widths" in valid:
        given = _ENCODERS[scale] | given
    if "tokens" in valid and "tokens" not in given:
        given["tokens"] = "grid" if made["core"].spatial else "pooled"
    return cls(**made, **given, **data)


def _core(name: str, scale: str, given: dict[str, Any]) -> Any:
    """The core, from what `size` says and what was given; takes its own options out of `given`."""
    by_size = _CORES.get(name, _CORES["other"]).get(scale, {})
    valid = core_options(name)
    chosen = {key: value for key, value in by_size.items() if key in valid}
    own = given.pop("core_options", ())
    if not (isinstance(own, tuple) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in own)):
        raise ValueError(f"model.core_options={own!r} must be a mapping, as in {{window: 32}}")
    chosen |= dict(own) | {key: given.pop(key) for key in _CORE if key in given}
    return make_core(name, **_typed(core_class(name), chosen))


def _typed(cls: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as the kind of thing that the fields of `cls` are; `ValueError` for one that is another."""
    kinds = {field.name: field.type for field in dataclasses.fields(cls)}
    made = dict(options)
    for option, value in options.items():
        kind: Any = kinds.get(option)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if option in _POSITIVE and isinstance(value, int | float) and value <= 0:
            raise ValueError(f"model.{option}={value} must be more than 0")
        if kind is int and number and float(value).is_integer():
            made[option] = int(value)
        elif kind is float and number:
            made[option] = float(value)
        elif kind == tuple[int, ...]:
            if not (isinstance(value, tuple) and value and all(type(v) is int and v > 0 for v in value)):
                raise ValueError(f"model.{option}={value!r} must be a list of whole numbers, as in [32,64]")
        elif kind in (int, float) or (kind in _KINDS and not isinstance(value, kind)):
            raise ValueError(f"model.{option}={value!r} must be {_KINDS[kind]}")
    return made


def load(name: str) -> Any:
    """What `module:Name` names; raises `ValueError`, one sentence, where there is nothing."""
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{name!r} cannot be loaded: {error}") from error


def _hashable(value: Any) -> Any:
    """Lists as tuples and mappings as tuples of pairs, so that a model can be a key of a cache."""
    if isinstance(value, Mapping):
        return tuple((key, _hashable(item)) for key, item in value.items())
    return tuple(_hashable(item) for item in value) if isinstance(value, list | tuple) else value


def _near(word: str, valid: Any) -> str:
    close = difflib.get_close_matches(word, list(valid), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
