"""Builds a graph of a BERT-like encoder's layers from fused operators of ONNX Runtime.

ONNX Runtime's own quantizer has one scale for a whole batch, so that a Doc's result would depend on
the others of its batch. Here each word piece has its own scale.

A few columns of what a norm returns are ten times as large as the others and would leave these few
steps. As in SmoothQuant (arXiv 2211.10438), columns are made more alike before rounding, and the
weights take the difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Literal, NamedTuple

import numpy
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from ..errors import Errors, MMCoTError
from ..model.encoder import FAMILIES, can_pack

Precision = Literal["fp32", "int8"]

OPSET = 17
CONTRIB = "com.microsoft"

# The operator behind each name that configs have for it.
ACTIVATIONS = {"gelu": "BiasGelu", "gelu_new": "FastGelu", "gelu_fast": "FastGelu", "relu": "Relu"}

FUSED = frozenset({"BiasGelu", "FastGelu", "MatMulIntegerToFloat", "MultiHeadAttention"})

# Weights are rounded to integers from -127 to 127. The input of a linear layer is rounded to 0..255
# with a zero point in the middle, or, after an activation, whose values are hardly negative, near
# the bottom, which halves the steps.
WEIGHT_LEVELS = 127
MIDDLE = 128
NEAR_BOTTOM = 16
LOWEST = 0.17  # an activation's least value, negated
_TINY = 1e-9
# How much of the columns' unevenness the weights take, and the windows and pieces, drawn at random
# from the vocabulary, that show it: real texts gave the same result.
SMOOTHING = 0.7
_SAMPLE = (16, 32)
_LEAST = 1e-3
_CONSTANTS = {
    "middle": numpy.array(MIDDLE, dtype="uint8"),
    "middle.step": numpy.array(1 / (255 - MIDDLE), dtype="float32"),
    "middle.least": numpy.array(_TINY, dtype="float32"),
    "bottom": numpy.array(NEAR_BOTTOM, dtype="uint8"),
    "bottom.step": numpy.array(1 / (255 - NEAR_BOTTOM), dtype="float32"),
    "bottom.least": numpy.array(LOWEST / NEAR_BOTTOM, dtype="float32"),
    "one": numpy.array(1, dtype="float32"),
    "flat": numpy.array([-1], dtype="int64"),
}


def build_layers_graph(encoder: Any, precision: Precision) -> bytes:
    """A serialised ONNX model of the encoder's layers, as `OnnxLayers` runs it.

    Inputs: states (pieces, width), the windows' real pieces, one window after another; grid
    (windows, longest), the index among the states of each of a window's pieces, any index at
    padding; mask (windows, longest), 0 at padding; places (pieces,), the index of each piece in the
    flattened grid. Output: result (pieces, width), the last layer's states.

    precision "int8" quantises the linear layers: weights by output channel, states by piece after
    the columns are made more alike.

    Raises MMCoTError for encoders without BERT's layers.
    """
    config = encoder.config
    if not can_pack(encoder):
        allowed = ", ".join(sorted(FAMILIES))
        raise MMCoTError(Errors.E440.format(received=config.model_type, allowed=allowed))
    if config.hidden_act not in ACTIVATIONS:
        allowed = ", ".join(ACTIVATIONS)
        raise MMCoTError(Errors.E441.format(received=config.hidden_act, allowed=allowed))
    graph = _Graph(precision, config, _measure_columns(encoder) if precision == "int8" else {})
    states = "states"
    for number, layer in enumerate(encoder.encoder.layer):
        states = graph.add_layer(f"layer{number}", layer, states)
    return graph.make_model(states, config.hidden_size).SerializeToString()


def _measure_columns(encoder: Any) -> dict[nn.Linear, Tensor]:
    """The largest absolute value in each column, (width,), of what linear layers read from a norm,
    by the layer."""
    config, found = encoder.config, dict[nn.Linear, Tensor]()
    windows, pieces = _SAMPLE
    shape = windows, min(pieces, config.max_position_embeddings // 2)
    drawn = torch.randint(config.vocab_size, shape, generator=torch.Generator().manual_seed(0))
    ids = drawn.to(encoder.device)

    def look(linear: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(linear, nn.Linear)
        found[linear] = inputs[0].abs().flatten(0, -2).amax(dim=0).cpu()

    with ExitStack() as hooks, torch.no_grad():
        for layer in encoder.encoder.layer:
            for linear in (layer.attention.self.query, layer.intermediate.dense):
                hooks.enter_context(linear.register_forward_hook(look))
        encoder(input_ids=ids, attention_mask=torch.ones_like(ids))
    return found


class _Factor(NamedTuple):
    """The left factor of a product: states (pieces, width); if quantised, also each piece's step
    (pieces, 1) and the name of the zero point, and by what its columns were divided, (width,)."""

    values: str
    step: str | None = None
    zero: str | None = None
    divisors: Tensor | None = None


class _Graph:
    """The graph's nodes and weights, built layer by layer."""

    def __init__(self, precision: Precision, config: Any, columns: dict[nn.Linear, Tensor]):
        """columns: see `_measure_columns`."""
        self.precision = precision
        self.heads = config.num_attention_heads
        self.activation = ACTIVATIONS[config.hidden_act]
        self.epsilon = config.layer_norm_eps
        self.columns = columns
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        if precision == "int8":
            for name, value in _CONSTANTS.items():
                self._weight(name, value)

    def add_layer(self, name: str, layer: Any, states: str) -> str:
        """Add a layer that reads `states`; returns the name of its output."""
        attention, out = layer.attention.self, layer.attention.output
        # Separate products for query, key and value: splitting a joint one would copy it.
        parts = {part: getattr(attention, part) for part in ("query", "key", "value")}
        read = self._factor(f"{name}.read", states, list(parts.values()))
        projected = []
        for part, linear in parts.items():
            packed = self._matmul(f"{name}.{part}.packed", read, linear.weight)
            projected.append(self._node(f"{name}.{part}", "Gather", [packed, "grid"], axis=0))
        bias = torch.cat([linear.bias for linear in parts.values()])
        inputs = [*projected, self._weight(f"{name}.bias", bias), "mask"]
        settings = {"num_heads": self.heads}
        attended = self._node(f"{name}.attended", "MultiHeadAttention", inputs, **settings)
        flat = self._node(f"{name}.flat", "Flatten", [attended], axis=2)
        packed = self._node(f"{name}.packed", "Gather", [flat, "places"], axis=0)
        factor = self._factor(f"{name}.packed", packed)
        mixed = self._matmul(f"{name}.mixed", factor, out.dense.weight)
        middle = self._norm(f"{name}.middle", mixed, states, out)
        factor = self._factor(f"{name}.middle", middle, [layer.intermediate.dense])
        wide = self._matmul(f"{name}.wide", factor, layer.intermediate.dense.weight)
        wide = self._activate(f"{name}.active", wide, layer.intermediate.dense.bias)
        factor = self._factor(f"{name}.active", wide, activated=True)
        narrow = self._matmul(f"{name}.narrow", factor, layer.output.dense.weight)
        return self._norm(f"{name}.result", narrow, middle, layer.output)

    def make_model(self, result: str, width: int) -> Any:
        """The ONNX model whose output is the node `result`, (pieces, width)."""
        self.nodes.append(helper.make_node("Identity", [result], ["result"]))
        info = helper.make_tensor_value_info
        inputs = [
            info("states", TensorProto.FLOAT, ["pieces", width]),
            info("grid", TensorProto.INT64, ["windows", "longest"]),
            info("mask", TensorProto.INT32, ["windows", "longest"]),
            info("places", TensorProto.INT64, ["pieces"]),
        ]
        outputs = [info("result", TensorProto.FLOAT, ["pieces", width])]
        graph = helper.make_graph(self.nodes, "layers", inputs, outputs, self.weights)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=9)

    def _node(self, output: str, kind: str, inputs: list[str], **settings: Any) -> str:
        settings |= {"name": output, "domain": CONTRIB if kind in FUSED else ""}
        self.nodes.append(helper.make_node(kind, inputs, [output], **settings))
        return output

    def _weight(self, name: str, value: torch.Tensor | NDArray[Any]) -> str:
        if isinstance(value, torch.Tensor):
            value = value.detach().float().cpu().numpy()
        self.weights.append(numpy_helper.from_array(numpy.ascontiguousarray(value), name))
        return name

    def _factor(
        self, name: str, states: str, readers: Sequence[nn.Linear] = (), activated: bool = False
    ) -> _Factor:
        """The states as a factor, quantised if the precision is int8. readers: the linear layers
        that read them from a norm. activated: whether they come from an activation."""
        if self.precision == "fp32":
            return _Factor(states)
        divisors = self._choose_divisors(readers)
        if divisors is not None:
            inverse = self._weight(f"{name}.inverse", 1 / divisors)
            states = self._node(f"{name}.even", "Mul", [states, inverse])
        zero = "bottom" if activated else "middle"
        sizes = states if activated else self._node(f"{name}.sizes", "Abs", [states])
        largest = self._node(f"{name}.largest", "ReduceMax", [sizes], axes=[-1], keepdims=1)
        wanted = self._node(f"{name}.wanted", "Mul", [largest, f"{zero}.step"])
        step = self._node(f"{name}.step", "Max", [wanted, f"{zero}.least"])
        steps = self._node(f"{name}.steps", "Reshape", [step, "flat"])
        pieces = self._node(f"{name}.pieces", "Shape", [steps])
        zeros = self._node(f"{name}.zeros", "Expand", [zero, pieces])
        quantize = ("QuantizeLinear", [states, steps, zeros])
        return _Factor(self._node(f"{name}.rounded", *quantize, axis=0), step, zero, divisors)

    def _choose_divisors(self, readers: Sequence[nn.Linear]) -> Tensor | None:
        """By what the columns that linear layers read are divided, (width,): None where they come
        from no norm."""
        largest = next((self.columns[linear] for linear in readers if linear in self.columns), None)
        if largest is None:
            return None
        weights = torch.stack([linear.weight.detach().abs().amax(dim=0) for linear in readers])
        taken = weights.amax(dim=0).float().cpu().clamp(min=_LEAST) ** (1 - SMOOTHING)
        divisors = largest.float().clamp(min=_LEAST) ** SMOOTHING / taken
        return divisors / divisors.log().mean().exp()

    def _matmul(self, name: str, states: _Factor, weight: torch.Tensor) -> str:
        """states @ weight.T"""
        if states.step is None or states.zero is None:
            factor = self._weight(f"{name}.weight", weight.T)
            return self._node(name, "MatMul", [states.values, factor])
        weight = weight.detach().float().cpu()
        array = (weight if states.divisors is None else weight * states.divisors).numpy().T
        scale = numpy.maximum(numpy.abs(array).max(axis=0), _TINY) / WEIGHT_LEVELS
        levels = self._weight(f"{name}.levels", numpy.rint(array / scale).astype("int8"))
        scales = self._weight(f"{name}.scale", scale.astype("float32"))
        # The operator has one step for all rows: it gets 1, and each row of the product is then
        # multiplied by its own step.
        factors = [states.values, levels, "one", scales, states.zero]
        product = self._node(f"{name}.product", "MatMulIntegerToFloat", factors)
        return self._node(name, "Mul", [product, states.step])

    def _norm(self, name: str, states: str, skip: str, part: Any) -> str:
        bias = self._weight(f"{name}.bias", part.dense.bias)
        biased = self._node(f"{name}.biased", "Add", [states, bias])
        joined = self._node(f"{name}.joined", "Add", [biased, skip])
        scale = self._weight(f"{name}.scale", part.LayerNorm.weight)
        shift = self._weight(f"{name}.shift", part.LayerNorm.bias)
        return self._node(name, "LayerNormalization", [joined, scale, shift], epsilon=self.epsilon)

    def _activate(self, name: str, states: str, bias: torch.Tensor) -> str:
        inputs = [states, self._weight(f"{name}.bias", bias)]
        if self.activation in FUSED:
            return self._node(name, self.activation, inputs)
        return self._node(name, self.activation, [self._node(f"{name}.in", "Add", inputs)])
