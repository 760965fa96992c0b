"""transformers and datasets: what most users load models and data with."""

from __future__ import annotations

import json
import re
from pathlib import Path

from bench import environments
from tests.clients import MORE_VENVS, PROJECT, hub_environment, run_client
from tests.matrix.cells import Client, Operation, Visit, same, sha256
from tests.matrix.content import BERT, TABLE, WEIGHTS, counted

_REQUIREMENTS = PROJECT / "scripts" / "requirements" / "loaders.txt"
# Debian's torch in the place of that of the package index, which takes gigabytes, and transformers of its days.
_TORCH_REQUIREMENTS = Path(__file__).parent / "requirements" / "torch.txt"


def prepare() -> None:
    """Make the environment with torch, whose Debian package `scripts/setup clients` installs."""
    environments.make("torch", _TORCH_REQUIREMENTS, MORE_VENVS, python=Path("/usr/bin/python3"), system=True)


def _python(version: str) -> Path:
    venv = MORE_VENVS / "torch" if version == _WITH_TORCH else environments.VENVS / "loaders"
    return venv / "bin" / "python"


def _run(visit: Visit, script: str, **env: str) -> object:
    """What the script prints last, as JSON."""
    environment = {**hub_environment(visit.url, visit.folder / "cache"), **env}
    said = run_client([_python(visit.version), "-c", script], environment)
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
print(json.dumps([digest, tensors["pooler.dense.bias"].tolist()]))
"""
    weights = visit.expected(BERT).files["main"][WEIGHTS]
    same("weights", _run(visit, script), [sha256(weights), counted([8])])


def _model(visit: Visit) -> None:
    script = f"""
import json, torch, transformers
model, about = transformers.AutoModel.from_pretrained({BERT!r}, output_loading_info=True)
hidden = model(torch.tensor([[2, 6, 5, 3]])).last_hidden_state
print(json.dumps([len(about["missing_keys"]), model.pooler.dense.bias.tolist(), list(hidden.shape)]))
"""
    same("model", _run(visit, script), [0, counted([8]), [1, 4, 8]])
    same("model, offline", _run(visit, script, HF_HUB_OFFLINE="1"), [0, counted([8]), [1, 4, 8]])


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


def _installed(name: str, requirements: Path = _REQUIREMENTS) -> str:
    """The version that a file of requirements names."""
    found = re.search(rf"^{name}==(.+)$", requirements.read_text(), re.MULTILINE)
    return f"{name} {found[1] if found else ''}"


_WITH_TORCH = f"{_installed('transformers', _TORCH_REQUIREMENTS)} with torch"
TRANSFORMERS = Client(
    "transformers",
    (_installed("transformers"), _WITH_TORCH),
    (
        Operation("AutoConfig.from_pretrained", _config, long=True),
        Operation("AutoTokenizer.from_pretrained, and offline", _tokenizer, long=True),
        Operation("weights by cached_file, read by safetensors", _weights, long=True),
        Operation("AutoModel.from_pretrained, and offline", _model, versions=(_WITH_TORCH,), long=True),
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
