"""What the places of the matrix serve: real formats, odd names, more than one page of everything that has pages."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from itertools import accumulate, pairwise
from math import prod

from mirrortools.model import RepoId
from tests.clients import Expected, Files
from tests.delivery import noise
from tests.servers import GitLfsUpstream

MIB = 1 << 20
# More than hubapi.PAGE_ENTRIES, and more than one page of commits.
MANY_FILES, MANY_COMMITS = 10_010, 60
WEIGHTS = "model.safetensors"
MODEL, DATASET, HISTORY, LONG = "org/clients.v1", "datasets/org/clients.v1", "org/history", "org/long"
BERT, LEGACY, TABLE, SPACE = "t/bert", "gpt2", "datasets/org/table", "spaces/org/demo"


def safetensors(**tensors: tuple[list[int], bytes]) -> bytes:
    """A file of 32-bit floats in the format of safetensors: name → shape and content."""
    ends = [0, *accumulate(len(content) for _, content in tensors.values())]
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    header |= {
        name: {"dtype": "F32", "shape": shape, "data_offsets": list(where)}
        for (name, (shape, _)), where in zip(tensors.items(), pairwise(ends), strict=True)
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(content for _, content in tensors.values())


# Twelve pieces of a metalink's, or three segments.
LARGE = safetensors(embedding=([3 * MIB // 8, 8], noise(12 * MIB, 1)))
FIRST: Files = {
    "README.md": b"---\nlicense: mit\n---\n# A model\n\n| a | b |\n|---|---|\n| 1 | 2 |\n",
    "config.json": b'{"a": 1}\n',
    WEIGHTS: LARGE,
    "name with spaces.txt": b"spaces\n",
    "a+b.txt": b"plus\n",
    "c#d.txt": b"hash\n",
    "e%41f.txt": b"percent\n",
    "what?.txt": b"question\n",
    "权重/模型 %41+#.safetensors": noise(70_000, 2),
    "权重/说明.md": "你好\n".encode(),
    "empty.txt": b"",
    "deep/er/and/deeper/vocab.json": b"[]",
}
SECOND: Files = {
    **FIRST,
    "config.json": b'{"a": 2}\n',
    **{f"shards/model-{number:05}.safetensors": noise(500 + number, 100 + number) for number in range(140)},
}
ROWS: Files = {"data/train.csv": b"a,b\n1,2\n", "data/train-00.safetensors": noise(9000, 7), "README.md": b"# Rows\n"}
_BERT_SIZES = {
    "hidden_size": 8,
    "vocab_size": 7,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 8,
}
_PAIR = {"weight": [8, 8], "bias": [8]}
_NORM = {"weight": [8], "bias": [8]}
_BERT_PARTS: Mapping[str, Mapping[str, list[int]]] = {
    "embeddings.word_embeddings": {"weight": [7, 8]},
    "embeddings.position_embeddings": {"weight": [8, 8]},
    "embeddings.token_type_embeddings": {"weight": [2, 8]},
    "embeddings.LayerNorm": _NORM,
    "encoder.layer.0.attention.self.query": _PAIR,
    "encoder.layer.0.attention.self.key": _PAIR,
    "encoder.layer.0.attention.self.value": _PAIR,
    "encoder.layer.0.attention.output.dense": _PAIR,
    "encoder.layer.0.attention.output.LayerNorm": _NORM,
    "encoder.layer.0.intermediate.dense": {"weight": [16, 8], "bias": [16]},
    "encoder.layer.0.output.dense": {"weight": [8, 16], "bias": [8]},
    "encoder.layer.0.output.LayerNorm": _NORM,
    "pooler.dense": _PAIR,
}


def counted(shape: list[int]) -> list[float]:
    """As many numbers as a tensor has: eighths from 0 to 1, and again."""
    return [number % 9 / 8 for number in range(prod(shape))]


# Each tensor of a BERT of these sizes, so that none is made up where it is loaded.
BERT_TENSORS = {f"{part}.{name}": shape for part, names in _BERT_PARTS.items() for name, shape in names.items()}


def _bert_weights() -> bytes:
    return safetensors(
        **{name: (shape, struct.pack(f"<{prod(shape)}f", *counted(shape))) for name, shape in BERT_TENSORS.items()}
    )


_BERT: Files = {
    "config.json": json.dumps({"model_type": "bert", "architectures": ["BertModel"], **_BERT_SIZES}).encode(),
    "tokenizer_config.json": b'{"tokenizer_class": "BertTokenizer", "do_lower_case": true}',
    "vocab.txt": b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nmirror\nhello\n",
    WEIGHTS: _bert_weights(),
}
_TABLE: Files = {"data/train.csv": b"a,b\n1,x\n2,y\n", "data/test.csv": b"a,b\n3,z\n"}
_SPACE: Files = {"app.py": b"print('hello')\n", "README.md": b"---\nsdk: static\n---\n# Demo\n"}
PLAIN: Mapping[str, Files] = {DATASET: ROWS, BERT: _BERT, LEGACY: _BERT, TABLE: _TABLE, SPACE: _SPACE}
MANY: Files = {f"folder/{number:05}.txt": b"%d" % (number % 10) for number in range(MANY_FILES)}


def fill(upstream: GitLfsUpstream, *, whole: bool) -> dict[str, Expected]:
    """Commit every repository; what must be served of each, by its name. Without `whole` none is large."""
    made = {MODEL: _model(upstream), HISTORY: _history(upstream)}
    for name, files in {**PLAIN, **({LONG: MANY} if whole else {})}.items():
        commit = upstream.commit(name, files)
        made[name] = _expected(upstream, name, {"main": commit}, {"main": files})
    return made


def _model(upstream: GitLfsUpstream) -> Expected:
    """A model with a tag and a branch with a slash."""
    first = upstream.commit(MODEL, FIRST, tag="v1.0", message="Add the model\n\nIt is small.")
    upstream.branch(MODEL, "feature/x", first)
    news = {path: content for path, content in SECOND.items() if FIRST.get(path) != content}
    second = upstream.commit(MODEL, news, message="Add shards")
    files = {"main": SECOND, "v1.0": FIRST, "feature/x": FIRST}
    return _expected(upstream, MODEL, {"main": second, "v1.0": first, "feature/x": first}, files)


def _history(upstream: GitLfsUpstream) -> Expected:
    """A model with many commits."""
    upstream.commit(HISTORY, {"step.txt": b"1"}, message="Step 1")
    for number in range(2, MANY_COMMITS):
        upstream.author(HISTORY).git("commit", "--quiet", "--allow-empty", "--message", f"Step {number}")
    last = upstream.commit(HISTORY, {"step.txt": b"2"}, message=f"Step {MANY_COMMITS}")
    return _expected(upstream, HISTORY, {"main": last}, {"main": {"step.txt": b"2"}})


def _expected(upstream: GitLfsUpstream, name: str, commits: Mapping[str, str], files: Mapping[str, Files]) -> Expected:
    attributes = (upstream.folder / "authors" / name / ".gitattributes").read_bytes()
    complete = {ref: {**shown, ".gitattributes": attributes} for ref, shown in files.items()}
    lfs = frozenset(path for shown in files.values() for path in shown if path.endswith(".safetensors"))
    return Expected(RepoId.parse(name), commits, complete, lfs)
