"""HEAL's method as a library: no orchestration here (see `tasks` and `flows`)."""

__version__ = "0.1.0"
