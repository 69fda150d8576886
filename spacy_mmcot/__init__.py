"""Chain-of-thought prompt distillation for spaCy pipelines."""

__version__ = "0.1.0"
