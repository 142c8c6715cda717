"""Rule measure_drift: a run's maps and those of its other seeds in, how they move out."""

from pathlib import Path

from scratchbook.cam.drift import write_drift
from scratchbook.console import job_log

name = "{notebook}/{experiment} seed {seed}".format(**snakemake.wildcards)
with job_log(snakemake.log[0], name):
    write_drift(
        Path(snakemake.input.maps),
        Path(snakemake.output[0]),
        [Path(file) for file in snakemake.input.other_seeds],
    )
