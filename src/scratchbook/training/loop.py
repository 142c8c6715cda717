"""The training loop: a network and arrays in, one saved epoch after another out, each of which is a
pure function of (seed, epoch) and the weights that it starts from."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from scratchbook.console import duration
from scratchbook.errors import ScratchbookError
from scratchbook.keys import with_frozen
from scratchbook.results.files import sha256_file, try_room
from scratchbook.results.hdf5 import HDF5_OVERHEAD
from scratchbook.results.records import Epoch
from scratchbook.specs import KerasObject

from .build import Setup, count_bytes
from .optimizers import scheduled_rate
from .order import Listener
from .state import RunState, Snapshot, readable_write_errors


def train(
    setup: Setup, state: RunState, snapshot: Snapshot, begun: float, console: Listener
) -> None:
    """Trains from where a snapshot is to the last epoch, or to the one where a callback stops.

    Args:
        state: takes each epoch's snapshot, and the weights that are kept.
        snapshot: is brought up to date with each epoch.
        begun: when the run would have begun, had it never been interrupted; by `perf_counter`.

    A loss that becomes NaN or infinite ends the training: the run diverged, and is what it was
    after the last whole epoch.

    Raises:
        ScratchbookError: the state cannot be written.
    """
    spec, seed, model, rows = setup.order.spec, setup.order.seed, setup.model, setup.rows
    images, labels = setup.prepared.images, setup.prepared.labels  # (n, h, w, 3), (n,)
    train_rows, validation_rows = rows["train"], rows[spec["validation"]]  # (m,), (k,)
    epochs, batch_size = spec["epochs"], spec["batch_size"]
    steps = math.ceil(len(train_rows) / batch_size)
    callbacks = replayed_callbacks(spec["callbacks"], model, snapshot.history)
    console.tell(epoch=snapshot.epoch, epochs=epochs, done=0, total=steps)
    while snapshot.epoch < epochs and not snapshot.stopped:
        epoch = snapshot.epoch + 1
        if schedule := spec.get("schedule"):
            model.optimizer.learning_rate = scheduled_rate(setup.base_rate, schedule, epoch, epochs)
        learning_rate = float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))

        clock = time.perf_counter()
        seed_epoch(model, seed, epoch)
        shuffled = train_rows[epoch_order(len(train_rows), seed, epoch)]  # (m,)
        loss = accuracy = 0.0  # sums over the images, while the weights change
        for step, batch in enumerate(in_batches(shuffled, batch_size), start=1):
            # The metrics are reset with each call: these are means over this batch alone.
            logs = model.train_on_batch(images[batch], labels[batch, None], return_dict=True)
            loss += float(logs["loss"]) * len(batch)
            accuracy += float(logs["accuracy"]) * len(batch)
            if not math.isfinite(loss):
                console.say(
                    f"the loss became {float(logs['loss'])} in epoch {epoch}, batch {step} of "
                    f"{steps}: the run diverged; a lower learning rate is the usual cure"
                )
                snapshot.diverged, snapshot.stopped = epoch, True
                break
            console.progress(step, steps)
        snapshot.training_seconds += time.perf_counter() - clock
        training_seconds = time.perf_counter() - clock
        if snapshot.diverged is None:
            logits = predict_logits(model, images, validation_rows, spec.get("test_time_flip"))
            if not np.isfinite(logits).all():
                console.say(
                    f"after epoch {epoch} the answers are no numbers: the run diverged; a lower "
                    "learning rate is the usual cure"
                )
                snapshot.diverged, snapshot.stopped = epoch, True
        if snapshot.diverged is not None:
            end_where_it_was_whole(setup, state, snapshot, begun)
            return

        val_loss, val_accuracy = measure(setup.loss, logits, labels[validation_rows])
        row = Epoch(
            epoch=epoch, loss=loss / len(shuffled), accuracy=accuracy / len(shuffled),
            val_loss=val_loss + penalty(model), val_accuracy=val_accuracy,
            learning_rate=learning_rate, seconds=time.perf_counter() - clock,
        )  # fmt: skip
        for callback in callbacks:
            callback.on_epoch_end(epoch - 1, dict(row))

        snapshot.epoch, snapshot.stopped = epoch, model.stop_training
        snapshot.history.append(row)
        save(setup, state, snapshot, begun)
        tell(console, snapshot.history, epochs, steps, len(shuffled) / max(training_seconds, 1e-9))


def end_where_it_was_whole(setup: Setup, state: RunState, snapshot: Snapshot, begun: float) -> None:
    """Brings a run that diverged back to its last whole epoch, if there is one, and saves that as
    its last."""
    if (held := state.load()) is None:
        return
    before, arrays = held
    if before.epoch != snapshot.epoch:
        raise ScratchbookError(
            f"the run diverged, and its last state in {state.folder} is damaged; start again: it "
            "goes on from the epoch before"
        )
    for variable, value in zip(setup.variables, arrays, strict=True):
        variable.assign(value)
    save(setup, state, snapshot, begun)


def seed_epoch(model: keras.Model, seed: int, epoch: int) -> None:
    """Sets the state of every random generator in the model (dropout, augmentation) for an epoch.

    Generators otherwise go on from wherever the process left them, which a resumed run cannot know.
    """
    position = 0
    for layer in model._flatten_layers(include_self=False):  # nested models' too
        generator = getattr(layer, "seed_generator", None) or getattr(layer, "generator", None)
        if isinstance(generator, keras.random.SeedGenerator):
            state = np.random.default_rng([seed, epoch, position]).integers(2**31, size=2)
            generator.state.assign(state.astype(generator.state.dtype))
            position += 1


def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order of the training images in an epoch: a permutation of range(n), int64.

    A pure function of (seed, epoch). Keras's own `shuffle=True` repeats one permutation every
    epoch on TensorFlow, once a random seed was set.
    """
    return np.random.default_rng([seed, epoch]).permutation(n)


def in_batches(rows: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """`rows` (m,) in consecutive pieces of `batch_size`; the last may be smaller."""
    for start in range(0, len(rows), batch_size):
        yield rows[start : start + batch_size]


FLIPPED_AXES: dict[str | None, list[tuple[int, ...]]] = {  # of images (n, height, width, 3)
    None: [()],
    "horizontal": [(), (2,)],
    "vertical": [(), (1,)],
    "horizontal_and_vertical": [(), (1,), (2,), (1, 2)],
}


def predict_logits(
    model: keras.Model,
    images: np.ndarray,
    rows: np.ndarray,
    test_time_flip: str | None = None,
    batch_size: int = 256,
) -> np.ndarray:
    """The network's logits of `rows` of the images, in inference mode: float32 (m, units).

    With `test_time_flip`, the mean of the logits of an image and of its mirror images.
    """
    parts = []
    for batch in in_batches(rows, batch_size):
        pixels = images[batch]
        logits = [
            model.predict_on_batch(np.flip(pixels, axes)) for axes in FLIPPED_AXES[test_time_flip]
        ]
        parts.append(np.mean(np.asarray(logits, dtype=np.float32), axis=0))  # (b, units)
    return np.concatenate([np.empty((0, model.output.shape[-1]), dtype=np.float32), *parts])


def measure(loss: Any, logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Loss and accuracy of logits (m, units) against integer labels (m,), by the definitions that
    the training itself uses, but for what regularizers add. Logits that are no numbers answer
    nothing, so they are wrong."""
    predicted = logits.argmax(axis=1) if logits.shape[1] > 1 else logits[:, 0] > 0
    right = (predicted == labels) & np.isfinite(logits).all(axis=1)
    value = keras.ops.convert_to_numpy(loss(labels[:, None], logits))
    return float(np.mean(value)), float(np.mean(right))


def penalty(model: keras.Model) -> float:
    """What the regularizers add to the loss of any batch."""
    of_weights = (v.regularizer(v) for v in model.trainable_variables if v.regularizer is not None)
    return float(sum(keras.ops.convert_to_numpy(added) for added in of_weights))


def replayed_callbacks(
    declared: Sequence[KerasObject], model: keras.Model, history: Sequence[Epoch]
) -> list[keras.callbacks.Callback]:
    """The declared Keras callbacks, brought to where they were by replaying the history.

    Each epoch is replayed at its own learning rate: ReduceLROnPlateau counts on otherwise once the
    rate has come down to its `min_lr`.
    """
    callbacks = []
    restored_rate = keras.ops.convert_to_numpy(model.optimizer.learning_rate)
    model.stop_training = False
    for entry in declared:
        config = with_frozen(entry)
        if config["mode"] == "auto":  # Keras would ask the metrics, which a first batch builds
            config["mode"] = "max" if config["monitor"].endswith("accuracy") else "min"
        callback = getattr(keras.callbacks, entry["class_name"])(**config)
        callback.set_model(model)
        callback.on_train_begin()
        callbacks.append(callback)
    for row in history:
        model.optimizer.learning_rate.assign(row["learning_rate"])
        for callback in callbacks:
            callback.on_epoch_end(row["epoch"] - 1, dict(row))
    if history:
        model.optimizer.learning_rate.assign(restored_rate)
    return callbacks


def save(setup: Setup, state: RunState, snapshot: Snapshot, begun: float) -> None:
    """Writes the state after an epoch, before it the weights if they are to be kept, and drops the
    weights that need be no longer."""
    epoch, model, before = snapshot.epoch, setup.model, set(snapshot.checkpoints)
    wanted = {snapshot.best_epoch, *(setup.order.keep_epochs.keys() & range(1, epoch + 1))}
    if epoch == setup.order.spec["epochs"] or snapshot.stopped:
        wanted.add(epoch)
    with readable_write_errors(state.folder):
        if epoch in wanted:
            file = state.files.checkpoint(epoch)
            size = count_bytes(model.variables) + HDF5_OVERHEAD * (1 + len(model.variables))
            try_room(file, size)
            setup.bare_model.save_weights(file)
            snapshot.checkpoints[epoch] = sha256_file(file)
        snapshot.checkpoints = {e: d for e, d in snapshot.checkpoints.items() if e in wanted}
        snapshot.wall_seconds = time.perf_counter() - begun
        values = (keras.ops.convert_to_numpy(variable) for variable in setup.variables)
        state.save(snapshot, [np.asarray(value) for value in values])
        state.keep_only(before | wanted)  # the state before this one has those before


def tell(console: Listener, history: Sequence[Epoch], epochs: int, steps: int, rate: float) -> None:
    """Says how the last epoch went, at `rate` images/s, and how long the others take by median."""
    row, seconds = history[-1], sorted(row["seconds"] for row in history)
    epoch_seconds = seconds[len(seconds) // 2]
    left = (epochs - row["epoch"]) * epoch_seconds
    console.tell(
        epoch=row["epoch"], epochs=epochs, done=0, total=steps,
        figures={
            "loss": row["loss"], "accuracy": row["accuracy"], "val_loss": row["val_loss"],
            "val_accuracy": row["val_accuracy"], "learning_rate": row["learning_rate"],
        },
        images_per_second=rate, seconds_left=left, epoch_seconds=epoch_seconds,
    )  # fmt: skip
    console.say(
        f"epoch {row['epoch']}/{epochs}  loss {row['loss']:.4f}  "
        f"accuracy {row['accuracy']:.3f}  val_loss {row['val_loss']:.4f}  "
        f"val_accuracy {row['val_accuracy']:.3f}  {rate:,.0f} images/s  "
        f"{duration(left)} left"
    )
