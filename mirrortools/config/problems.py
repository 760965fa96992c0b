"""What pydantic says about a file, in our words: `file:line: key: what is wrong; did you mean 'x'?`."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from mirrortools.config.document import Document, Key
from mirrortools.config.resolved import did_you_mean
from mirrortools.config.schema import JobForm, MainForm

_EXPECTED = {
    "string_type": "text",
    "tuple_type": "a list such as [a, b]",
    "dict_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "model_attributes_type": "a mapping (key: value)",
    "path_type": "a path",
}


def problems(document: Document, form: type[BaseModel], error: ValidationError) -> list[str]:
    """One line per problem that pydantic found in `document`, in the order of the file."""
    found = []
    for detail in error.errors(include_url=False):
        keys = [key for key in detail["loc"] if key != "[key]"]
        found.append((document.where(keys)[0], document.problem(keys, _message(form, keys, detail))))
    return [text for _, text in sorted(found, key=lambda pair: pair[0])]


def _message(form: type[BaseModel], keys: Sequence[Key], detail: Any) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(form, keys)
    if kind == "missing":
        return f"the key {str(keys[-1])!r} is missing"
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        return f"expected {context['expected']}, got {detail['input']!r}"
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}, got {_shown(detail['input'])}"
    return str(detail["msg"])


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    return "a list" if isinstance(value, list | tuple) else repr(value)


def _unknown_key(form: type[BaseModel], keys: Sequence[Key]) -> str:
    key, known = str(keys[-1]), _form_at(form, keys[:-1]).model_fields
    if form is JobForm and len(keys) == 1 and key in MainForm.model_fields:
        return "this key belongs into the main file, not into a job"
    hint = did_you_mean(key, known)
    if "did you mean" not in hint and key in {**MainForm.model_fields, **JobForm.model_fields}:
        return f"this key does not belong here{hint}"
    return f"unknown key{hint}"


def _form_at(form: type[BaseModel], keys: Sequence[Key]) -> type[BaseModel]:
    """The form that describes the mapping at `keys`."""
    for key in keys:
        field = form.model_fields.get(str(key))
        form = (_form_in(field.annotation) if field else None) or form
    return form


def _form_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_form_in(argument) for argument in typing.get_args(annotation))
    return next((form for form in inner if form is not None), None)
