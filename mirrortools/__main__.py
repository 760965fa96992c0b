"""The beginning of the program: `mirrortool`, and `python -m mirrortools`."""

from __future__ import annotations

import gc
from typing import NoReturn

_GARBAGE_OBJECTS = 50_000


def main() -> NoReturn:
    """Be the command `mirrortool`."""
    # Hardly anything here refers to itself. To look for what does takes a tenth of the time in which a sync finds
    # nothing new, half of that while modules are loaded: so this comes first.
    gc.set_threshold(_GARBAGE_OBJECTS)
    from mirrortools.cli import main as command

    command()


if __name__ == "__main__":
    main()
