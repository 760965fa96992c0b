"""Runs inside a venv that has huggingface_hub: makes the calls of standard input, prints what they gave.

Input: a JSON list of `[name, keyword arguments]`; name is a function of the package or a method of HfApi.
Output: a JSON list of `{"value": …}` or `{"error": class name, "text": …}`.
"""

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
    return value if isinstance(value, (int, float, bool, type(None))) else str(value)


def call(name, arguments):
    """The outcome of one call."""
    target = getattr(huggingface_hub, name, None) or getattr(huggingface_hub.HfApi(), name)
    try:
        return {"value": plain(target(**arguments))}
    except Exception as error:
        return {"error": type(error).__name__, "text": str(error)}


sys.stdout.write(json.dumps([call(name, arguments) for name, arguments in json.load(sys.stdin)]))
