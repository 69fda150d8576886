"""`mmcot_cascade`: an LLM answers for the Docs of which the student is unsure, by the prompts,
engine, store and budget of `elicit`. Where it gives no answer, the student's stays.
"""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, Self, get_args
from urllib.parse import urlsplit

import pydantic
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from spacy.util import minibatch

from ..corpus.extensions import register_extensions
from ..corpus.posts import make_text_id, read_posts
from ..distillation.conclusions import Confidence, Kind, measure_confidence, set_conclusion
from ..errors import Errors, MMCoTError, Warnings
from ..evaluation.cascade import By
from ..files import catch_write_errors, read_bytes
from ..messages import check_range, explain
from ..scheme import Scheme, check_labels, read_scheme
from ..types import ID_KEY, Post, Sureness

if TYPE_CHECKING:
    from ..elicitation.elicit import RuntimeElicitation

# No postponed annotations here: spaCy reads those of factories and of initialize at run time. It
# imports this module in every process, so what asks an LLM is imported where that is done.

AnswerSource = Literal["student", "llm", "student: llm failed", "student: no budget"]
STUDENT, LLM, FAILED, NO_BUDGET = get_args(AnswerSource)

# Nobody waits for a Doc as long as for a corpus.
_TRIES, _PATIENCE = 3, 15.0


class Guide(pydantic.BaseModel):
    """What an LLM is asked with, and how far it is trusted: this travels with a pipeline.

    examples: the labelled posts that prompts show, by the keys of their texts. measured: P(right)
        of conclusions by kind, label and sureness, where it was measured.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    scheme: Scheme
    examples: dict[str, Post] = {}
    measured: list[tuple[Kind, str, Sureness, float]] = []


class MMCoTCascade:
    """Asks an LLM about Docs with a low confidence, those of a batch at the same time. Its entities
    and relations replace those of the student that have a label of the scheme; what other
    components have set stays. `doc._.mmcot_source` says whose answer a Doc has: "student"; "llm";
    "student: llm failed", where the LLM gave no answer, or none that can be used; or "student: no
    budget". `counts` counts the Docs by it, `failures` why questions stayed without an answer, both
    in this process.

    threshold: Docs with a lower confidence are sent, see `spacy-mmcot cascade`.
    by: what is compared with it, `doc._.mmcot_confidence` or `doc._.mmcot_weakest`.
    scheme: path of the label scheme. examples: path of a posts file with labelled posts for the
        prompts to show, unless the store has some from `elicit`. They are read once and saved with
        the pipeline.
    store: path of the answers store, made or added to; what it holds is not asked again.
    model, base_url, insecure, temperature, workers, rpm, budget, prices: as of `elicit`. The key is
        OPENAI_API_KEY and never saved. `rpm` limits each process, `budget` all that the store's
        answers have cost, of all runs and processes.
    timeout: seconds for one request, of which a question takes three at most. batch_timeout:
        seconds for the questions of a batch, and ten more for those in flight.

    Settings that cannot be used are an MMCoTError here or at the first Doc. So is a first question
    that the endpoint refuses because of the key, the model or the address. Nothing else that an
    endpoint does is an error.
    """

    def __init__(
        self,
        nlp: Language,
        name: str,
        threshold: float | None,
        by: By,
        scheme: str | None,
        examples: str | None,
        store: str,
        model: str,
        base_url: str | None,
        insecure: bool,
        temperature: float | None,
        workers: int,
        rpm: float | None,
        timeout: float,
        batch_timeout: float | None,
        budget: float | None,
        prices: str | None,
    ):
        register_extensions()
        self.name = name
        for setting, value, least, most in (
            ("threshold", threshold, 0.0, 1.0),
            ("workers", workers, 1, 1000),
            ("rpm", rpm, 0.1, math.inf),
            ("timeout", timeout, 0.1, math.inf),
            ("batch_timeout", batch_timeout, 0.1, math.inf),
            ("budget", budget, 0.0, math.inf),
        ):
            check_range(name, setting, value, least, most)
        if base_url is not None and "@" in urlsplit(base_url).netloc:
            received = "an address with a password, which would be saved with the pipeline"
            raise self._refuse("base_url", received, "OPENAI_BASE_URL for such an address")
        self.threshold, self.by = threshold, by
        self.scheme, self.examples, self.store = scheme, examples, store
        self.budget, self.prices = budget, prices
        self.endpoint = (model, base_url, None, insecure, temperature, timeout)
        self.pace = (workers, rpm, _TRIES, _PATIENCE, batch_timeout)
        self.counts: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self._guide: Guide | None = None
        self._llm: RuntimeElicitation | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_llm": None}

    def __call__(self, doc: Doc) -> Doc:
        self.answer([doc])
        return doc

    def pipe(self, stream: Iterable[Doc], *, batch_size: int = 1000) -> Iterator[Doc]:
        """The Docs in order, answered batch by batch."""
        for batch in minibatch(stream, batch_size):
            docs = list(batch)
            self.answer(docs)
            yield from docs

    def answer(self, docs: Sequence[Doc]) -> None:
        """Ask about the Docs that are below the threshold, and set what the LLM concludes. Raises
        MMCoTError for settings that cannot be used."""
        guide = self.load_guide()
        if self.threshold is None:
            allowed = "numbers from 0 to 1; `spacy-mmcot cascade` finds one"
            raise self._refuse("threshold", "not set", allowed)
        doubtful = []
        for doc in docs:
            confidence = getattr(doc._, f"mmcot_{self.by}")
            doc._.mmcot_source = None if confidence is None else STUDENT
            if confidence is None:
                warnings.warn(Warnings.W601.format(component=self.name), stacklevel=2)
            elif confidence < self.threshold and doc.text.strip():
                doubtful.append(doc)
        if doubtful:
            measured = {(kind, label, sure): p for kind, label, sure, p in guide.measured}
            trust = Confidence(measured=measured)
            llm = self._connect()
            answers, within_budget = llm.conclude([_make_post(doc) for doc in doubtful])
            self.failures = llm.failures
            for doc, conclusion in zip(doubtful, answers, strict=True):
                otherwise = FAILED if within_budget else NO_BUDGET
                doc._.mmcot_source = otherwise if conclusion is None else LLM
                if conclusion is not None:
                    set_conclusion(doc, conclusion, guide.scheme, trust)
        self.counts.update(doc._.mmcot_source for doc in docs if doc._.mmcot_source)

    def _connect(self) -> "RuntimeElicitation":
        """Raises MMCoTError where the endpoint's settings or prices cannot be used."""
        if self._llm is None:
            guide, (client, elicit) = self.load_guide(), self._import_elicitation()
            source = client.OpenAISource(client.OpenAISettings(*self.endpoint))
            prices = elicit.Prices(None if self.prices is None else Path(self.prices))
            pace = elicit.Pace(*self.pace)
            asked = source, guide.scheme, guide.examples, Path(self.store)
            self._llm = elicit.RuntimeElicitation(*asked, pace, prices, self.budget)
        return self._llm

    def _import_elicitation(self) -> tuple[ModuleType, ModuleType]:
        """Raises MMCoTError where they need a package that is missing."""
        try:
            from ..elicitation import client, elicit
        except ImportError as error:
            message = Errors.E812.format(purpose=self.name, package=error.name)
            raise MMCoTError(message) from None
        return client, elicit

    def load_guide(self) -> Guide:
        """Scheme and examples, from their files where none were saved. Raises MMCoTError."""
        if self._guide is None:
            if self.scheme is None:
                raise self._refuse("scheme", "not set", "the path of a scheme.yml")
            path = Path(self.scheme)
            scheme = read_scheme(path)
            posts = [] if self.examples is None else read_posts(self.examples)
            check_labels(scheme, posts, path)
            _, elicit = self._import_elicitation()
            size = elicit.QuestionSettings().part_tokens
            examples, _ = elicit.choose_examples(scheme, posts, Path(self.store), size)
            self._guide = Guide(scheme=scheme, examples=examples.chosen)
        return self._guide

    def initialize(
        self, get_examples: Callable[[], Iterable[Example]], *, nlp: Language | None = None
    ) -> None:
        """Measure how often conclusions are right, on references that have gold labels and a
        conclusion; scores of the LLM's entities and relations are these probabilities."""
        measured = measure_confidence(eg.reference for eg in get_examples()).measured
        rows = [(*key, share) for key, share in measured.items()]
        self._guide = self.load_guide().model_copy(update={"measured": rows})

    def to_bytes(self, *, exclude: Iterable[str] = ()) -> bytes:
        return self.load_guide().model_dump_json().encode()

    def from_bytes(self, data: bytes, *, exclude: Iterable[str] = ()) -> Self:
        """Raises MMCoTError for data of something else."""
        try:
            self._guide = Guide.model_validate_json(data)
        except pydantic.ValidationError as error:
            problem, expected = explain(error)
            message = Errors.E207.format(path=self.name, problem=problem, expected=expected)
            raise MMCoTError(message) from None
        self._llm = None
        return self

    def to_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> None:
        data = self.to_bytes()
        with catch_write_errors(Path(path)):
            Path(path).write_bytes(data)

    def from_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> Self:
        return self.from_bytes(read_bytes(Path(path)))

    def _refuse(self, setting: str, received: str, allowed: str) -> MMCoTError:
        name = f"{self.name}: {setting}"
        return MMCoTError(Errors.E409.format(name=name, received=received, allowed=allowed))


make_cascade = Language.factory(
    "mmcot_cascade",
    func=MMCoTCascade,
    requires=["doc._.mmcot_confidence"],
    assigns=["doc.ents", "span._.mmcot_score", "doc._.mmcot_rel", "doc._.mmcot_source"],
    default_config={
        "threshold": None,
        "by": "confidence",
        "scheme": None,
        "examples": None,
        "store": "answers.sqlite",
        "model": "gpt-4o-mini",
        "base_url": None,
        "insecure": False,
        "temperature": None,
        "workers": 8,
        "rpm": None,
        "timeout": 30.0,
        "batch_timeout": None,
        "budget": None,
        "prices": None,
    },
)


def _make_post(doc: Doc) -> Post:
    """Text, id and caption. What the student has found is not shown to the LLM."""
    name = doc.user_data.get(ID_KEY) or make_text_id(doc.text)
    caption = (doc._.mmcot_knowledge or {}).get("caption")
    return Post(id=str(name), text=doc.text, caption=caption, split="unlabelled")
