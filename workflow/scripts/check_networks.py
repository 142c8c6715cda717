"""Rule check_networks: builds every network of a notebook before the first one is trained."""

from pathlib import Path

from scratchbook.console import job_log
from scratchbook.hardware import prepare_keras

with job_log(snakemake.log[0], snakemake.wildcards.notebook) as console:
    prepare_keras(snakemake.threads, gpu=False)
    from scratchbook.models import check_networks
    from scratchbook.provenance import write_json

    networks = check_networks(snakemake.params.specs, snakemake.params.sizes)
    write_json(Path(snakemake.output[0]), networks)
    console.say(f"{len(networks)} networks build as declared")
