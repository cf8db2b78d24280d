"""``clit-zoo upscale``: plan all pictures, then enlarge them one by one."""

from .command import command

__all__ = ["command"]
