"""Resetta: memory that resets.

One resettable sequence core (`resetta.cores`), shared by in-context RL agents (`resetta.agents`,
`resetta.envs`) and long-video models. The command line is `resetta --help`.
"""

__version__ = "0.1.0"
