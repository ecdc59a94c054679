"""What other installed packages bring: their entry points, by name. Nothing of theirs is imported for it.

    [project.entry-points."resetta.probes"]
    echo = "their_package.echo:Echo"

in a package's pyproject.toml makes `probe=echo` mean its class. The groups are `resetta.cores`,
`resetta.envs` and `resetta.probes`. A name of ours stays ours, whatever is installed.
"""

from collections.abc import Container
from importlib.metadata import entry_points


def installed(kind: str, ours: Container[str]) -> dict[str, str]:
    """Name to `module:Name` of every entry point of the group `resetta.<kind>` that isn't a name of ours."""
    found = entry_points(group=f"resetta.{kind}")
    return {point.name: f"{point.module}:{point.attr}" for point in found if point.name not in ours}
