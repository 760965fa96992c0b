"""`python -m mirrortools` is `mirrortool`."""

from mirrortools.cli import main

main()
