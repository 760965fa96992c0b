"""The package's templates of what other programs read: their configuration, units, samples."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def templates_of(kind: str) -> Environment:
    """Those in a folder of `templates`; a value that is lacking is an error, and a line with a block leaves none.

    Nothing is escaped, as none of it is HTML: whoever fills one in refuses what its language could not hold.
    """
    return Environment(
        loader=PackageLoader("mirrortools", f"templates/{kind}"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701
    )
