"""The `elicit` block of project.yml: what to ask of which model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic
import srsly

from ..errors import Errors, MMCoTError, explain, first_line
from ..types import AUGMENTATIONS, DIMENSIONS, Dimension


class Ask(pydantic.BaseModel):
    """One dimension: how many variants (rewritings only), and which model if not the run's."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    variants: int = pydantic.Field(default=1, ge=1, le=20)
    model: str | None = pydantic.Field(default=None, min_length=1)


class ElicitConfig(pydantic.BaseModel):
    """Dimensions to ask for, in order."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    dimensions: dict[Dimension, Ask] = pydantic.Field(
        default_factory=lambda: {name: Ask() for name in DIMENSIONS}
    )

    @pydantic.field_validator("dimensions")
    @classmethod
    def _check(cls, asks: dict[Dimension, Ask]) -> dict[Dimension, Ask]:
        if not asks:
            raise ValueError("no dimension is named")
        for name, ask in asks.items():
            if ask.variants > 1 and name not in AUGMENTATIONS:
                raise ValueError(f"{name} has {ask.variants} variants, but it is knowledge")
        return {name: asks[name] for name in DIMENSIONS if name in asks}

    def variants(self) -> Mapping[Dimension, int]:
        return {name: ask.variants for name, ask in self.dimensions.items()}

    def models(self) -> Mapping[Dimension, str]:
        return {name: ask.model for name, ask in self.dimensions.items() if ask.model}

    def only(self, names: set[str]) -> ElicitConfig:
        """Restricted to the named dimensions; ones it does not have are asked plainly."""
        asks = {name: self.dimensions.get(name, Ask()) for name in DIMENSIONS if name in names}
        return ElicitConfig(dimensions=asks)


def read_config(path: Path) -> ElicitConfig:
    """The block `elicit` under `vars` of a project.yml, {DIMENSION: {variants, model}}; all
    dimensions plainly where there is none. Raises MMCoTError for a file or a block that is broken.
    """
    try:
        project: Any = srsly.yaml_loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise MMCoTError(Errors.E100.format(path=path)) from None
    except OSError as error:
        raise MMCoTError(Errors.E102.format(path=path, reason=error.strerror)) from None
    except ValueError as error:
        raise MMCoTError(Errors.E102.format(path=path, reason=first_line(error))) from None
    variables = project.get("vars") if isinstance(project, dict) else None
    block = variables.get("elicit") if isinstance(variables, dict) else None
    if block is None:
        return ElicitConfig()
    if isinstance(block, dict):
        # `noun:` with nothing after it is how YAML says "plainly".
        block = {name: {} if ask is None else ask for name, ask in block.items()}
    try:
        return ElicitConfig.model_validate({"dimensions": block})
    except pydantic.ValidationError as error:
        problem, expected = explain(error)
        message = Errors.E322.format(path=path, problem=problem, expected=expected)
        raise MMCoTError(message) from None
