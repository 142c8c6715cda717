"""Rule compare_experiments: a notebook's evaluated runs in, a row an experiment and a pair out."""

from pathlib import Path

from scratchbook.comparison import compare, write_comparison
from scratchbook.console import job_log
from scratchbook.results.paths import NotebookFiles, Results

with job_log(snakemake.log[0], snakemake.wildcards.notebook):
    comparison = compare(snakemake.params.page, Results(Path(snakemake.params.results)))
    write_comparison(comparison, NotebookFiles(Path(snakemake.output.experiments).parent))
