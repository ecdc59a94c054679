"""Changing an environment's parameters without leaving them inconsistent.

gymnax's CartPole keeps `total_mass` and `polemass_length` as fields of their own beside `masscart`,
`masspole` and `length`: replacing one without the others simulates a system that cannot exist. Whatever
changes parameters, from an option or from a sampled task, goes through `replace_params`.
"""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from gymnax.environments.classic_control import cartpole

_CARTPOLE_DERIVED = {"total_mass": "masscart + masspole", "polemass_length": "masspole * length"}


def derived_fields(params: Any) -> dict[str, str]:
    """The fields of `params` that follow from others, with the expression each one follows."""
    return _CARTPOLE_DERIVED if isinstance(params, cartpole.EnvParams) else {}


def consistent_params(params: Any) -> Any:
    """`params` with every derived field recomputed; safe under jit and vmap with traced values."""
    if isinstance(params, cartpole.EnvParams):
        return params.replace(  # pyright: ignore[reportAttributeAccessIssue]
            total_mass=params.masscart + params.masspole, polemass_length=params.masspole * params.length
        )
    return params


def replace_params(params: Any, changes: Mapping[str, Any]) -> Any:
    """`params` with the fields in `changes` replaced (numbers or traced arrays), then made consistent.

    Raises ValueError on a field that does not exist or that follows from others.
    """
    names = [field.name for field in dataclasses.fields(params)]
    derived = derived_fields(params)
    for name in changes:
        if name in derived:
            raise ValueError(f"{name} is derived: it is always {derived[name]}; change those instead")
        if name not in names:
            settable = [other for other in names if other not in derived]
            near = difflib.get_close_matches(name, settable, 3, 0.4) or settable
            raise ValueError(f"no parameter {name!r}; valid names are {', '.join(near)}")
    if not changes:
        return params
    return consistent_params(params.replace(**changes))
