"""Rule prepare_dataset: a declared data set in, one HDF5 file out."""

from pathlib import Path

from scratchbook.config.datasets import Dataset
from scratchbook.console import job_log
from scratchbook.data.prepare import prepare

dataset = snakemake.params.dataset
with job_log(snakemake.log[0], dataset["name"]) as console:
    prepare(
        dataset["name"],
        Dataset.model_validate(dataset["declared"]),
        Path(snakemake.config["data_dir"]),
        Path(snakemake.output[0]),
        say=console.say,
        on_progress=console.progress,
        limit=snakemake.params.limit,
        content=dataset["content"],
        index=dataset["index"],
    )
