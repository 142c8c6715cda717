"""Rule write_notebook: a notebook's results in, notebook.md and its figures out."""

from pathlib import Path

from scratchbook.console import job_log
from scratchbook.report.chapter import write_chapter
from scratchbook.results.paths import Results

with job_log(snakemake.log[0], snakemake.wildcards.notebook):
    write_chapter(
        snakemake.params.page,
        Results(Path(snakemake.params.results)),
        processes=snakemake.threads,
    )
