"""Rule map_attention: a run's checkpoints in, Grad-CAM maps through its epochs out."""

import json
from pathlib import Path

from scratchbook.console import job_log
from scratchbook.hardware import keras_device

name = "{notebook}/{experiment} seed {seed}".format(**snakemake.wildcards)
with (
    job_log(snakemake.log[0], name) as console,
    keras_device(snakemake.threads, snakemake.resources.gpu > 0, console.say),
):
    from scratchbook.cam.run import map_run
    from scratchbook.data.prepared import Prepared

    run = json.loads(Path(snakemake.input.run).read_text(encoding="utf-8"))
    map_run(
        run,
        Path(snakemake.input.checkpoints),
        Prepared(snakemake.input.data),
        snakemake.params.choices,
        Path(snakemake.output[0]),
        pretrained=Path(snakemake.params.pretrained),
        initial_run=Path(snakemake.input.initial[0]) if snakemake.input.initial else None,
        say=console.say,
    )
