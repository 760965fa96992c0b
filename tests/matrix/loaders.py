"""transformers and datasets: what most users load models and data with."""

from __future__ import annotations

import json
import re

from bench.environments import VENVS
from tests.clients import hub_environment, run_client
from tests.matrix.cells import Client, Limit, Operation, Visit, same, sha256
from tests.matrix.content import BERT, TABLE, WEIGHTS

_PYTHON = VENVS / "loaders" / "bin" / "python"


def _run(visit: Visit, script: str, **env: str) -> object:
    """What the script prints last, as JSON."""
    environment = {**hub_environment(visit.url, visit.folder / "cache"), **env}
    said = run_client([_PYTHON, "-c", script], environment)
    return json.loads(said.strip().splitlines()[-1])


def _config(visit: Visit) -> None:
    script = f"import json, transformers as t; print(t.AutoConfig.from_pretrained({BERT!r}).hidden_size)"
    same("hidden size", _run(visit, script), 8)


def _tokenizer(visit: Visit) -> None:
    script = f"import transformers as t; print(t.AutoTokenizer.from_pretrained({BERT!r})('Hello mirror')['input_ids'])"
    same("tokens", _run(visit, script), [2, 6, 5, 3])
    same("tokens, offline", _run(visit, script, HF_HUB_OFFLINE="1"), [2, 6, 5, 3])


def _weights(visit: Visit) -> None:
    script = f"""
import hashlib, json, safetensors.numpy, transformers
path = transformers.utils.cached_file({BERT!r}, "model.safetensors")
tensors = safetensors.numpy.load_file(path)
digest = hashlib.sha256(open(path, "rb").read()).hexdigest()
print(json.dumps([digest, tensors["weight"].tolist(), tensors["bias"].tolist()]))
"""
    weights = visit.expected(BERT).files["main"][WEIGHTS]
    same("weights", _run(visit, script), [sha256(weights), [[1, 2], [3, 4]], [5]])


def _model(visit: Visit) -> None:
    script = f"import transformers as t; t.AutoModel.from_pretrained({BERT!r}); print('null')"
    _run(visit, script)


def _dataset(visit: Visit) -> None:
    script = f"""
import json, datasets
print(json.dumps({{name: split["a"][:] for name, split in datasets.load_dataset({TABLE[9:]!r}).items()}}))
"""
    same("rows", _run(visit, script), {"train": [1, 2], "test": [3]})


def _streaming(visit: Visit) -> None:
    script = f"""
import json, datasets
rows = datasets.load_dataset({TABLE[9:]!r}, split="train", streaming=True)
print(json.dumps([row["a"] for row in rows]))
"""
    same("rows", _run(visit, script), [1, 2])


def _installed(name: str) -> str:
    """The version that scripts/requirements/loaders.txt names."""
    text = (VENVS.parent / "scripts" / "requirements" / "loaders.txt").read_text()
    found = re.search(rf"^{name}==(.+)$", text, re.MULTILINE)
    return f"{name} {found[1] if found else ''}"


_NO_TORCH = Limit(
    "PyTorch was not found",
    "torch is not installed for this run (its build for Linux takes gigabytes); the weights come by what it would use",
)
TRANSFORMERS = Client(
    "transformers",
    (_installed("transformers"),),
    (
        Operation("AutoConfig.from_pretrained", _config, long=True),
        Operation("AutoTokenizer.from_pretrained, and offline", _tokenizer, long=True),
        Operation("weights by cached_file, read by safetensors", _weights, long=True),
        Operation("AutoModel.from_pretrained", _model, [_NO_TORCH], long=True),
    ),
)
DATASETS = Client(
    "datasets",
    (_installed("datasets"),),
    (
        Operation("load_dataset", _dataset, long=True),
        Operation("load_dataset, streaming", _streaming, long=True),
    ),
)
