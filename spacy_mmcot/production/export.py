"""Exports a trained pipeline: one whose encoder's layers run on ONNX Runtime in place of torch, or
one that stands alone and needs neither torch nor spacy-mmcot.
"""

import importlib.util
import itertools
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import spacy
import srsly
import torch
from numpy.typing import NDArray
from spacy.language import Language
from spacy.ml.models.tok2vec import Tok2VecListener
from spacy.tokens import Doc
from spacy_transformers.data_classes import FullTransformerBatch
from spacy_transformers.layers import TransformerListener
from thinc.api import Config, Model
from torch import Tensor

from ..errors import Errors, MMCoTError, Warnings
from ..files import replace_file
from ..model.bridge import TorchShim, torch_shim
from ..model.cnn import MAX_PIECES
from ..model.encoder import PromptedEncoder
from ..model.encoder_bridge import build_module, find_torch_encoder
from ..model.tagger import ILLEGAL
from ..standalone.encoder import LayerSession

if TYPE_CHECKING:
    from .graph import Precision

# No postponed annotations here: spaCy reads those of architectures at run time.


class OnnxLayers:
    """An encoder's layers on ONNX Runtime (see `spacy_mmcot.model.encoder.Layers`), with as many
    threads as torch has. graph: what `build_layers_graph` returned."""

    def __init__(self, graph: bytes):
        self._session = LayerSession(graph)

    def __call__(self, states: Tensor, lengths: Tensor) -> Tensor:
        """states: (pieces, width), windows in order of length; lengths: (windows,), ascending.
        Returns (pieces, width). Raises MMCoTError in training, and where ONNX Runtime is not
        installed."""
        if torch.is_grad_enabled():
            raise MMCoTError(Errors.E443)
        array, counts = states.numpy(), lengths.tolist()
        starts = list(itertools.accumulate(counts, initial=0))
        parts = self._session.map(
            lambda first, last, layers: layers(array[starts[first] : starts[last]]),
            *(counts, torch.get_num_threads()),
        )
        return torch.from_numpy(numpy.concatenate(parts))


def build_exported(graph: bytes, config: Any, **settings: Any) -> PromptedEncoder:
    """A PromptedEncoder whose layers are the graph, weights still to be loaded. config, settings:
    those of `build_module`."""
    module = build_module(config={**config, "num_hidden_layers": 0}, **settings)
    module.layers = OnnxLayers(graph)
    return module


Encoder = Model[list[Doc], FullTransformerBatch]


def OnnxTransformer(encoder: Encoder) -> Encoder:
    """`spacy_mmcot.OnnxTransformer.v1`: what `spacy-mmcot export` replaces a
    `spacy_mmcot.PromptedTransformer.v1` by. It cannot be trained.

    encoder: the architecture that was exported.
    """
    encoder.shims[0], encoder.init = TorchShim(build_exported), _refuse_init
    return encoder


def _refuse_init(model: Model, X: Any = None, Y: Any = None) -> None:
    raise MMCoTError(Errors.E443)


def export(nlp: Language, precision: "Precision") -> Language:
    """A copy of the pipeline with each of its encoders exported; `nlp` is unchanged.

    precision: "fp32", or "int8" for quantised linear layers.

    Raises MMCoTError where no component has an encoder that can be exported.
    """
    names = [name for name, pipe in nlp.components if find_torch_encoder(pipe) is not None]
    if not names:
        found = ", ".join(nlp.component_names)
        raise MMCoTError(Errors.E780.format(pipeline=nlp.meta["name"], names=found))
    config = nlp.config.copy()
    for name in names:
        part, known = config["components"][name], "spacy_mmcot.OnnxTransformer.v1"
        part["model"] = {"@architectures": known, "encoder": part["model"]}
    result = spacy.util.load_model_from_config(config)
    result.from_bytes(nlp.to_bytes(exclude=names))
    for name in names:
        _move_encoder(nlp.get_pipe(name), result.get_pipe(name), precision)
    needed = {*result.meta.get("requirements", ()), "onnxruntime>=1.20"}
    result.meta["requirements"] = sorted(needed)
    return result


def _build_graph(encoder: Any, precision: "Precision") -> bytes:
    """See `build_layers_graph`. Raises MMCoTError where onnx is not installed."""
    try:
        from .graph import build_layers_graph
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        raise MMCoTError(Errors.E442.format(purpose="Exporting", package=package)) from None
    return build_layers_graph(encoder, precision)


def _move_encoder(source: Any, target: Any, precision: "Precision") -> None:
    """Copy the encoder of one `transformer` component into another, its layers as a graph."""
    module, width = torch_shim(source.model).module, source.model.get_dim("nO")
    settings = {**module.settings, "graph": _build_graph(module.encoder, precision)}
    shim = torch_shim(target.model)
    built = shim.build(**settings)
    kept = built.state_dict().keys()
    built.load_state_dict({k: v for k, v in module.state_dict().items() if k in kept})
    shim.set_module(built, settings)
    for vision, copy in zip(source.model.layers, target.model.layers, strict=True):
        copy.from_bytes(vision.to_bytes())
    target.cfg.update(source.cfg)
    target.model.set_dim("nO", width, force=True)
    for listener in target.listeners:
        if listener.has_dim("nO") is None:
            listener.set_dim("nO", width)


Listener = (TransformerListener, Tok2VecListener)
# The factories that are replaced, by those that replace them.
_STANDALONE = {
    "transformer": "mmcot_standalone_encoder",
    "mmcot_ner": "mmcot_standalone_ner",
    "mmcot_rel": "mmcot_standalone_rel",
}
_PIECES = "spacy_mmcot.StandalonePieces.v1"
_POOLING = {"reduce_first.v1": "first", "reduce_mean.v1": "mean"}
# Data and arrays of a standalone component.
Described = tuple[dict[str, Any], dict[str, NDArray[Any]]]
STANDALONE_REQUIREMENTS = ["numpy>=1.26", "onnxruntime>=1.20", "tokenizers>=0.19"]


def export_standalone(nlp: Language, precision: "Precision") -> Language:
    """A copy of the pipeline that needs neither torch nor transformers nor, in its wheel,
    spacy-mmcot, see `spacy_mmcot.standalone`. It reads no pictures; `nlp` is unchanged.

    mmcot_cascade is left out, with a warning. Raises MMCoTError where another component has no form
    that can stand alone.
    """
    config = nlp.config.interpolate()
    factories = {name: nlp.get_pipe_meta(name).factory for name in nlp.component_names}
    asking = [name for name, factory in factories.items() if factory == "mmcot_cascade"]
    for name in asking:
        warnings.warn(Warnings.W700.format(component=name), stacklevel=2)
        config["nlp"]["pipeline"].remove(name)
        del factories[name], config["components"][name]
    replaced = {name: _STANDALONE[f] for name, f in factories.items() if f in _STANDALONE}
    nodes = {name: _list_nodes(pipe) for name, pipe in nlp.components}
    tables = {name: node for name in nodes for node in nodes[name] if node.name == "piece_vectors"}
    encoders = [name for name, pipe in nlp.components if find_torch_encoder(pipe) is not None]
    if len(encoders) + ("tok2vec" in factories.values()) != 1:
        found = ", ".join(nlp.component_names)
        raise MMCoTError(Errors.E780.format(pipeline=nlp.meta["name"], names=found))
    for name, own in nodes.items():
        if name not in (*replaced, *tables) and any(isinstance(node, Listener) for node in own):
            raise _refuse(name, "reads the encoder")
    parts = config["components"]
    for name, factory in replaced.items():
        kept = {k: v for k, v in parts[name].items() if k == "overwrite" and v is not None}
        parts[name] = {"factory": factory, **kept}
    for name in tables:
        model = parts[name]["model"]
        kept = {key: model["embed"][key] for key in ("width", "attrs", "rows")}
        model["embed"] = {"@architectures": _PIECES, **kept}
    callbacks = ("before_creation", "after_creation", "after_pipeline_creation")
    section = {**config["nlp"], **dict.fromkeys(callbacks)}
    if tables:
        section["after_pipeline_creation"] = {"@callbacks": "spacy_mmcot.StandaloneProducts.v1"}
    built = Config({"nlp": section, "components": parts})
    result = spacy.util.load_model_from_config(built, auto_fill=True)
    result.from_bytes(nlp.to_bytes(exclude=[*replaced, *tables, *asking]))
    for name, node in tables.items():
        _copy_tok2vec(nlp.get_pipe(name), result.get_pipe(name), torch_shim(node).module)
    readers = [name for name, factory in factories.items() if factory.startswith("mmcot_")]
    pooling = {name: _find_pooling(nlp, name) for name in readers}
    poolings = sorted(set(pooling.values())) or ["first"]
    if len(poolings) > 1 and "" in poolings:
        raise _refuse(readers[-1], "reads another encoder")
    describe: dict[str, Callable[..., Described]] = {
        "transformer": partial(_describe_encoder, poolings=poolings, precision=precision),
        "mmcot_ner": _describe_tagger,
        "mmcot_rel": _describe_classifier,
    }
    for name in replaced:
        described = describe[factories[name]](name, nlp.get_pipe(name))
        if name in pooling:
            described[0]["settings"]["part"] = poolings.index(pooling[name])
        result.get_pipe(name).set_data(*described)  # type: ignore[attr-defined]
    result.meta["requirements"] = list(STANDALONE_REQUIREMENTS)
    return result


def reads_pictures(nlp: Language) -> bool:
    """Whether one of the pipeline's encoders reads pictures."""
    encoders = [e for _, pipe in nlp.components if (e := find_torch_encoder(pipe)) is not None]
    return any(e.visual is not None or e.shown_words is not None for e in encoders)


def _find_pooling(nlp: Language, name: str) -> str:
    """How a component reads the encoder's states: the first piece of each token, or the mean."""
    tok2vec = nlp.config["components"][name]["model"].get("tok2vec", {})
    if tok2vec.get("@architectures", "").startswith("spacy.Tok2VecListener."):
        return ""
    pooling = _POOLING.get(tok2vec.get("pooling", {}).get("@layers"))
    if pooling is None or not tok2vec["@architectures"].startswith("spacy-transformers."):
        problem = "does not listen to the transformer by reduce_first.v1 or reduce_mean.v1"
        raise _refuse(name, problem)
    return pooling


def _list_nodes(pipe: Any) -> list[Model]:
    return list(pipe.model.walk()) if hasattr(pipe, "model") else []


def _refuse(component: str, problem: str) -> MMCoTError:
    return MMCoTError(Errors.E782.format(component=component, problem=problem))


def _copy_tok2vec(source: Any, target: Any, table: Any) -> None:
    """Copy a tok2vec component's weights, and the word pieces' vectors as arrays."""
    for own, copy in zip(source.model.walk(), target.model.walk(), strict=True):
        for dim in filter(own.has_dim, own.dim_names):
            copy.set_dim(dim, own.get_dim(dim), force=True)
        for param in filter(own.has_param, own.param_names):
            copy.set_param(param, own.get_param(param).copy())
    (pieces,) = (node for node in target.model.walk() if node.name == "piece_table")
    tokenizer, special = _describe_tokenizer(source.name, table.pieces.tokenizer)
    pieces.attrs["tokenizer"] = tokenizer
    pieces.attrs["settings"] = {**special, "max_pieces": MAX_PIECES}
    pieces.set_param("table", table.table.cpu().numpy())
    for name, array in _to_arrays(dict(table.linear.named_parameters())).items():
        pieces.set_param(name, array)


def _describe_tokenizer(name: str, tokenizer: Any) -> tuple[str, dict[str, Any]]:
    """A component's tokenizer as JSON, and the ids of two pieces."""
    if not getattr(tokenizer, "is_fast", False):
        raise _refuse(name, "has a tokenizer in Python")
    special = {"unknown": tokenizer.unk_token_id, "padding": tokenizer.pad_token_id}
    return tokenizer.backend_tokenizer.to_str(), special


def _to_arrays(tensors: Mapping[str, torch.Tensor | None]) -> dict[str, NDArray[Any]]:
    return {k: t.detach().float().cpu().numpy() for k, t in tensors.items() if t is not None}


def _describe_encoder(
    name: str, pipe: Any, poolings: list[str], precision: "Precision"
) -> Described:
    """What NumpyEncoder is made of."""
    module = torch_shim(pipe.model).module
    stored, encoder = module.settings["encoder"], module.encoder
    if stored["knowledge_tags"] or stored["segment_length"]:
        raise _refuse(name, "reads the LLM's knowledge")
    tokenizer, special = _describe_tokenizer(name, module.pieces.tokenizer)
    graph = _build_graph(encoder, precision)
    parts, project = encoder.embeddings, getattr(encoder, "embeddings_project", None)
    types = getattr(parts, "token_type_embeddings", None)
    arrays = _to_arrays(
        {
            "words": module.word_embeddings.weight,
            "positions": parts.position_embeddings.weight,
            "types": None if types is None else types.weight[0],
            "cases": None if module.cases is None else module.cases.weight,
            "scale": parts.LayerNorm.weight,
            "shift": parts.LayerNorm.bias,
            "project": None if project is None else project.weight.T,
            "project_bias": None if project is None else project.bias,
            "vectors": getattr(module.prompt, "vectors", None),
            **{
                f"{side}{ending}": getattr(getattr(module.prompt, side, None), part, None)
                for side in ("down", "up")
                for ending, part in (("", "weight"), ("_bias", "bias"))
            },
        }
    )
    if precision == "int8":
        arrays["words"] = arrays["words"].astype("float16")
    settings = {
        "max_length": stored["max_length"],
        "stride": stored["stride"],
        "first_position": module._first_position,
        "epsilon": encoder.config.layer_norm_eps,
        "poolings": poolings,
        **special,
    }
    return {"settings": settings, "tokenizer": tokenizer, "graph": graph}, arrays


def _describe_tagger(name: str, pipe: Any) -> Described:
    """What StandaloneNER is made of."""
    module, temperature = torch_shim(pipe.model.get_ref("head")).module, pipe.cfg["temperature"]
    transitions = module.steps.masked_fill(~module.legal, ILLEGAL)
    tensors = {"weight": module.linear.weight, "bias": module.linear.bias}
    arrays = _to_arrays({**tensors, "transitions": transitions})
    settings = {"labels": list(pipe.labels), "threshold": pipe.cfg["threshold"]}
    return {"settings": settings}, {name: array / temperature for name, array in arrays.items()}


def _describe_classifier(name: str, pipe: Any) -> Described:
    """What StandaloneRel is made of."""
    module = torch_shim(pipe.model).module
    if module.tags is not None:
        raise _refuse(name, "reads the LLM's knowledge")
    names = ("labels", "types", "legal", "threshold", "max_distance")
    return {"settings": {key: pipe.cfg[key] for key in names}}, _to_arrays(module.state_dict())


# The modules of spacy_mmcot that travel in a wheel, by their names there.
_TRAVELLING = {
    "errors": "errors",
    "messages": "messages",
    "types": "types",
    "pictures.read": "read",
    "pictures.decode": "decode",
    "corpus.extensions": "extensions",
    "model.wordpieces": "wordpieces",
    "components.decoding": "decoding",
    "components.pairs": "pairs",
    "standalone.encoder": "encoder",
    "standalone": "components",
    "production.worker": "worker",
}
_RELATIVE = re.compile(r"^(\s*)from (\.+)([\w.]*) import", re.MULTILINE)


def copy_code(folder: Path) -> None:
    """Write the modules that a standalone wheel needs into a package's folder, flat."""
    for module, name in _TRAVELLING.items():
        package = f"{__package__.partition('.')[0]}.{module}"
        found = importlib.util.find_spec(package)
        assert found is not None and found.origin is not None
        parent = package if found.submodule_search_locations else package.rpartition(".")[0]

        def rename(match: re.Match[str], parent: str = parent) -> str:
            target = importlib.util.resolve_name(f"{match[2]}{match[3]}", parent)
            name = target.partition(".")[2]
            # What stays behind is imported for type checkers alone.
            return f"{match[1]}from .{_TRAVELLING.get(name, name)} import"

        source = Path(found.origin).read_text("utf-8")
        (folder / f"{name}.py").write_text(_RELATIVE.sub(rename, source), "utf-8")


def build_wheel(pipeline: Path, name: str | None = None) -> Path:
    """Make a wheel of a standalone pipeline's folder, with its code, in the folder `dist` there.
    name: of the package without its language; None for that of the meta.json.

    Raises MMCoTError where it cannot be built.
    """
    from spacy.cli.package import package

    with tempfile.TemporaryDirectory() as work:
        package(
            *(pipeline, Path(work)), name=name, create_sdist=False, create_wheel=False, silent=True
        )
        (root,) = Path(work).iterdir()
        meta = srsly.read_json(root / "meta.json")
        meta["requirements"] = [f"spacy{meta['spacy_version']}", *STANDALONE_REQUIREMENTS]
        srsly.write_json(root / "meta.json", meta)
        (code,) = (path.parent for path in root.glob("*/__init__.py"))
        copy_code(code)
        start = code / "__init__.py"
        start.write_text(f"from . import components, worker\n{start.read_text('utf-8')}", "utf-8")
        command = [sys.executable, "setup.py", "-q", "bdist_wheel"]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True)
        built = list(root.glob("dist/*.whl"))
        if done.returncode or not built:
            reason = done.stderr.strip().splitlines()[-1:] or ["no wheel"]
            raise MMCoTError(Errors.E783.format(path=pipeline, reason=reason[0]))
        target = pipeline / "dist" / built[0].name
        with replace_file(target) as temporary:
            shutil.copyfile(built[0], temporary)
    return target
