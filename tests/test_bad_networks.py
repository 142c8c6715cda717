"""Networks, weights and sizes that cannot be: each stops with one line that says what would do."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from projects import DATASETS, make_project, run_of, scratchbook, snakemake

HEAD = """
      - GlobalAveragePooling2D
      - Dense: {units: UNITS, activation: softmax, name: predictions}
"""
FLAT = """
    layers:
      - Flatten
      - Dense: {units: 3, activation: softmax, name: predictions}
"""
FOLDED = """
    layers:
      - Conv2D: {filters: 4, kernel_size: 3, name: conv}
      - Flatten
      - Dense: {units: 3, activation: softmax, name: predictions}
"""


def notebook(**experiments: str) -> str:
    """A page of experiments, each given by its keys; HEAD ends their layers."""
    page = "goal: What stops a run?\ndataset: shapes\ndefaults: {batch_size: 8, epochs: 1}\n"
    return page + "experiments:\n" + "".join(f"  {k}:{v}" for k, v in experiments.items())


def backbone(arguments: str, units: int = 3) -> str:
    head = HEAD.replace("UNITS", str(units))
    return f"\n    layers:\n      - Backbone: {{{arguments}}}{head}"


def project_with(folder: Path, page: str) -> Path:
    project = make_project(folder / "project", page)
    (project / "config/datasets.yaml").write_text(DATASETS.replace("[12, 12]", "[32, 32]"))
    return project


def test_a_backbone_that_does_not_exist_is_named_before_anything_starts(tmp_path: Path) -> None:
    project = project_with(tmp_path, notebook(a=backbone("application: MobilNet, weights: none")))
    answer = scratchbook(project, "check")
    assert answer.returncode == 1
    assert answer.stderr.strip() == (
        "config/notebooks/halves.yaml:7: experiments.a.layers[0]: Backbone: application: unknown "
        "application 'MobilNet'; did you mean 'MobileNet'?"
    )


def test_backbones_that_cannot_be_cut_or_frozen_so_are_named_before_training(
    tmp_path: Path,
) -> None:
    page = notebook(
        thawed=backbone("application: MobileNet, weights: none, freeze: {last_trainable: 99}"),
        cut=backbone("application: MobileNet, weights: none, output_layer: conv_pw_99_relu"),
    )
    answer = scratchbook(project_with(tmp_path, page), "check")
    assert answer.returncode == 1
    thawed, cut = answer.stderr.strip().splitlines()[-2:]
    where = "config/notebooks/halves.yaml: experiments."
    assert thawed.endswith(
        f"{where}thawed.layers[0]: Backbone 'mobilenet': freeze.last_trainable is 99, but "
        "mobilenet has only 86 layers; write a smaller number, or `freeze: none`"
    )
    assert f"{where}cut.layers[0]: Backbone 'mobilenet': output_layer: mobilenet has no" in cut
    assert "'conv_pw_99_relu'; did you mean" in cut


@pytest.mark.parametrize(
    ("cam", "experiments", "said"),
    [
        ("layer: convv", {"a": FOLDED, "b": FOLDED.replace("4", "5")},
         "cam.layer: no layer 'convv'; did you mean 'conv'? (experiments.a)"),
        ("layer: predictions", {"a": FOLDED}, "cam.layer: 'predictions' has no grid "
         "(its output is (3,)); known: conv, rescale (experiments.a)"),
        ("method: hirescam", {"a": FOLDED, "b": FLAT},
         "cam: this network has no layer with a grid to explain; give it one, or write "
         "`cam: null` in the notebook, which leaves Grad-CAM out (experiments.b)"),
    ],
    ids=["no such layer", "no grid in this layer", "no grid in any layer"],
)  # fmt: skip
def test_what_grad_cam_cannot_look_at_is_named_once_before_any_training(
    tmp_path: Path, cam: str, experiments: dict[str, str], said: str
) -> None:
    page = notebook(**experiments).replace("experiments:", f"cam: {{{cam}}}\nexperiments:")
    answer = scratchbook(project_with(tmp_path, page), "check")
    assert answer.returncode == 1
    lines = [line for line in answer.stderr.splitlines() if "cam" in line]
    assert lines == [f"config/notebooks/halves.yaml: {said}"]


@pytest.mark.long
def test_what_only_the_data_and_the_weights_can_tell_stops_its_run_alone_in_one_line(
    tmp_path: Path,
) -> None:
    stored = "application: MobileNet, output_layer: conv_pw_1_relu, weights: "
    page = notebook(
        good=backbone(f"{stored}none"),
        absent=backbone(f"{stored}absent.h5"),
        truncated=backbone(f"{stored}truncated.h5"),
        other=backbone(f"{stored}other.h5"),
        batch="\n    parent: good\n    batch_size: 1000\n",
        classes=backbone(f"{stored}none", units=4),
    )
    project = project_with(tmp_path, page)
    with h5py.File(project / "data/other.h5", "w") as file:
        file["layers/dense/vars/0"] = np.zeros((500, 7), dtype=np.float32)
    whole = (project / "data/other.h5").read_bytes()
    (project / "data/truncated.h5").write_bytes(whole[: len(whole) // 2])
    runs = {name: project / "results/runs" / run_of(project, name) / "run.json" for name in
            ("good", "absent", "truncated", "other", "batch", "classes")}  # fmt: skip
    answer = snakemake(project, "--resources", "gpu=0", "--keep-going")
    assert answer.returncode != 0
    assert [name for name, run in runs.items() if run.exists()] == ["good"]
    assert "Traceback" not in answer.stderr
    said = dict(re.findall(r"^halves/(\w+) seed 0: error: (.*)$", answer.stderr, flags=re.M))
    weights = "layers[0]: Backbone 'mobilenet': weights: "
    assert said.keys() == {"absent", "truncated", "other", "batch", "classes"}
    assert said["absent"] == (
        f"{weights}there is no file data/absent.h5; put the weights of MobileNet there, or write "
        "`weights: imagenet`"
    )
    assert said["truncated"].startswith(f"{weights}data/truncated.h5 is no whole weights file")
    assert said["other"].startswith(
        f"{weights}data/other.h5 holds 3,500 parameters, but MobileNet has 3,712 up to its output"
    )
    assert said["batch"] == (
        "batch_size is 1,000, more than the 36 training images; give a smaller batch_size"
    )
    assert said["classes"] == (
        "layers[-1]: the last layer has 4 units, but the data set has 3 classes; write `units: 3`"
    )
