"""A core made of cores: each part one layer, each with its own memory."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Array, Bool, Shaped

from .base import Carry, Core
from .registry import core_class, core_options, make_core


class Stack(Core, kw_only=True):
    """Parts named by `pattern`, for example `"s5 s5 attention"`, one after the other.

    Every part has `features` channels and, where it has a `num_layers`, one layer; repeat a name for more.
    `options` gives further options by part name: `{"attention": {"window": 64}}`. The carry is the tuple
    of the parts' carries. Spatial where its parts are.

    Raises `ValueError` for an empty pattern, an unknown part or option, options for a part that is not in
    the pattern, and a mix of spatial and vector parts.
    """

    pattern: str
    options: Mapping[str, Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        names = self.pattern.split()
        if not names:
            raise ValueError(
                f"pattern={self.pattern!r} names no part; give core names, for example pattern='s5 attention'"
            )
        for name in self.options or {}:
            if name not in names:
                raise ValueError(
                    f"options are given for {name!r}, which is not in pattern={self.pattern!r}; "
                    f"its parts are {', '.join(dict.fromkeys(names))}"
                )
        parts = self.make_parts()
        if len({part.spatial for part in parts}) > 1:
            spatial = ", ".join(
                dict.fromkeys(n for n, part in zip(names, parts, strict=True) if part.spatial)
            )
            raise ValueError(
                f"pattern={self.pattern!r} mixes spatial parts ({spatial}) with vector parts; "
                "use parts of one kind"
            )
        super().__post_init__()

    def make_parts(self) -> tuple[Core, ...]:
        """The parts, in order."""
        return tuple(
            _make_part(name, self.features, (self.options or {}).get(name, {}))
            for name in self.pattern.split()
        )

    @property
    def spatial(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the parts are spatial."""
        return self.make_parts()[0].spatial

    def initial_carry(self, batch: int, size: tuple[int, int] | None = None) -> Carry:
        """The parts' carries, as a tuple."""
        return tuple(part.initial_carry(batch, size) for part in self.make_parts())

    def setup(self) -> None:
        """The parts, as `parts_0`, `parts_1`, … in the parameters."""
        self.parts = self.make_parts()

    def __call__(
        self, carry: Carry, x: Shaped[Array, "T B *F"], reset: Bool[Array, "T B"]
    ) -> tuple[Carry, Shaped[Array, "T B *G"]]:
        """Consume `T` inputs; see `Core`."""
        carries = []
        for part, part_carry in zip(self.parts, carry, strict=True):
            part_carry, x = part(part_carry, x, reset)
            carries.append(part_carry)
        return tuple(carries), x


def _make_part(name: str, features: int, options: Mapping[str, Any]) -> Core:
    valid = core_options(name)
    options = {"features": features, **({"num_layers": 1} if "num_layers" in valid else {}), **options}
    if not set(options) <= set(valid):
        make_core(name, **options)  # raises, and names the nearest option
    # An orphan until `setup` adopts it: a part made here must not register with whichever module is active.
    return core_class(name)(parent=None, **options)
