"""How fast a GPU trains the notebooks' networks through Keras on JAX, all images on the device.

    uv pip sync requirements-gpu.txt && uv pip install --no-deps --editable .
    uv run --no-sync python benchmarks/gpu.py [--data FOLDER] [NETWORK …]

For each network: images/s of the training epochs, that as a share of the device's own bf16 matrix
products in the same run, and seconds of training until validation accuracy first reached each mark.
Network, loss, optimizer, schedule, augmentation and the order of images are the package's own; what
differs from a run is where the images lie and that no file is written. The first epoch compiles:
its seconds are given apart, and it counts as long as the others.

`--images` and `--epochs` make a trial on a CPU: `--images 2048 --epochs 8`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"
REPOSITORY = Path(__file__).parent.parent
MARKS = (0.83, 0.94)
NETWORKS = ("cifar10/train2", "cifar10/train3", "cifar10-fast/shifted", "cifar10-fast/long")


def matrix_rate(side: int, repeats: int = 20) -> float:
    """FLOP/s of bf16 products of two square matrices, the best of three goes."""
    import jax
    import jax.numpy as jnp

    # Scaled so, a product has values as large as those of its factors.
    a = (jax.random.normal(jax.random.key(0), (side, side)) / side**0.5).astype(jnp.bfloat16)
    product = jax.jit(jnp.matmul)
    product(a, a).block_until_ready()
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        x = a
        for _ in range(repeats):
            x = product(x, a)
        x.block_until_ready()
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 * repeats / best


class OnDevice:
    """A network whose images, weights and optimizer stay on the device from step to step."""

    def __init__(
        self, model: Any, images: Any, labels: Any, flipped_axes: list[tuple[int, ...]]
    ) -> None:
        import jax

        self.model, self.flipped_axes = model, flipped_axes
        self.images, self.labels = jax.device_put(images), jax.device_put(labels)
        self._train = jax.jit(self._step, donate_argnums=0)
        self._predict = jax.jit(self._logits)

    def take(self) -> Any:
        """The variables' values, to be handed from step to step."""
        model = self.model
        return tuple(
            [v.value for v in variables]
            for variables in (
                model.trainable_variables, model.non_trainable_variables, model.optimizer.variables
            )
        )  # fmt: skip

    def put(self, state: Any) -> None:
        """Gives the variables their values back."""
        model = self.model
        kinds = (
            model.trainable_variables, model.non_trainable_variables, model.optimizer.variables
        )  # fmt: skip
        for variables, values in zip(kinds, state, strict=True):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)

    def _step(self, state: Any, images: Any, labels: Any, batch: Any) -> tuple[Any, Any]:
        import jax

        trainable, fixed, optimizer = state

        def loss(weights: Any) -> tuple[Any, Any]:
            logits, changed = self.model.stateless_call(
                weights, fixed, images[batch], training=True
            )
            # A function of ours gives a loss an image, an object of Keras their mean.
            return jax.numpy.mean(self.model.loss(labels[batch, None], logits)), changed

        (value, fixed), gradients = jax.value_and_grad(loss, has_aux=True)(trainable)
        trainable, optimizer = self.model.optimizer.stateless_apply(optimizer, gradients, trainable)
        return (trainable, fixed, optimizer), value

    def _logits(self, state: Any, images: Any, batch: Any) -> Any:
        import jax

        views = [jax.numpy.flip(images[batch], axes) for axes in self.flipped_axes]
        return sum(
            self.model.stateless_call(state[0], state[1], view, training=False)[0] for view in views
        )

    def train(self, state: Any, order: Any, batch_size: int) -> tuple[Any, float]:
        """An epoch; returns the state and the last batch's loss. The last, smaller batch is left
        out, since it would be compiled apart."""
        import jax

        order = jax.device_put(order)
        for start in range(0, len(order) - batch_size + 1, batch_size):
            state, value = self._train(
                state, self.images, self.labels, order[start : start + batch_size]
            )
        return state, float(value)

    def accuracy(self, state: Any, rows: Any, batch_size: int = 1000) -> float:
        """Of the rows' images, in inference mode."""
        import numpy as np

        from scratchbook.training.loop import in_batches

        right = 0
        for batch in in_batches(rows, batch_size):
            logits = np.asarray(self._predict(state, self.images, batch))
            right += int((logits.argmax(1) == np.asarray(self.labels)[batch]).sum())
        return right / len(rows)


def measure(
    notebook: str, experiment: str, data: Path, images: int | None, epochs: int | None, peak: float,
    say: Callable[[str], None],
) -> None:  # fmt: skip
    """Trains one network and prints its row."""
    import numpy as np

    from scratchbook import models
    from scratchbook.config.project import load_notebook, load_project
    from scratchbook.data.prepare import prepare
    from scratchbook.data.rows import run_rows, sample_rows
    from scratchbook.hardware import resolve_precision
    from scratchbook.results.prepared import Prepared
    from scratchbook.training.loop import FLIPPED_AXES, epoch_order, seed_epoch
    from scratchbook.training.losses import loss_function
    from scratchbook.training.optimizers import make_optimizer, scheduled_rate

    spec = load_notebook(notebook, REPOSITORY / "config/notebooks").spec(experiment)
    total = epochs or spec["epochs"]
    dataset = load_project({"notebooks": [notebook]}, REPOSITORY).datasets[spec["dataset"]]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prepared.h5"
        prepare(spec["dataset"], dataset, data, path, say=lambda line: None)
        prepared = Prepared(path)
        rows = run_rows(spec | {"train_samples": None}, prepared, seed=0)
        pixels, labels = np.asarray(prepared.images), np.asarray(prepared.labels)
    train, validation = (
        sample_rows(labels, rows[split], min(images or len(labels), len(rows[split])), seed=0)
        for split in ("train", spec["validation"])
    )
    model = models.start(
        spec, prepared, resolve_precision("auto", on_gpu=True),
        seed=0, pretrained=data, initial_run=None,
    )  # fmt: skip
    optimizer = make_optimizer(spec["optimizer"])
    activation = models.output_activation(spec["layers"])
    model.compile(
        optimizer=optimizer,
        loss=loss_function(spec["loss"], activation, spec.get("label_smoothing", 0.0)),
    )
    optimizer.build(model.trainable_variables)
    base = float(optimizer.learning_rate.value)
    flipped_axes = FLIPPED_AXES[spec.get("test_time_flip")]
    device = OnDevice(model, pixels, labels, flipped_axes)
    seconds: list[float] = []
    reached: dict[float, int] = {}  # the epoch
    best = 0.0
    for epoch in range(1, total + 1):
        seed_epoch(model, 0, epoch)
        if spec.get("schedule"):
            optimizer.learning_rate = scheduled_rate(base, spec["schedule"], epoch, total)
        state = device.take()
        started = time.perf_counter()
        state, loss = device.train(
            state, train[epoch_order(len(train), 0, epoch)], spec["batch_size"]
        )
        seconds.append(time.perf_counter() - started)
        device.put(state)
        accuracy = device.accuracy(state, validation)
        best = max(best, accuracy)
        for mark in MARKS:
            if accuracy >= mark:
                reached.setdefault(mark, epoch)
        say(f"{experiment} epoch {epoch}/{total}  loss {loss:.4f}  val_accuracy {accuracy:.4f}  "
            f"{seconds[-1]:.2f} s")  # fmt: skip
    flops = 6 * sum(layer["multiply_adds"] for layer in models.layer_table(spec, model))
    trained = len(train) // spec["batch_size"] * spec["batch_size"]
    usual = median(seconds[1:] or seconds)
    rate = trained / usual
    marks = " | ".join(f"{reached[m] * usual:.1f}" if m in reached else "–" for m in MARKS)
    print(f"| {notebook}/{experiment} | {spec['batch_size']} | {rate:,.0f} | "
          f"{rate * flops / peak:.1%} | {seconds[0]:.1f} | {marks} | {best:.4f}, {total} |",
          flush=True)  # fmt: skip


def main() -> None:
    """Measures the networks that are asked for and prints a row each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", metavar="NOTEBOOK/EXPERIMENT", default=NETWORKS)
    parser.add_argument("--data", type=Path, default=REPOSITORY / "data", help="holds cifar10.zip")
    parser.add_argument("--images", type=int, help="of each split at most, for a trial")
    parser.add_argument("--epochs", type=int, help="instead of the experiment's own")
    options = parser.parse_args()

    import jax
    import keras

    [kind] = {device.device_kind for device in jax.devices()[:1]}
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=REPOSITORY, capture_output=True, text=True
    ).stdout.strip()
    on_cpu = jax.default_backend() == "cpu"
    peak = matrix_rate(1024 if on_cpu else 8192)
    print(f"{kind}, JAX {jax.__version__}, Keras {keras.__version__}, commit {commit}; bf16 matrix "
          f"products {peak / 1e12:.2f} TFLOP/s\n")  # fmt: skip
    columns = ["network", "batch", "images/s", "of that rate", "first epoch, s"]
    columns += [f"s to {mark}" for mark in MARKS] + ["best, epochs"]
    print(f"| {' | '.join(columns)} |\n|---|" + "---:|" * (len(columns) - 1))
    say = partial(print, file=sys.stderr, flush=True)
    for network in options.networks:
        measure(*network.split("/"), options.data, options.images, options.epochs, peak, say)


if __name__ == "__main__":
    main()
