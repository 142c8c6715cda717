"""Rule prepare_dataset: a declared data set in, one HDF5 file out."""

import json
from pathlib import Path

from scratchbook.config.datasets import Dataset
from scratchbook.console import job_log
from scratchbook.data.prepare import prepare

order = json.loads(Path(snakemake.input.order).read_text(encoding="utf-8"))
with job_log(snakemake.log[0], order["name"]) as console:
    prepare(
        order["name"],
        Dataset.model_validate(order["declared"]),
        Path(snakemake.config["data_dir"]),
        Path(snakemake.output[0]),
        say=console.say,
        on_progress=console.progress,
        limit=order["limit"],
        content=order["content"],
        index=order["index"],
    )
