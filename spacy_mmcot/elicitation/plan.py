"""What a run will ask and cost, before it does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..types import Dimension, Post, Task
from .elicit import Source
from .ledger import mean_output
from .prices import Prices
from .prompts import render
from .store import AnswerStore, answer_key
from .tokens import Counter, estimate, exact_counter


@dataclass
class PlannedDimension:
    """One dimension: requests and tokens, and costs in the prices' currency, None without a
    price. `there` counts questions that the store has answers to, `not_applicable` those that
    make no sense for their post."""

    model: str
    requests: int = 0
    there: int = 0
    not_applicable: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = 0.0
    batch_cost: float | None = 0.0


@dataclass
class Plan:
    """By dimension. `estimated` names the models whose tokens are not counted by a tokenizer of
    theirs."""

    dimensions: dict[Dimension, PlannedDimension] = field(default_factory=dict)
    estimated: set[str] = field(default_factory=set)


def plan(
    posts: Iterable[Post],
    source: Source,
    prices: Prices,
    task: Task,
    dimensions: Mapping[Dimension, int],
    store: AnswerStore | None = None,
    pictures: Path | None = None,
) -> Plan:
    """Count what `elicit` would ask. A repair round, which few answers take, is not counted.

    Output tokens are the mean of what the store's ledger has of a model and dimension, or else
    typical figures.
    """
    planned = Plan({name: PlannedDimension(source.model_for(name)) for name in dimensions})
    counters: dict[str, Counter | None] = {}
    outputs = {} if store is None else mean_output(store)
    for row in planned.dimensions.values():
        if row.model not in counters:
            counters[row.model] = exact_counter(row.model)
        if counters[row.model] is None:
            planned.estimated.add(row.model)
        if prices.find(row.model) is None:
            row.cost = row.batch_cost = None
    asked: set[str] = set()
    for post in posts:
        for dimension, variants in dimensions.items():
            row = planned.dimensions[dimension]
            for variant in range(variants):
                prompt = render(post, dimension, task, variant=variant, pictures=pictures)
                if prompt is None:
                    row.not_applicable += 1
                    continue
                key = answer_key(prompt, row.model, source.parameters(prompt))
                known = store.known(key, post.id) if store is not None else None
                if key in asked or (known and (known.answered or known.shared)):
                    row.there += 1
                    continue
                asked.add(key)
                usage = estimate(
                    prompt,
                    row.model,
                    prices,
                    counters[row.model],
                    outputs.get((row.model, dimension)),
                )
                row.requests += 1
                row.input_tokens += usage.input
                row.output_tokens += usage.output
                if row.cost is not None and row.batch_cost is not None:
                    row.cost += prices.cost(row.model, usage)
                    row.batch_cost += prices.cost(row.model, usage, batch=True)
    return planned
