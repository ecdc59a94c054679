"""Sequence cores: one interface, one file per idea.

>>> core = make_core("s5", features=64, num_layers=2)
>>> carry = core.initial_carry(batch)
>>> params = core.init(key, carry, x, reset)
>>> carry, y = core.apply(params, carry, x, reset)  # x [T, B, D], reset bool[T, B] -> y [T, B, 64]
"""

from .base import Carry as Carry
from .base import Core as Core
from .registry import core_names as core_names
from .registry import core_options as core_options
from .registry import make_core as make_core
