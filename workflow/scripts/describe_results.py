"""Rule describe_results: the page and the runs' records in, ro-crate-metadata.json out."""

from pathlib import Path

from scratchbook.console import job_log
from scratchbook.crate import write_crate

with job_log(snakemake.log[0], "crate"):
    write_crate(
        snakemake.params.pages,
        snakemake.params.results,
        Path(snakemake.output[0]),
        snakefile=snakemake.input.snakefile,
        trainer=snakemake.input.trainer,
        config=snakemake.input.config,
        report=snakemake.input.report,
        licence=snakemake.params.licence,
    )
