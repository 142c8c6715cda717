"""The ways to train that training.py compares, each a process of its own: a task as JSON in, a
report as JSON after each epoch out.

An epoch is all of it: gathering batches, training, validation, and whatever is written. The first
builds and traces, and is not asked for; each later one starts when a line arrives on stdin.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

import numpy as np

VALIDATION = 0.15  # of the photos
CORES = os.cpu_count() or 1


@dataclass
class Pace:
    """One epoch at a time: tells of the last one, and waits to be asked for the next."""

    answers: TextIO
    started: float = 0.0
    processor: float = 0.0

    def epoch_done(self, **told: Any) -> None:
        """Reports `seconds`, `processor_seconds` and `peak_bytes`, and what else is told.

        Raises:
            SystemExit: no further epoch is wanted.
        """
        report = {
            "seconds": time.perf_counter() - self.started,
            "processor_seconds": time.process_time() - self.processor,
            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            **told,
        }
        self.answers.write(json.dumps(report) + "\n")
        self.answers.flush()
        if not sys.stdin.readline():
            sys.exit()
        self.started, self.processor = time.perf_counter(), time.process_time()


def scratchbook_run(task: dict[str, Any], pace: Pace) -> None:
    """The function that the rule `train_run` calls, set up as its script does."""
    from scratchbook.hardware import describe_hardware, prepare_keras, resolve_precision

    on_gpu = prepare_keras(CORES, gpu=False)
    from scratchbook.results.paths import RunFiles
    from scratchbook.results.prepared import Prepared
    from scratchbook.training.order import Order, Printer
    from scratchbook.training.run import train_run

    folder = Path(task["folder"]) / "run"
    prepared = Prepared(task["prepared"])
    prepared.images = TimedReads.of(prepared.images)
    images = min(task["images"], prepared.counts["train"])
    precision = resolve_precision(task.get("precision", "auto"), on_gpu)

    class Paced(Printer):
        def say(self, line: str) -> None:
            if line.startswith("epoch "):
                seconds, TimedReads.seconds = TimedReads.seconds, 0.0
                version = f"tensorflow {metadata.version('tensorflow-cpu')}, {precision}"
                pace.epoch_done(images=images, input_seconds=seconds, version=version)

    spec = task["spec"] | {"train_samples": images, "epochs": 10_000}
    train_run(
        Order(
            key=task["case"],
            notebook="benchmark",
            experiment=task["case"],
            spec=spec,
            seed=0,
            precision=precision,
            backend="tensorflow",
            threads=CORES,
            keep_epochs={},
            data=prepared.path.stem,
        ),
        prepared,
        RunFiles(folder),
        folder / "state",
        hardware=describe_hardware(CORES, on_gpu),
        code=Path(__file__).parent,
        pretrained=Path(),
        initial_run=None,
        console=Paced(),
    )


class TimedReads(np.memmap):
    """Images on disk that add up how long reading batches of them takes."""

    seconds = 0.0

    @classmethod
    def of(cls, images: np.memmap) -> TimedReads:
        return images.view(cls)

    def __getitem__(self, rows: Any) -> np.ndarray:
        start = time.perf_counter()
        batch = np.asarray(super().__getitem__(rows))
        TimedReads.seconds += time.perf_counter() - start
        return batch


def keras_arrays(task: dict[str, Any], pace: Pace) -> None:
    """The seeds' way: all images as float32 of 0..1 in memory, and `fit` with its defaults."""
    from scratchbook.results.prepared import Prepared

    prepared = Prepared(task["prepared"])
    train, validation = prepared.indices("train"), prepared.indices("validation")
    images = prepared.images[train].astype("float32") / 255
    labels = prepared.labels[train]
    others = prepared.images[validation].astype("float32") / 255
    model = keras_network(task["spec"], images.shape[1:])
    model.fit(
        images[: task["images"]],
        labels[: task["images"]],
        batch_size=task["spec"]["batch_size"],
        epochs=10_000,
        validation_data=(others, prepared.labels[validation]),
        verbose=2,
        callbacks=[_each_epoch(pace, task["images"])],
    )


def keras_folder(task: dict[str, Any], pace: Pace) -> None:
    """`image_dataset_from_directory` and `fit`, with their defaults."""
    import keras

    side = task["side"]
    train, validation = keras.utils.image_dataset_from_directory(
        task["photos"],
        validation_split=VALIDATION,
        subset="both",
        seed=0,
        image_size=(side, side),
        batch_size=task["spec"]["batch_size"],
    )
    model = keras_network(task["spec"], (side, side, 3), scale=1 / 255)
    model.fit(
        train,
        epochs=10_000,
        validation_data=validation,
        verbose=2,
        callbacks=[_each_epoch(pace, len(train.file_paths))],
    )


def _each_epoch(pace: Pace, images: int) -> Any:
    import keras

    version = f"keras {keras.__version__}, float32"
    return keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: pace.epoch_done(images=images, version=version)
    )


def keras_network(spec: dict[str, Any], shape: tuple[int, ...], scale: float | None = None) -> Any:
    """The spec's network as a script would write it, compiled."""
    import keras

    model = keras.Sequential([keras.Input(shape)])
    if scale is not None:
        model.add(keras.layers.Rescaling(scale))
    for layer in spec["layers"]:
        model.add(getattr(keras.layers, layer["class_name"])(**layer["config"]))
    chosen = spec["optimizer"]
    arguments = {key: chosen["config"][key] for key in chosen["config"] if key != "decay"}
    model.compile(
        optimizer=getattr(keras.optimizers, chosen["class_name"])(**arguments),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def torch_float32(task: dict[str, Any], pace: Pace) -> None:
    """PyTorch with all images in memory as bytes, channels_last, in float32."""
    _torch_loop(task, pace, bf16=False)


def torch_bf16(task: dict[str, Any], pace: Pace) -> None:
    """The same under autocast to bfloat16."""
    _torch_loop(task, pace, bf16=True)


def _torch_loop(task: dict[str, Any], pace: Pace, bf16: bool) -> None:
    import torch
    from torch.nn.functional import cross_entropy

    from scratchbook.results.prepared import Prepared

    torch.set_num_threads(CORES)
    torch.manual_seed(0)
    prepared, batch_size = Prepared(task["prepared"]), task["spec"]["batch_size"]
    images = torch.from_numpy(np.array(prepared.images))  # uint8 (n, h, w, 3)
    labels = torch.from_numpy(prepared.labels)
    train = torch.from_numpy(prepared.indices("train")[: task["images"]])
    validation = torch.from_numpy(prepared.indices("validation"))
    model = torch_network(task["spec"], images.shape[1:]).to(memory_format=torch.channels_last)
    optimizer = torch_optimizer(task["spec"]["optimizer"], model)

    def logits_of(rows: Any) -> Any:
        batch = images[rows].permute(0, 3, 1, 2).float().div_(255)  # channels_last as it lies
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return model(batch).float()

    while True:
        model.train()
        loss_sum, right = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        for rows in train[torch.randperm(len(train))].split(batch_size):
            optimizer.zero_grad(set_to_none=True)
            logits = logits_of(rows)
            loss = cross_entropy(logits, labels[rows])
            loss.backward()
            optimizer.step()
            loss_sum += loss.detach() * len(rows)
            right += (logits.detach().argmax(1) == labels[rows]).sum()
        model.eval()
        with torch.inference_mode():
            for rows in validation.split(512):
                logits = logits_of(rows)
                loss_sum += cross_entropy(logits, labels[rows])
                right += (logits.argmax(1) == labels[rows]).sum()
        loss_sum.item(), right.item()
        pace.epoch_done(images=len(train), version=f"torch {torch.__version__}")


def torch_network(spec: dict[str, Any], shape: tuple[int, ...]) -> Any:
    """The spec's network in PyTorch, returning logits.

    Args:
        shape: (height, width, channels) of the images.

    Raises:
        KeyError: a layer that has no twin here.
    """
    import torch
    from torch import nn

    makers: dict[str, Callable[..., Any]] = {
        "Conv2D": lambda c: nn.LazyConv2d(
            c["filters"], c["kernel_size"], padding=c.get("padding", "valid")
        ),
        "MaxPooling2D": lambda c: nn.MaxPool2d(c.get("pool_size", 2)),
        "GlobalAveragePooling2D": lambda c: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        "Dropout": lambda c: nn.Dropout(c["rate"]),
        "Flatten": lambda c: nn.Flatten(),
        "Dense": lambda c: nn.LazyLinear(c["units"]),
        "Activation": lambda c: nn.Identity(),
    }
    activations = {"relu": nn.ReLU, "softmax": nn.Identity, "linear": nn.Identity}
    modules: list[Any] = []
    for layer in spec["layers"]:
        config = layer["config"]
        modules.append(makers[layer["class_name"]](config))
        modules.append(activations[config.get("activation", "linear")]())
    model = nn.Sequential(*(each for each in modules if not isinstance(each, nn.Identity)))
    height, width, channels = shape
    with torch.no_grad():
        model.eval()(torch.zeros(1, channels, height, width))  # gives lazy layers their shapes
    return model


def torch_optimizer(entry: dict[str, Any], model: Any) -> Any:
    """Adam or SGD of a spec, fused into one kernel."""
    import torch

    config = entry["config"]
    if entry["class_name"] == "Adam":
        return torch.optim.Adam(model.parameters(), config["learning_rate"], fused=True)
    return torch.optim.SGD(
        model.parameters(),
        config["learning_rate"],
        momentum=config.get("momentum", 0.0),
        nesterov=config.get("nesterov", False),
        fused=True,
    )


def convolution_rate(task: dict[str, Any], pace: Pace) -> None:
    """What this machine multiplies: the fastest of some forward convolutions in bfloat16, 3×3 and
    `same`, each for half a second. Reports `flops`: operations a second, a multiplication and an
    addition counted as two."""
    from scratchbook.hardware import prepare_keras

    prepare_keras(CORES, gpu=False)
    import tensorflow as tf

    convolve = tf.function(lambda x, k: tf.nn.conv2d(x, k, 1, "SAME"))
    shapes = [(512, 16, 64, 128), (512, 8, 128, 256), (64, 56, 64, 64), (128, 28, 128, 128)]
    operands = {
        (batch, side, before, after): (
            tf.cast(tf.random.normal((batch, side, side, before)), tf.bfloat16),
            tf.cast(tf.random.normal((3, 3, before, after)), tf.bfloat16),
        )
        for batch, side, before, after in shapes
    }
    while True:
        rates = []
        for (batch, side, before, after), (images, kernel) in operands.items():
            flops = 2 * 9 * batch * side * side * before * after
            convolve(images, kernel)
            start, count = time.perf_counter(), 0
            while (elapsed := time.perf_counter() - start) < 0.5:
                convolve(images, kernel)[0, 0, 0, 0].numpy()
                count += 1
            rates.append(flops * count / elapsed)
        pace.epoch_done(images=0, flops=max(rates))


WAYS = {
    way.__name__: way
    for way in (
        scratchbook_run,
        keras_arrays,
        keras_folder,
        torch_float32,
        torch_bf16,
        convolution_rate,
    )
}


def main() -> None:
    """`python training_ways.py WAY`, the task on the first line of stdin."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print goes another way
    task = json.loads(sys.stdin.readline())
    WAYS[sys.argv[1]](task, Pace(answers, time.perf_counter(), time.process_time()))


if __name__ == "__main__":
    main()
