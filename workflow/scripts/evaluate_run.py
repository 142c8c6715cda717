"""Rule evaluate_run: a run's predictions in, its metrics out."""

from pathlib import Path

from scratchbook.console import job_log
from scratchbook.evaluation import write_metrics

with job_log(snakemake.log[0], snakemake.wildcards.run):
    write_metrics(Path(snakemake.input.predictions), Path(snakemake.output[0]))
