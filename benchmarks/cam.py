"""Grad-CAM's speed in images/s: ours, pytorch-grad-cam and a plain GradientTape loop, side by side.

    pip install torch grad-cam && python benchmarks/cam.py [--epochs 8] [--rounds 3] [--threads 2]

Each explains 64 images in every epoch from checkpoints on disk, on `cifar10-11018058` (32 px) and
on VGG16 (96 px). A round is one whole job: what must be built or compiled, is, and every epoch's
weights are loaded. Rounds alternate between the ways, and the median round counts. In the last
epoch each of the 64 maps must agree with pytorch-grad-cam's and with the loop's (Spearman's
ρ ≥ 0.999), or nothing is printed.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

IMAGES = 64
BATCHES = (64, 1)  # of pytorch-grad-cam: its best here, and image by image as in its own example


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # PyTorch would load triton, whose copy of LLVM aborts a process that holds TensorFlow's.
    sys.modules["triton"] = None  # type: ignore[assignment]
    import tensorflow as tf
    import torch

    tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    tf.config.threading.set_inter_op_parallelism_threads(options.threads)
    torch.set_num_threads(options.threads)
    print(
        f"{IMAGES} images × {options.epochs} epochs, {options.threads} threads, "
        f"median of {options.rounds} rounds; tensorflow {tf.__version__}, torch {torch.__version__}"
    )
    print(f"{'network':<18} {'layer':<14} {'way':<22} {'images/s':>9} {'ours is':>8}")
    for name, build, layer, side in (
        ("cifar10-11018058", cifar10_11018058, "conv_256", 32),
        ("VGG16", vgg16, "block4_conv3", 96),
    ):
        speeds = measure(build, layer, side, options.epochs, options.rounds)
        for way, speed in speeds.items():
            factor = speeds["scratchbook"] / speed
            print(f"{name:<18} {layer:<14} {way:<22} {speed:>9.1f} {factor:>7.1f}×", flush=True)


def measure(
    build: Callable[[], Any], layer: str, side: int, epochs: int, rounds: int
) -> dict[str, float]:
    """Images/s of each way: median over the rounds.

    Raises:
        RuntimeError: the ways do not find the same maps.
    """
    import torch
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    images = rng.uniform(size=(IMAGES, side, side, 3)).astype(np.float32)
    model = build()
    labels = np.arange(IMAGES) % model.outputs[0].shape[-1]
    with tempfile.TemporaryDirectory() as folder:
        keras_files, torch_files = [], []
        for epoch in range(epochs):
            for weight in model.trainable_weights:
                weight.assign(weight + 0.01 * rng.normal(size=weight.shape) * np.std(weight))
            keras_files.append(Path(folder) / f"{epoch}.weights.h5")
            torch_files.append(Path(folder) / f"{epoch}.pt")
            model.save_weights(keras_files[-1])
            torch.save(torch_twin(model, layer)[0].state_dict(), torch_files[-1])
        twin, target = torch_twin(model, layer)
        ways = {
            "scratchbook": lambda: ours(build, keras_files, layer, images, labels),
            **{
                f"pytorch-grad-cam by {batch}": partial(
                    pytorch_grad_cam, twin, target, torch_files, images, labels, batch
                )
                for batch in BATCHES
            },
            "GradientTape loop": lambda: tape_loop(build, keras_files, layer, images, labels),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        found: dict[str, Any] = {}  # the maps of the last round
        for _, (way, run) in itertools.product(range(rounds), ways.items()):
            start = time.perf_counter()
            found[way] = run()
            seconds[way].append(time.perf_counter() - start)
        # What it returns in its rounds is scaled and resized; twin holds the last epoch's weights.
        raw, _ = pytorch_maps(twin, target, images, labels, "gradcam")
        for way, maps in {"pytorch-grad-cam": raw, "loop": found["GradientTape loop"]}.items():
            for mine, theirs in zip(found["scratchbook"], maps, strict=True):
                rho = spearmanr(mine, theirs, axis=None).statistic
                if not rho >= 0.999:
                    raise RuntimeError(f"a map differs from the {way}'s: Spearman's ρ is {rho:.4f}")
    return {way: IMAGES * epochs / statistics.median(times) for way, times in seconds.items()}


def ours(build: Any, files: list[Path], layer: str, images: Any, labels: Any) -> np.ndarray:
    from scratchbook.cam.maps import mapper

    model = build()
    explain = mapper(model, layer)
    for file in files:
        model.load_weights(file)
        maps, _ = explain(images, labels)
    return maps  # of the last epoch (image, h, w)


def pytorch_grad_cam(
    twin: Any,
    target: Any,
    files: list[Path],
    images: np.ndarray,
    labels: np.ndarray,
    batch_size: int,
) -> None:
    import torch
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    with GradCAM(twin, [target]) as explainer:
        for file in files:
            twin.load_state_dict(torch.load(file))
            for at in range(0, len(images), batch_size):
                chosen = slice(at, at + batch_size)
                batch = torch.from_numpy(images[chosen].transpose(0, 3, 1, 2).copy())
                explainer(batch, [ClassifierOutputTarget(int(k)) for k in labels[chosen]])


def tape_loop(build: Any, files: list[Path], layer: str, images: Any, labels: Any) -> np.ndarray:
    """The way of Keras's own Grad-CAM example, with the model of both outputs built only once."""
    import keras
    import tensorflow as tf

    model = build()
    both = keras.Model(model.inputs[0], [model.get_layer(layer).output, model.outputs[0]])
    for file in files:
        model.load_weights(file)
        maps = []
        for image, label in zip(images, labels, strict=True):
            with tf.GradientTape() as tape:
                features, logits = both(image[None])
                score = logits[:, label]
            weights = tf.reduce_mean(tape.gradient(score, features), axis=(0, 1, 2))
            maps.append(tf.squeeze(features[0] @ weights[:, None]).numpy())
    return np.stack(maps)  # of the last epoch (image, h, w)


def pytorch_maps(
    twin: Any, target: Any, images: np.ndarray, labels: np.ndarray, method: str
) -> tuple[np.ndarray, np.ndarray]:
    """pytorch-grad-cam's maps before its ReLU, scaling and resizing, and the network's logits.

    Args:
        twin, target: as `torch_twin` returns them.
        images: float32 (n, H, W, 3).
        labels: int (n,).
        method: `gradcam` or `hirescam`.

    Returns:
        maps float32 (n, h, w), logits float32 (n, classes).
    """
    import torch
    from pytorch_grad_cam import GradCAM, HiResCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    batch = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    targets = [ClassifierOutputTarget(int(label)) for label in labels]
    explainer_class = {"gradcam": GradCAM, "hirescam": HiResCAM}[method]
    with explainer_class(twin, [target]) as explainer:
        explainer(batch, targets)
        activations = explainer.activations_and_grads.activations[0].numpy()
        gradients = explainer.activations_and_grads.gradients[0].numpy()
        maps = explainer.get_cam_image(batch, target, targets, activations, gradients, False)
        return maps, explainer.outputs.detach().numpy()


def torch_twin(model: Any, layer: str) -> tuple[Any, Any]:
    """The same chain of layers and weights in PyTorch, and what is `layer` (after its ReLU) there.

    Raises:
        TypeError: a layer that has no twin here.
    """
    import torch

    modules: list[Any] = []
    target = None
    shape: tuple[int, ...] = ()  # (h, w, channels) of the last output with a grid
    for each in _chain(model):
        modules += list(_torch_modules(each, shape))
        shape = each.output.shape[1:] if len(each.output.shape) == 4 else shape
        target = modules[-1] if each.name == layer else target
    return torch.nn.Sequential(*modules).eval(), target


def _chain(model: Any) -> Iterator[Any]:
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _chain(layer)
        else:
            yield layer


def _torch_modules(layer: Any, shape: tuple[int, ...]) -> Iterator[Any]:
    from torch import from_numpy, nn

    kind = type(layer).__name__
    weights = [from_numpy(array.copy()) for array in layer.get_weights()]
    if kind == "Conv2D":
        kernel, bias = weights  # (h, w, in, out)
        conv = nn.Conv2d(*kernel.shape[2:], tuple(kernel.shape[:2]), padding=layer.padding)
        conv.weight.data, conv.bias.data = kernel.permute(3, 2, 0, 1).contiguous(), bias
        yield conv
    elif kind == "Dense":
        kernel = weights[0]  # (in, out)
        if shape and len(kernel) == np.prod(shape):  # behind Flatten: (h, w, c) becomes (c, h, w)
            kernel = kernel.reshape(*shape, -1).permute(2, 0, 1, 3).reshape(len(kernel), -1)
        dense = nn.Linear(*kernel.shape, bias=layer.use_bias)
        dense.weight.data = kernel.T.contiguous()
        if layer.use_bias:
            dense.bias.data = weights[1]
        yield dense
    elif kind == "BatchNormalization":
        norm = nn.BatchNorm1d(len(weights[0]), eps=layer.epsilon)
        norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var = weights
        yield norm
    elif kind == "MaxPooling2D":
        yield nn.MaxPool2d(layer.pool_size, layer.strides)
    elif kind == "GlobalAveragePooling2D":
        yield from (nn.AdaptiveAvgPool2d(1), nn.Flatten())
    elif kind == "Flatten":
        yield nn.Flatten()
    elif kind not in ("InputLayer", "Dropout", "Activation"):
        raise TypeError(f"no twin for {kind}")
    activation = getattr(layer, "activation", None)
    if activation is not None and activation.__name__ == "relu":
        yield nn.ReLU()
    elif activation is not None and activation.__name__ != "linear":
        raise TypeError(f"no twin for {activation.__name__}")


def cifar10_11018058() -> Any:
    """The third experiment on CIFAR-10: 11,018,058 parameters."""
    from keras import Input, Sequential, layers

    conv = {"kernel_size": 3, "padding": "same", "activation": "relu"}
    return Sequential(
        [
            Input((32, 32, 3)),
            layers.Conv2D(32, **conv),
            layers.Conv2D(64, **conv),
            layers.MaxPooling2D(),
            layers.Dropout(0.25),
            layers.Conv2D(128, **conv),
            layers.MaxPooling2D(),
            layers.Dropout(0.25),
            layers.Conv2D(256, **conv, name="conv_256"),
            layers.MaxPooling2D(),
            layers.Dropout(0.25),
            layers.Conv2D(512, **conv),
            layers.Flatten(),
            layers.Dense(1024, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(1024, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(10),
        ]
    )


def vgg16() -> Any:
    """VGG16 at 96 px under the head of the PCam notebook, with random weights."""
    from keras import Model, applications, layers

    base = applications.VGG16(include_top=False, weights=None, input_shape=(96, 96, 3))
    x = layers.Flatten()(base.output)
    x = layers.Dense(256, use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    x = layers.Activation("relu")(x)
    x = layers.Dropout(0.5)(x)
    return Model(base.inputs, layers.Dense(2)(x))


if __name__ == "__main__":
    main()
