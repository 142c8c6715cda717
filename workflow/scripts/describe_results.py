"""Rule describe_results: the page and the runs' records in, ro-crate-metadata.json out."""

import os
from pathlib import Path

from scratchbook.console import job_log
from scratchbook.crate import write_crate
from scratchbook.results.paths import Results

output = Path(snakemake.output[0])
with job_log(snakemake.log[0], "crate"):
    write_crate(
        snakemake.params.pages,
        Results(Path(os.path.relpath(snakemake.params.results, output.parent))),
        output,
        snakefile=snakemake.input.snakefile,
        trainer=snakemake.input.trainer,
        config=snakemake.input.config,
        report=os.path.relpath(snakemake.input.report, output.parent),
        licence=snakemake.params.licence,
    )
