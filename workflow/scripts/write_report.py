"""Rule write_report: all notebooks' results and figures in, the one page out."""

from pathlib import Path

from scratchbook.console import job_log
from scratchbook.report.html import write_page
from scratchbook.results.paths import Results

with job_log(snakemake.log[0], "report") as console:
    output = Path(snakemake.output[0])
    write_page(
        snakemake.params.pages,
        Results(Path(snakemake.params.results)),
        Path(snakemake.params.templates),
        output,
        command=snakemake.params.command,
        config={file: Path(file).read_text(encoding="utf-8") for file in snakemake.input.config},
        requirements=Path(snakemake.input.requirements).read_text(encoding="utf-8"),
        rules=snakemake.params.rules,
    )
    console.say(f"{output}: {output.stat().st_size / 1e6:.1f} MB; open it in a browser")
