"""The messages of the benchmarks, in the form of spacy_mmcot.errors."""

from __future__ import annotations

from spacy_mmcot.errors import Catalogue


class BenchmarkErrors(metaclass=Catalogue):
    E713 = (
        "{path}: no doc has a picture, so there is nothing to measure. Give data with pictures, "
        "such as the demo corpus."
    )
    E738 = "The pipeline {pipeline} is named twice. Name each pipeline once."
    E752 = (
        "A run of `annotate` ended with exit code {status} (its message is above). Correct the "
        "cause and run the benchmark again."
    )
    E770 = (
        "{path} cannot be read ({reason}), so memory cannot be measured. Run the benchmark on "
        "Linux."
    )
