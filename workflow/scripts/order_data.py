"""Rule order_data: what preparing is told in, the same as a file out."""

from pathlib import Path

from scratchbook.console import job_log
from scratchbook.results.files import write_json

with job_log(snakemake.log[0], snakemake.wildcards.data):
    write_json(Path(snakemake.output[0]), snakemake.params.order)
