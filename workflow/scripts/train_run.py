"""Rule train_run: an order and prepared data in, weights, history, predictions, run.json out."""

import json
import os
from pathlib import Path

from scratchbook.bucket import kept_state
from scratchbook.console import job_log
from scratchbook.hardware import describe_hardware, keras_device
from scratchbook.results.progress import ProgressFile
from scratchbook.training.order import Order

order = Order.from_plain(json.loads(Path(snakemake.input.order).read_text(encoding="utf-8")))
os.environ["KERAS_BACKEND"] = order.backend
name, state = f"{order.notebook}/{order.experiment} seed {order.seed}", Path(snakemake.params.state)
progress = ProgressFile(Path(snakemake.params.progress), "training")
with (
    job_log(snakemake.log[0], name, progress) as console,
    keras_device(order.threads, snakemake.resources.gpu > 0, console.say) as on_gpu,
    kept_state(state, console.say),
):
    from scratchbook.results.paths import RunFiles
    from scratchbook.results.prepared import Prepared
    from scratchbook.training.run import train_run

    initial = snakemake.input.initial
    train_run(
        order,
        Prepared(snakemake.input.data),
        RunFiles(Path(snakemake.output[0])),
        state,
        hardware=describe_hardware(order.threads, on_gpu),
        code=Path(__file__).parent,
        pretrained=Path(snakemake.config["data_dir"]),
        initial_run=RunFiles(Path(initial[0]).parent) if initial else None,
        console=console,
    )
