import contextlib
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

# This checkout, wherever Snakemake was started and whichever Snakefile is the main one.
CHECKOUT = snakefile_folder().parent
# Its package, here and in the jobs' scripts, whatever is installed: the code that is run is the
# code whose edits are noticed.
SOURCE = str(CHECKOUT / "src")
sys.path.insert(0, SOURCE)
os.environ.update(
    PYTHONPATH=os.pathsep.join([SOURCE, os.getenv("PYTHONPATH", "")]).rstrip(os.pathsep)
)
# Where Python may leave no bytecode, each job compiles all of TensorFlow anew: 6 of its 10 s.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

from scratchbook import bucket
from scratchbook.config.code import code_hash
from scratchbook.errors import ScratchbookError
from scratchbook.config.project import load_project
from scratchbook.config.strict import NAME_PATTERN
from scratchbook.data.location import fingerprint
from scratchbook.models.weights import weights_files
from scratchbook.results.files import write_text
from scratchbook.results.paths import Results
from snakemake.exceptions import WorkflowError

# Relative, so that moving the folder changes no job's inputs.
ROOT = Path(os.path.relpath(CHECKOUT))
NAME = NAME_PATTERN.strip("^$")
WILDCARDS = ("{notebook}", "{experiment}", "{seed}")

try:
    # A job in a process of its own reads no more notebooks than it needs: the first process has
    # checked them all.
    PROJECT = load_project(config, whole=is_first_process())
    PROJECT.check_results()
except ScratchbookError as error:
    raise WorkflowError(str(error))

RESULTS = PROJECT.results
# Whose paths are patterns, each name a wildcard.
RUN = RESULTS.run(*WILDCARDS)
NOTEBOOK = RESULTS.notebook("{notebook}")
REPORT = str(RESULTS.report) if PROJECT.settings.smoke else "report.html"
PARTIAL = Path(REPORT).with_suffix(".partial.html")
# In the folder that holds all it describes; a smoke run is no result to describe.
CRATE = "ro-crate-metadata.json"
TARGETS = [REPORT] if PROJECT.settings.smoke else [REPORT, CRATE]
KEEPING = contextlib.ExitStack()


def stage_code(script):
    """The sha256 of the package's files that a stage runs: editing one re-runs the stage. As a
    param, since Snakemake looks at each input of each job again and again."""
    return code_hash(ROOT / "workflow/scripts" / script, ROOT / "src/scratchbook")


def reach_bucket():
    """Tells jobs of the bucket that a profile names, and learns from it what other checkouts did."""
    os.environ.pop(bucket.VARIABLE, None)
    place = default_storage()
    if place is None:
        return
    os.environ[bucket.VARIABLE] = bucket.describe_bucket(*place)
    if is_first_process():
        try:
            bucket.fetch_records(*SNAKEMAKE_RECORDS, RESULTS.records)
        except Exception as error:
            raise WorkflowError(f"cannot read from {place[1]}: {error}")


def keep_records():
    """Copies Snakemake's records to the bucket, if there is one, until `KEEPING` is closed."""
    if bucket.VARIABLE in os.environ:
        KEEPING.enter_context(
            bucket.kept_records(*SNAKEMAKE_RECORDS, RESULTS.records, say)
        )


def check_networks():
    """Builds every network before the first job, unless these very ones were built before."""
    trials = [PROJECT.trial(name) for name in PROJECT.notebooks]
    key = hashlib.sha256(
        repr([trials, stage_code("train_run.py")]).encode()
    ).hexdigest()
    stamp = RESULTS.networks_checked
    if stamp.is_file() and stamp.read_text() == key:
        return
    command = [sys.executable, "-m", "scratchbook.cli", "check", *PROJECT.notebooks]
    answer = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if answer.returncode:
        raise WorkflowError(answer.stderr.strip())
    try:
        write_text(stamp, key)
    except OSError as error:
        raise WorkflowError(f"cannot write under {stamp.parent}: {error.strerror}")


def write_partial_page():
    """Shows what is there when some runs failed; the workflow's exit code stays an error."""
    results = Results(Path(in_bucket(str(RESULTS.folder))))
    if not any(run.record.exists() for run in results.runs()):
        return
    from scratchbook.report import partial

    partial.write_partial_page(
        all_pages(None), results, ROOT / "report", PARTIAL, PROJECT.command()
    )
    print(f"{PARTIAL}: the page of what is there", file=sys.stderr)


def remove_partial_page():
    """Where a whole page was made since, it has taken its place."""
    page = Path(in_bucket(REPORT))
    if (
        page.exists()
        and PARTIAL.exists()
        and page.stat().st_mtime > PARTIAL.stat().st_mtime
    ):
        PARTIAL.unlink()


def dataset_source(wildcards):
    """A fingerprint of the data set's source, so that other data under its name are noticed."""
    try:
        return fingerprint(
            PROJECT.datasets[wildcards.dataset], Path(PROJECT.settings.data_dir)
        )
    except ScratchbookError as error:
        raise WorkflowError(str(error))


def dataset_of(wildcards):
    """The prepared data of a notebook."""
    return RESULTS.data(PROJECT.notebooks[wildcards.notebook].dataset)


def run_spec(wildcards):
    """What determines an experiment's runs; what was recorded of them does not."""
    spec = PROJECT.spec(wildcards.notebook, wildcards.experiment)
    return {key: spec[key] for key in spec if not key.startswith("recorded_")}


def initial_run(wildcards):
    """The run whose weights a run starts from, with its checkpoints; none for most."""
    start = run_spec(wildcards).get("initial_weights")
    if start is None:
        return []
    run = RESULTS.run(wildcards.notebook, start["experiment"], wildcards.seed)
    return [run.record, run.checkpoints]


def pretrained_files(wildcards):
    """The weights files, of those that an experiment's backbones start from, that are there."""
    layers = run_spec(wildcards)["layers"]
    return [
        of_checkout(file)
        for file in weights_files(layers, Path(PROJECT.settings.data_dir))
    ]


def pretrained_folder(wildcards):
    """Where an experiment's pretrained weights are to lie; the same for all that have none."""
    layers = run_spec(wildcards)["layers"]
    reads = any(
        layer["class_name"] == "Backbone" and layer["config"]["weights"] != "none"
        for layer in layers
    )
    return PROJECT.settings.data_dir if reads else "."


def run_threads(wildcards):
    """CPU threads of an experiment's trainings."""
    return PROJECT.threads(wildcards.notebook, wildcards.experiment)


def kept_epochs(wildcards):
    """The epochs that Grad-CAM or a warm start asks for by number, each with what it is for."""
    return PROJECT.kept_epochs(wildcards.notebook, wildcards.experiment)


def cam_choices(wildcards):
    """What Grad-CAM is to look at."""
    return PROJECT.cam(wildcards.notebook)


def maps_of_other_seeds(wildcards):
    """The experiment's maps under its other seeds, for drift to be held against."""
    return [
        RESULTS.run(wildcards.notebook, wildcards.experiment, seed).cam
        for seed in PROJECT.seeds(wildcards.notebook)
        if str(seed) != wildcards.seed
    ]


def runs_of(notebook):
    """The files of every run of a notebook."""
    return [
        RESULTS.run(notebook, experiment, seed)
        for experiment in PROJECT.notebooks[notebook].experiments
        for seed in PROJECT.seeds(notebook)
    ]


def evaluated_runs(wildcards):
    """What comparing a notebook's experiments reads."""
    return [
        file
        for run in runs_of(wildcards.notebook)
        for file in (run.record, run.history, run.predictions, run.metrics)
    ]


def mapped_runs(wildcards):
    """The Grad-CAM files of a notebook's runs; none if the notebook does not ask for them."""
    if PROJECT.notebooks[wildcards.notebook].cam is None:
        return []
    runs = runs_of(wildcards.notebook)
    return [file for run in runs for file in (run.cam, run.drift)]


def compared_tables():
    """The comparisons of all notebooks."""
    return [
        table
        for files in map(RESULTS.notebook, PROJECT.notebooks)
        for table in (files.compare, files.comparisons)
    ]


def shown_results(_wildcards):
    """What the page and the crate tell of all notebooks' runs."""
    each = [SimpleNamespace(notebook=name) for name in PROJECT.notebooks]
    data = sorted({dataset_of(notebook) for notebook in each})
    return data + [
        file
        for notebook in each
        for file in evaluated_runs(notebook) + mapped_runs(notebook)
    ]


def template_files():
    """The page's templates and styles: editing one renders the page anew."""
    return [of_checkout(path) for path in sorted((ROOT / "report").glob("*.*"))]


def catalogs():
    """The translations of what the page says, in another language than English."""
    language = PROJECT.settings.language
    if language == "en":
        return []
    return of_checkout(
        ROOT / f"src/scratchbook/locale/{language}/LC_MESSAGES/scratchbook.po"
    )


def config_files():
    """What was declared; the page shows it."""
    notebooks = [f"config/notebooks/{name}.yaml" for name in PROJECT.notebooks]
    files = ["config/config.yaml", "config/datasets.yaml", *notebooks]
    return [of_checkout(file) for file in files]


def licence_file():
    """The licence of the code, where it lies in the project."""
    file = ROOT / "LICENSE"
    return str(file) if file.exists() else None


def trial_of(wildcards):
    """What a notebook tries, without its words."""
    return PROJECT.trial(wildcards.notebook)


def page_of(wildcards):
    """A notebook's page as declared."""
    return PROJECT.page(wildcards.notebook)


def all_pages(_wildcards):
    """The pages of all notebooks."""
    return [PROJECT.page(name) for name in PROJECT.notebooks]


def rule_graph(_wildcards):
    """The names of the rules whose outputs each one reads."""
    return rules_read_from(TARGETS)


reach_bucket()
