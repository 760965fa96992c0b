"""Runs inside a venv that has huggingface_hub: makes the calls of standard input, prints what they gave.

Input, a line: a JSON list of `[name, keyword arguments]`; name is a function of the package, a method of HfApi, or
`CLASS.METHOD` of another class. Output, a line: a JSON list of `{"value": …}` or `{"error": class name, "text": …}`.
"""

import contextlib
import dataclasses
import inspect
import json
import sys

import huggingface_hub


def plain(value):
    """`value` as JSON can hold it; objects become the dictionary of their fields."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if inspect.isgenerator(value) or isinstance(value, (list, tuple, set, filter)):
        return [plain(item) for item in value]
    if dataclasses.is_dataclass(value) or hasattr(value, "__dict__"):
        return {"class": type(value).__name__, **{key: plain(item) for key, item in vars(value).items()}}
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value if isinstance(value, (int, float, bool, type(None))) else str(value)


def target(name):
    """What a name means."""
    owner, _, method = name.rpartition(".")
    if owner:
        return getattr(getattr(huggingface_hub, owner)(), method)
    return getattr(huggingface_hub, name, None) or getattr(huggingface_hub.HfApi(), name)


def call(name, arguments):
    """The outcome of one call."""
    try:
        return {"value": plain(target(name)(**arguments))}
    except Exception as error:
        return {"error": type(error).__name__, "text": str(error)}


for line in sys.stdin:
    with contextlib.redirect_stdout(sys.stderr):
        outcomes = [call(name, arguments) for name, arguments in json.loads(line)]
    sys.stdout.write(json.dumps(outcomes) + "\n")
    sys.stdout.flush()
