"""Rule order_run: what a training is told in, its order out."""

from pathlib import Path

from scratchbook.console import job_log
from scratchbook.training.order import Order

with job_log(snakemake.log[0], snakemake.wildcards.run):
    Order.from_plain(snakemake.params.order).write(Path(snakemake.output[0]))
