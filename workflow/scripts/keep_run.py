"""Rule keep_run: a trained run in, the same run in the store out."""

from datetime import UTC, datetime
from pathlib import Path

from scratchbook.bucket import kept_by_another, put_aside_in_bucket
from scratchbook.console import job_log
from scratchbook.errors import ScratchbookError
from scratchbook.results.paths import Results, RunFiles
from scratchbook.results.store import Store, earlier_place

run = snakemake.wildcards.run
place = RunFiles(Path(snakemake.output.record).parent)
results = Results(Path(snakemake.params.results))
kept = results.run(run)
with job_log(snakemake.log[0], run) as console:
    again = results.request(run).exists()
    if again:
        put_aside_in_bucket(
            kept, lambda old: earlier_place(kept, datetime.fromisoformat(old["finished"]))
        )
    if again or not kept_by_another(kept, place, console.say):
        trained = RunFiles(Path(snakemake.input.trained))
        try:
            Store(results).keep(run, trained, place, datetime.now(UTC))
        except OSError as error:
            raise ScratchbookError(
                f"cannot write under {place.folder.parent}: {error.strerror or error}; free space "
                "there or make it writable, and start again: what was trained is kept then"
            ) from error
