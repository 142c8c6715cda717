"""Rule map_attention: a run's checkpoints in, Grad-CAM maps through its epochs out."""

import json
from pathlib import Path

from scratchbook.console import job_log
from scratchbook.hardware import keras_device
from scratchbook.results.progress import ProgressFile

progress = ProgressFile(Path(snakemake.params.progress), "mapping")
with (
    job_log(snakemake.log[0], snakemake.wildcards.run, progress) as console,
    keras_device(snakemake.threads, snakemake.resources.gpu > 0, console.say),
):
    from scratchbook.cam.run import map_run
    from scratchbook.results.paths import RunFiles
    from scratchbook.results.prepared import Prepared

    initial = snakemake.input.initial
    map_run(
        RunFiles(Path(snakemake.input.run).parent),
        Prepared(snakemake.input.data),
        json.loads(Path(snakemake.input.choices).read_text(encoding="utf-8")),
        Path(snakemake.output[0]),
        pretrained=Path(snakemake.config["data_dir"]),
        initial_run=RunFiles(Path(initial[0]).parent) if initial else None,
        say=console.say,
        on_epoch=console.progress,
    )
