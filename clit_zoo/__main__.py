"""``python -m clit_zoo`` is ``clit-zoo``."""

from .commands.cli import main

if __name__ == "__main__":
    main()
