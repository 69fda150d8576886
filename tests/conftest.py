from __future__ import annotations

import os
from collections.abc import Callable

import pytest

# Read when transformers is imported, so it stands before that: no test asks the hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

# The names alone: importing tiny costs the seconds that torch and transformers take to load.
FAMILIES = ("bert", "roberta", "deberta-v2", "distilbert", "electra")


@pytest.fixture(scope="session")
def tiny_source(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The folder of a family's tiny encoder, made when first asked for."""
    folders: dict[str, str] = {}

    def folder_of(family: str) -> str:
        if family not in folders:
            from tiny import save_encoder

            folder = tmp_path_factory.mktemp(family)
            save_encoder(family, folder)
            folders[family] = str(folder)
        return folders[family]

    return folder_of


@pytest.fixture(scope="session", params=FAMILIES)
def source(request: pytest.FixtureRequest, tiny_source: Callable[[str], str]) -> str:
    """The folder of a tiny encoder, each family in turn."""
    return tiny_source(request.param)


@pytest.fixture(scope="session")
def bert_source(tiny_source: Callable[[str], str]) -> str:
    return tiny_source("bert")
