"""Run one command line of mirrortool under cProfile: called.py STATS ARGUMENT…

From the first import on, as loading is what most of a short run is about. The command itself ends its process at once,
so it is called one step further in.
"""

import cProfile
import os
import sys


def main() -> int:
    stats, arguments = sys.argv[1], sys.argv[2:]
    profile = cProfile.Profile()
    profile.enable()
    from mirrortools.cli import run

    status = run(arguments, os.environ)
    profile.disable()
    profile.dump_stats(stats)
    return status


if __name__ == "__main__":
    sys.exit(main())
