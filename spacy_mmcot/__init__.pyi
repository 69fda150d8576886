"""The public names, for type checkers: those that `__init__.py` imports when they are used."""

from .corpus.docbin import read_docs as read_docs
from .corpus.docbin import write_docs as write_docs
from .corpus.docs import attach as attach
from .corpus.extensions import Alignment as Alignment
from .corpus.extensions import get_alignment as get_alignment
from .corpus.extensions import get_pairs as get_pairs
from .corpus.extensions import get_relations as get_relations
from .corpus.extensions import register_extensions as register_extensions
from .corpus.extensions import set_image as set_image
from .corpus.extensions import set_pairs as set_pairs
from .corpus.extensions import set_relations as set_relations
from .corpus.posts import read_posts as read_posts
from .corpus.posts import write_posts as write_posts
from .distillation.entity_teachers import GlinerTeacher as GlinerTeacher
from .distillation.teach import teach as teach
from .elicitation.elicit import ElicitResult as ElicitResult
from .elicitation.elicit import elicit as elicit
from .elicitation.engine import Pace as Pace
from .elicitation.prices import Prices as Prices
from .elicitation.prompts import Prompt as Prompt
from .elicitation.prompts import QuestionSettings as QuestionSettings
from .elicitation.questions import Source as Source
from .elicitation.replies import AnswerRejected as AnswerRejected
from .elicitation.replies import Reply as Reply
from .elicitation.replies import Unavailable as Unavailable
from .elicitation.replies import Usage as Usage
from .elicitation.store import AnswerStore as AnswerStore
from .elicitation.store import RecordedSource as RecordedSource
from .elicitation.store import load_answers as load_answers
from .errors import MMCoTError as MMCoTError
from .errors import UsageError as UsageError
from .evaluation.conclusions import evaluate_conclusions as evaluate_conclusions
from .evaluation.evaluate import evaluate as evaluate
from .model.vision import make_vision_model as make_vision_model
from .pictures.read import PicturePolicy as PicturePolicy
from .production.annotate import AnnotateResult as AnnotateResult
from .production.annotate import AnnotateSettings as AnnotateSettings
from .production.annotate import annotate as annotate
from .production.annotate import extract_findings as extract_findings
from .production.export import export as export
from .production.tables import ColumnNames as ColumnNames
from .production.worker import Busy as Busy
from .production.worker import PipelineWorker as PipelineWorker
from .scheme import Scheme as Scheme
from .scheme import read_scheme as read_scheme
from .types import Answers as Answers
from .types import Entity as Entity
from .types import EntityVariant as EntityVariant
from .types import NounItem as NounItem
from .types import Post as Post
from .types import PostRelation as PostRelation
from .types import Relation as Relation

__version__: str
__all__: list[str]
