"""A Hugging Face tokenizer as bytes, so that a pipeline on disk needs no source to be loaded."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer


def tokenizer_files(tokenizer: Any) -> dict[str, bytes]:
    """What `save_pretrained` writes, by file name."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def tokenizer_of(files: dict[str, bytes]) -> Any:
    """The tokenizer that `tokenizer_files` took apart."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        return AutoTokenizer.from_pretrained(folder)
