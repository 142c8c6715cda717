"""Grad-CAM and HiResCAM: a Keras model and a layer's name in, signed maps on its own grid out.

Nested models are walked as one list of layers. The walk hands the chosen layer's output to the
backend, which differentiates only what follows it (the head); the trunk is run once, forward.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from scratchbook.errors import ScratchbookError, nearest

if TYPE_CHECKING:
    import keras

Method = Literal["gradcam", "hirescam"]
Call = Callable[..., Any]  # (path, operation, *inputs) -> outputs

PREDICTED = -1  # in place of a label: explain the class that the network predicts
MOST_PIXELS = 1 << 20  # in a batch: VGG16's first layer then has an output of 256 MiB
SMALLEST_CHOSEN_GRID = 7
SMALLEST_GRID = 5  # on fewer cells two unrelated maps often correlate by chance


@dataclass(frozen=True)
class Layer:
    """A layer that can be explained, its grid (h, w) and what a reader must be warned of."""

    name: str
    grid: tuple[int, int]
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Step:
    """One operation of the flattened model, as the symbolic walk met it."""

    path: str
    operation: Any
    shape: tuple[int | None, ...]  # of its output
    in_head: bool  # whether the tapped layer's output reaches it


def choose_layer(model: keras.Model, name: str | None = None) -> Layer:
    """The layer to explain: the named one, or the deepest whose grid is at least 7×7.

    Dropout and noise are passed over (they change nothing here), as is all that comes before the
    first layer with weights. Where no grid reaches 7×7 the deepest of the largest grids is taken.

    Args:
        model: built; nested models may be written as `vgg16/block5_conv3` or by the layer's name.
        name: of a layer with an output (batch, h, w, channels), or None.

    Returns:
        The layer, with the flag GRID-TOO-SMALL where a side of the grid is under 5 cells.

    Raises:
        ScratchbookError: no such layer, or none with a grid.
    """
    steps = _steps(model)
    if name is not None:
        step = _named(steps, name)
        if len(step.shape) != 4:
            raise ScratchbookError(
                f"cam.layer: {name!r} has no grid (its output is {step.shape[1:]}); "
                + nearest(name, [s.path for s in steps if len(s.shape) == 4])
            )
        return _layer(step)
    weighted = [i for i, step in enumerate(steps) if getattr(step.operation, "weights", [])]
    candidates = [
        step
        for step in steps[weighted[0] if weighted else 0 :]
        if len(step.shape) == 4 and not _changes_nothing(step.operation)
    ]
    if not candidates:
        raise ScratchbookError(
            "cam: this network has no layer with a grid to explain; give it one, or write "
            "`cam: null` in the notebook, which leaves Grad-CAM out"
        )
    least = min(SMALLEST_CHOSEN_GRID, max(min(_grid(step)) for step in candidates))
    return _layer([step for step in candidates if min(_grid(step)) >= least][-1])


def mapper(
    model: keras.Model, layer: str, method: Method = "gradcam", batch_size: int | None = None
) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Compiles `explain(images, labels) -> (maps, logits)`, which follows the model's weights.

    With A the layer's output (h, w, k) and y the class's logit, for each image by itself
        Grad-CAM  L = Σ_k A_k · mean_hw(∂y/∂A_k)   (Selvaraju et al. 2017, eq. 1–2, before the ReLU)
        HiResCAM  L = Σ_k A_k ⊙ ∂y/∂A_k            (Draelos & Carin 2020, eq. 4)
    The network runs in inference mode. For one sigmoid unit z, y is z for class 1, −z for class 0.

    Load other weights into `model` and call again: nothing is rebuilt or recompiled.

    Args:
        model: float32, images (batch, H, W, C) to raw logits (batch, classes).
        layer: its name or path.
        method: `gradcam` or `hirescam`.
        batch_size: images at a time; 64 of up to 128 pixels a side unless given, fewer of larger.

    Returns:
        explain: images (n, H, W, C) and labels int (n,), where −1 means the predicted class, to
        signed unscaled maps float32 (n, h, w) and logits float32 (n, classes); (0, z) for a
        sigmoid unit.

    Raises:
        ScratchbookError: no such layer or method.
        ValueError: the model ends in a softmax or sigmoid, so that gradients would saturate.
    """
    import keras

    if method not in get_args(Method):
        raise ScratchbookError(f"cam.method: {method!r}; {nearest(method, get_args(Method))}")
    steps = _steps(model)
    activation = getattr(steps[-1].operation, "activation", None)
    if activation not in (None, keras.activations.linear):
        raise ValueError(f"the model must return logits, but {steps[-1].path} applies {activation}")
    path = _named(steps, layer).path

    def forward(images: Any, tap: Callable[[Any], Any]) -> Any:
        """Logits, the chosen layer's output replaced by what `tap` makes of it."""

        def call(at: str, operation: Any, *args: Any, **kwargs: Any) -> Any:
            if _takes_training(operation):
                kwargs["training"] = False
            outputs = operation(*args, **kwargs)
            return tap(outputs) if at == path else outputs

        return _walk(model, images, call)

    if batch_size is None:
        height, width = model.inputs[0].shape[1:3]
        batch_size = max(1, min(64, MOST_PIXELS // (height * width)))
    compiled = _BACKENDS[keras.backend.backend()](model, forward, _WEIGHED[method])

    def explain(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        parts = [
            compiled(images[start : start + batch_size], labels[start : start + batch_size])
            for start in range(0, len(images), batch_size)
        ]
        maps, logits = (np.concatenate([np.asarray(p[i]) for p in parts]) for i in (0, 1))
        return maps, logits

    return explain


def head_layers(model: keras.Model, path: str) -> list[keras.Layer]:
    """The layers with weights that the output of the layer at `path` passes through afterwards."""
    head = [step.operation for step in _steps(model, tap=path) if step.in_head]
    return [layer for layer in dict.fromkeys(head) if getattr(layer, "weights", [])]


# What differs per backend: run forward, differentiate the class's logit by the tapped output, and
# compile that. Each takes (model, forward, weigh) and returns f(images, labels) -> maps, logits.


def _tensorflow(model: keras.Model, forward: Call, weigh: Call) -> Call:
    import tensorflow as tf

    images_like = tf.TensorSpec(model.inputs[0].shape, model.inputs[0].dtype)

    def run(images: Any, labels: Any) -> Any:
        tapped = []
        with tf.GradientTape(watch_accessed_variables=False) as tape:

            def tap(features: Any) -> Any:
                tape.watch(features)
                tapped.append(features)
                return features

            total, logits = _class_scores(forward(images, tap), labels)
        return weigh(tapped[0], tape.gradient(total, tapped[0])), logits

    compiled = tf.function(run, input_signature=[images_like, tf.TensorSpec([None], "int32")])
    return lambda images, labels: compiled(
        tf.cast(images, images_like.dtype), tf.cast(labels, "int32")
    )


def _jax(model: keras.Model, forward: Call, weigh: Call) -> Call:
    import jax
    import keras

    @jax.jit
    def run(values: Any, images: Any, labels: Any) -> Any:
        def total_of(offset: Any) -> Any:
            tapped = []

            def tap(features: Any) -> Any:
                tapped.append(features)
                return features + offset

            total, logits = _class_scores(forward(images, tap), labels)
            return total, (tapped[0], logits)

        with keras.StatelessScope(state_mapping=list(zip(model.variables, values, strict=True))):
            outline = jax.eval_shape(total_of, 0.0)[1][0]
            offset = jax.numpy.zeros(outline.shape, outline.dtype)
            (_, (features, logits)), gradient = jax.value_and_grad(total_of, has_aux=True)(offset)
        return weigh(features, gradient), logits

    return lambda images, labels: run([v.value for v in model.variables], images, labels)


def _torch(model: keras.Model, forward: Call, weigh: Call) -> Call:
    import keras
    import torch

    def run(images: Any, labels: Any) -> Any:
        tapped = []

        def tap(features: Any) -> Any:
            tapped.append(features.detach().requires_grad_())
            torch.set_grad_enabled(True)  # the trunk, before this, needs no graph
            return tapped[0]

        with torch.no_grad():  # also restores the setting afterwards
            images, labels = (keras.ops.convert_to_tensor(x) for x in (images, labels))
            total, logits = _class_scores(forward(images, tap), labels)
            (gradient,) = torch.autograd.grad(total, tapped[0])
        maps = weigh(tapped[0], gradient)
        return maps.detach().cpu().numpy(), logits.detach().cpu().numpy()

    return run


_BACKENDS = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}


def _class_scores(output: Any, labels: Any) -> tuple[Any, Any]:
    """The batch's class scores summed up, and its logits (batch, classes).

    No image's score depends on another image, so the sum's gradient holds each image's own.
    One sigmoid unit z has the scores (−z, z) and the logits (0, z), whose softmax is (1 − σ, σ).
    """
    from keras import ops

    scores = logits = output  # (batch, classes)
    if output.shape[-1] == 1:
        scores = ops.concatenate([-output, output], axis=-1)
        logits = ops.concatenate([ops.zeros_like(output), output], axis=-1)
    predicted = ops.cast(ops.argmax(scores, axis=-1), "int32")
    labels = ops.cast(labels, "int32")
    explained = ops.where(labels == PREDICTED, predicted, labels)
    chosen = ops.one_hot(explained, scores.shape[-1], dtype=scores.dtype)  # (batch, classes)
    return ops.sum(scores * chosen), logits


def _gradcam(features: Any, gradient: Any) -> Any:
    from keras import ops

    weights = ops.mean(gradient, axis=(1, 2), keepdims=True)  # (batch, 1, 1, channels)
    return ops.sum(features * weights, axis=-1)  # (batch, h, w)


def _hirescam(features: Any, gradient: Any) -> Any:
    from keras import ops

    return ops.sum(features * gradient, axis=-1)  # (batch, h, w)


_WEIGHED: dict[str, Call] = {"gradcam": _gradcam, "hirescam": _hirescam}


def _walk(model: keras.Model, x: Any, call: Call, prefix: str = "") -> Any:
    """Runs x through every operation of the model and of the models nested in it, in order."""
    import keras

    def run(operation: Any) -> Callable[..., Any]:
        path = prefix + operation.name
        if isinstance(operation, keras.Sequential | keras.Function):
            return lambda x, **_: _walk(operation, x, call, path + "/")
        return lambda *args, **kwargs: call(path, operation, *args, **kwargs)

    if isinstance(model, keras.Sequential):
        for layer in model.layers:
            x = run(layer)(x)
        return x
    # Keras's own walk (it is behind Model.call and clone_model): public calls would copy or nest.
    return model._run_through_graph(x, operation_fn=run)


def _steps(model: keras.Model, tap: str | None = None) -> list[_Step]:
    """The flattened operations in order, found by a walk that computes shapes only."""
    import keras

    steps: list[_Step] = []
    downstream: set[int] = set()
    alive: list[Any] = []  # ids are unique only among living objects

    def call(path: str, operation: Any, *args: Any, **kwargs: Any) -> Any:
        inputs = keras.tree.flatten((args, kwargs))
        in_head = any(id(x) in downstream for x in inputs)
        outputs = operation.compute_output_spec(*args, **kwargs)
        alive.append(outputs)
        if in_head or path == tap:
            downstream.update(id(x) for x in keras.tree.flatten(outputs))
        shape = keras.tree.flatten(outputs)[0].shape
        steps.append(_Step(path, operation, tuple(shape), in_head))
        return outputs

    inputs = model.inputs[0]
    _walk(model, keras.KerasTensor(inputs.shape, inputs.dtype), call)
    return steps


def _named(steps: list[_Step], name: str) -> _Step:
    found = [s for s in steps if s.path == name] or [
        s for s in steps if s.path.endswith("/" + name)
    ]
    if not found:
        raise ScratchbookError(
            f"cam.layer: no layer {name!r}; {nearest(name, [s.path for s in steps])}"
        )
    if len(found) > 1:
        raise ScratchbookError(
            f"cam.layer: {name!r} is used {len(found)} times in this network "
            f"({', '.join(s.path for s in found)}); name a layer that is used once"
        )
    return found[0]


def _grid(step: _Step) -> tuple[int, int]:
    return (step.shape[1] or 0, step.shape[2] or 0)


def _layer(step: _Step) -> Layer:
    grid = _grid(step)
    return Layer(step.path, grid, ("GRID-TOO-SMALL",) if min(grid) < SMALLEST_GRID else ())


def _changes_nothing(operation: Any) -> bool:
    return any(word in type(operation).__name__ for word in ("Dropout", "Noise"))


def _takes_training(operation: Any) -> bool:
    return "training" in inspect.signature(operation.call).parameters
