"""Facts that decide how fast things are and that no busy machine can blur: what each stage imports,
how often TensorFlow traces, which bytes an epoch reads. No test here looks at a clock."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scratchbook import models
from scratchbook.models.kernels import layer_class
from test_training import SPEC, Data, data, train  # noqa: F401 (a fixture)

SCRIPTS = Path(__file__).parent.parent / "workflow/scripts"
KERAS = {"keras", "tensorflow", "jax", "torch"}
LARGE = KERAS | {"scipy", "scipy.stats", "sklearn", "pandas", "matplotlib", "statsmodels"}


def large_imports(script: str, *, keras: bool = False) -> set[str]:
    """The large packages that a process has loaded once it has all that a script imports."""
    lines = ["import sys"]
    if keras:
        lines.append("from scratchbook.hardware import prepare_keras; prepare_keras(1, gpu=False)")
    tree = ast.parse((SCRIPTS / script).read_text(encoding="utf-8"))
    lines += [ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    lines.append(f"print(*({LARGE!r} & sys.modules.keys()))")
    answer = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True
    )
    return set(answer.stdout.split())


@pytest.mark.parametrize(
    ("script", "allowed"),
    [
        ("prepare_dataset.py", set()),
        ("evaluate_run.py", set()),
        ("measure_drift.py", {"scipy", "scipy.stats", "pandas"}),
        ("compare_experiments.py", {"scipy", "pandas"}),
        ("write_notebook.py", {"scipy", "pandas", "matplotlib"}),
        ("write_report.py", {"scipy", "pandas"}),
        ("describe_results.py", set()),
    ],
)
def test_a_stage_without_a_network_imports_no_large_package_but_those_it_works_with(
    script: str, allowed: set[str]
) -> None:
    assert large_imports(script) <= allowed


def test_training_imports_neither_scikit_learn_nor_pandas_nor_matplotlib() -> None:
    loaded = large_imports("train_run.py", keras=True)
    assert "keras" in loaded
    assert not loaded & {"sklearn", "pandas", "matplotlib", "statsmodels"}


def test_what_keras_does_without_can_be_imported_afterwards() -> None:
    lines = (
        "from scratchbook.hardware import prepare_keras; prepare_keras(1, gpu=False); "
        "import pandas, sklearn.metrics, matplotlib.pyplot; "
        "print(pandas.DataFrame({'a': [1]}).a[0])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", lines], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "1"


def test_an_epoch_reads_each_of_its_images_once(
    tmp_path: Path,
    data: Data,  # noqa: F811
) -> None:
    reads: list[int] = []
    epochs: list[int] = []

    class Watched(np.ndarray):
        def __getitem__(self, rows: Any) -> np.ndarray:
            batch = np.asarray(self)[rows]
            reads.append(batch.nbytes)
            return batch

    class Lines(list[str]):
        def append(self, line: str) -> None:
            super().append(line)
            if line.startswith("epoch "):
                epochs.append(sum(reads))
                reads.clear()

    image = data.images.nbytes // len(data.images)
    data.images = data.images.view(Watched)
    train(tmp_path, data, SPEC, lines=Lines())
    assert epochs == [50 * image] * SPEC["epochs"]  # 40 to train on, 10 to validate with


@pytest.mark.parametrize(("batch_size", "traces"), [(20, 1), (16, 2)])
def test_training_is_traced_once_and_once_more_where_the_last_batch_is_smaller(
    tmp_path: Path,
    data: Data,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    batch_size: int,
    traces: int,
) -> None:
    import keras

    if keras.backend.backend() == "torch":
        pytest.skip("Keras traces nothing on torch")
    training: list[bool] = []
    start = models.start

    def watched(*given: Any, **named: Any) -> Any:
        model = start(*given, **named)
        call = model.call

        def counted(*inputs: Any, **options: Any) -> Any:  # runs only while Keras traces
            training.append(bool(options.get("training")))
            return call(*inputs, **options)

        monkeypatch.setattr(model, "call", counted)
        return model

    monkeypatch.setattr(models, "start", watched)
    train(tmp_path, data, SPEC | {"batch_size": batch_size})  # of 40 images
    assert training.count(True) == traces


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_adam_in_one_kernel_steps_as_keras_defines_it(decay: float, amsgrad: bool) -> None:
    import keras

    from scratchbook.training.optimizers import make_optimizer

    config = {"learning_rate": 0.05, "beta_1": 0.8, "epsilon": 1e-3, "amsgrad": amsgrad}
    ours = make_optimizer({"class_name": "Adam", "config": {**config, "decay": decay}})
    theirs = keras.optimizers.Adam(**config)
    rng = np.random.default_rng(0)
    mine, other = (keras.Variable(np.linspace(-1, 1, 37)) for _ in range(2))
    for step in range(5):
        gradient = keras.ops.convert_to_tensor(rng.normal(size=37), dtype="float32")
        theirs.learning_rate = 0.05 / (1 + decay * step)
        ours.apply([gradient], [mine])
        theirs.apply([gradient], [other])
    np.testing.assert_allclose(np.asarray(mine), np.asarray(other), rtol=0, atol=1e-5)


def test_adam_takes_one_operation_a_weight() -> None:
    import keras
    import tensorflow as tf

    from scratchbook.training.optimizers import make_optimizer

    if keras.backend.backend() != "tensorflow":
        pytest.skip("the kernel is TensorFlow's")
    optimizer = make_optimizer({"class_name": "Adam", "config": {"learning_rate": 0.1}})
    weights = [keras.Variable(np.zeros(shape, dtype=np.float32)) for shape in ((3, 4), (4,))]
    optimizer.build(weights)

    @tf.function
    def step() -> None:
        optimizer.apply([tf.ones((3, 4)), tf.ones(4)], weights)

    kinds = [operation.type for operation in step.get_concrete_function().graph.get_operations()]
    assert kinds.count("ResourceApplyAdam") == 2
    assert "Sqrt" not in kinds


@pytest.mark.parametrize(
    ("side", "precision", "convolved"),
    [(4, "mixed_bfloat16", False), (5, "mixed_bfloat16", True), (4, "float32", True)],
)
def test_on_a_map_of_few_pixels_the_gradient_of_a_kernel_is_a_product_of_matrices(
    side: int, precision: str, convolved: bool
) -> None:
    import keras
    import tensorflow as tf

    if keras.backend.backend() != "tensorflow":
        pytest.skip("the operations are TensorFlow's")
    if tf.config.get_visible_devices("GPU"):
        pytest.skip("a GPU has a convolution of its own for every map")
    layer = layer_class("Conv2D")(4, 3, padding="same", dtype=precision)
    layer.build((None, side, side, 2))

    @tf.function
    def gradient() -> tf.Tensor:
        with tf.GradientTape() as tape:
            outputs = layer(tf.ones((3, side, side, 2)))
        return tape.gradient(outputs, layer.kernel.value)

    graph = gradient.get_concrete_function().graph
    kinds = {operation.type for operation in graph.get_operations()}
    assert ("Conv2DBackpropFilter" in kinds) == convolved
    assert ("MatMul" in kinds) != convolved
