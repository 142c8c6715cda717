"""A run as its training begins: an order and prepared data in, a compiled network and rows out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from scratchbook import models, provenance
from scratchbook.data.rows import run_rows
from scratchbook.errors import ScratchbookError
from scratchbook.results.paths import RunFiles
from scratchbook.results.prepared import Prepared

from .losses import accuracy_metric, loss_function
from .numbers import training_numbers
from .optimizers import make_optimizer
from .order import Order


@dataclass(frozen=True)
class Setup:
    """What a run's epochs are trained with."""

    order: Order
    prepared: Prepared
    rows: dict[str, np.ndarray]  # of each split, int64 (m,)
    model: keras.Model  # compiled, with the metric `accuracy`
    bare_model: keras.Model  # the same network without the optimizer, which Keras would save too
    loss: Any
    base_rate: float  # the optimizer's own learning rate

    @property
    def variables(self) -> list[Any]:
        """All that an epoch changes: weights, generators' states, the optimizer's variables."""
        return [*self.model.variables, *self.model.optimizer.variables]

    def hash_weights(self) -> str:
        """The sha256 over the weights as they are now."""
        return provenance.hash_arrays(np.asarray(weight) for weight in self.model.get_weights())


def build(
    order: Order, prepared: Prepared, pretrained: Path, initial_run: RunFiles | None
) -> Setup:
    """The network that an order asks for, with all that is needed to train it.

    Raises:
        ScratchbookError: network, head, data and recorded figures do not fit each other.
    """
    spec = order.spec
    activation = models.output_activation(spec["layers"])
    loss = loss_function(spec["loss"], activation, spec.get("label_smoothing", 0.0))
    model = models.start(
        spec, prepared, order.precision,
        seed=order.seed, pretrained=pretrained, initial_run=initial_run,
    )  # fmt: skip
    models.check_recorded(spec, models.count_parameters(model))
    models.check_classes(model, len(prepared.class_names))
    rows = run_rows(spec, prepared, order.seed)
    if spec["batch_size"] > len(rows["train"]):
        raise ScratchbookError(
            f"batch_size is {spec['batch_size']:,}, more than the {len(rows['train']):,} training "
            "images; give a smaller batch_size"
        )
    optimizer = make_optimizer(spec["optimizer"])
    base_rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
    model.compile(optimizer=optimizer, loss=loss, metrics=[accuracy_metric(activation)])
    optimizer.build(model.trainable_variables)
    bare = keras.Model(model.inputs, model.outputs)
    return Setup(order, prepared, rows, model, bare, loss, base_rate)


def resume_key(setup: Setup) -> dict[str, object]:
    """What the numbers of a run hang on, before its first epoch: no other run's state will do."""
    order, backend = setup.order, keras.backend.backend()
    return {
        "key": order.key,
        "seed": order.seed,
        "data": setup.prepared.arrays_sha256,
        "precision": order.precision,
        "backend": backend,
        "threads": order.threads,
        "packages": provenance.describe_packages(provenance.NUMERIC_PACKAGES[backend]),
        "code": training_numbers(order.spec),
        "initial": setup.hash_weights(),
    }


def count_bytes(variables: Sequence[Any]) -> int:
    """Of the values of Keras's variables."""
    return sum(
        math.prod(v.shape) * np.dtype(keras.backend.standardize_dtype(v.dtype)).itemsize
        for v in variables
    )
