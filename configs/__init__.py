"""Hydra configuration, packaged as data: one file per command, groups `env` and `core`."""
