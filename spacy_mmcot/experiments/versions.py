"""The software that a run's figures come from."""

from __future__ import annotations

import functools
import platform
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("spacy-mmcot", "spacy", "spacy-transformers", "thinc", "torch", "transformers")


@functools.cache
def versions() -> dict[str, str]:
    """Python's version and those of the packages that training depends on, as far as installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
