"""Rule train_run: one experiment with one seed in, weights, history, predictions, run.json out."""

from pathlib import Path

from scratchbook.bucket import kept_state
from scratchbook.console import job_log
from scratchbook.hardware import describe_hardware, keras_device, resolve_precision

notebook, experiment, seed = (
    snakemake.wildcards.notebook,
    snakemake.wildcards.experiment,
    int(snakemake.wildcards.seed),
)
with (
    job_log(snakemake.log[0], f"{notebook}/{experiment} seed {seed}") as console,
    keras_device(snakemake.params.threads, snakemake.resources.gpu > 0, console.say) as on_gpu,
    kept_state(Path(snakemake.params.state), console.say),
):
    from scratchbook.data.prepared import Prepared
    from scratchbook.training.run import RunFiles, train_run

    train_run(
        snakemake.params.spec,
        seed,
        Prepared(snakemake.input.data),
        RunFiles(
            history=Path(snakemake.output.history),
            checkpoints=Path(snakemake.output.checkpoints),
            predictions=Path(snakemake.output.predictions),
            run=Path(snakemake.output.run),
            state=Path(snakemake.params.state),
        ),
        identity={"notebook": notebook, "experiment": experiment},
        keep_epochs=snakemake.params.keep_epochs,
        precision=resolve_precision(snakemake.params.precision, on_gpu),
        hardware=describe_hardware(snakemake.params.threads, on_gpu),
        code=Path(__file__).parent,
        pretrained=Path(snakemake.params.pretrained),
        initial_run=Path(snakemake.input.initial[0]) if snakemake.input.initial else None,
        say=console.say,
        on_batch=console.progress,
    )
