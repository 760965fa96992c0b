"""SHA-256 of files, as fast as hashlib can: sha256.py THREADS NAMES, where NAMES is a file with a path a line."""

import hashlib
import sys
from concurrent.futures import ThreadPoolExecutor


def digest(path: str) -> str:
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        return hashlib.file_digest(file, "sha256").hexdigest()


with open(sys.argv[2]) as names:  # noqa: PTH123
    paths = names.read().splitlines()
for line in ThreadPoolExecutor(int(sys.argv[1])).map(digest, paths):
    print(line)
