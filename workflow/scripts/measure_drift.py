"""Rule measure_drift: a run's maps and those of its other seeds in, how they move out."""

from pathlib import Path

from scratchbook.cam.drift import write_drift
from scratchbook.console import job_log
from scratchbook.results.paths import RunFiles

name = "{notebook}/{experiment} seed {seed}".format(**snakemake.wildcards)
with job_log(snakemake.log[0], name):
    mine, *others = (
        RunFiles(Path(file).parent) for file in [snakemake.input.maps, *snakemake.input.other_seeds]
    )
    write_drift(mine, others)
