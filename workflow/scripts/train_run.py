"""Rule train_run: one experiment with one seed in, weights, history, predictions, run.json out."""

from pathlib import Path

from scratchbook.bucket import kept_state
from scratchbook.console import job_log
from scratchbook.hardware import describe_hardware, keras_device, resolve_precision
from scratchbook.results.progress import ProgressFile

notebook, experiment, seed = (
    snakemake.wildcards.notebook,
    snakemake.wildcards.experiment,
    int(snakemake.wildcards.seed),
)
name, state = f"{notebook}/{experiment} seed {seed}", Path(snakemake.params.state)
progress = ProgressFile(Path(snakemake.params.progress), "training")
with (
    job_log(snakemake.log[0], name, progress) as console,
    keras_device(snakemake.params.threads, snakemake.resources.gpu > 0, console.say) as on_gpu,
    kept_state(state, console.say),
):
    from scratchbook.results.paths import RunFiles
    from scratchbook.results.prepared import Prepared
    from scratchbook.training.order import Order
    from scratchbook.training.run import train_run

    order = Order(
        notebook=notebook,
        experiment=experiment,
        spec=snakemake.params.spec,
        seed=seed,
        precision=resolve_precision(snakemake.params.precision, on_gpu),
        keep_epochs=snakemake.params.keep_epochs,
    )
    initial = snakemake.input.initial
    train_run(
        order,
        Prepared(snakemake.input.data),
        RunFiles(Path(snakemake.output.run).parent),
        state,
        hardware=describe_hardware(snakemake.params.threads, on_gpu),
        code=Path(__file__).parent,
        pretrained=Path(snakemake.params.pretrained),
        initial_run=RunFiles(Path(initial[0]).parent) if initial else None,
        console=console,
    )
