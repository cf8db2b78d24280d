"""The commands of `clit-zoo`, one per file; each exposes `command`. The table in cli.py names them."""
