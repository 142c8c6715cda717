import contextlib
import contextvars
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
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
from scratchbook.keys import KEY_PATTERN, RUN_PATTERN, cam_key
from scratchbook.models.weights import weights_files
from scratchbook.plan import Plan
from scratchbook.results.files import write_text
from scratchbook.results.paths import Results
from scratchbook.results.store import Store
from snakemake.exceptions import WorkflowError

# Relative, so that moving the folder changes no job's inputs.
ROOT = Path(os.path.relpath(CHECKOUT))
NAME = NAME_PATTERN.strip("^$")

try:
    # A job in a process of its own reads its order and no notebook: the first process has read and
    # checked them all.
    PROJECT = load_project(config, whole=is_first_process())
    PROJECT.check_results()
except ScratchbookError as error:
    raise WorkflowError(str(error))

# Scripts read it here: as a param of their rules, moving the data would make all anew.
config["data_dir"] = PROJECT.settings.data_dir
RESULTS = PROJECT.results
# Whose paths are patterns, each name a wildcard.
RUN = RESULTS.run("{run}")
NOTEBOOK = RESULTS.notebook("{notebook}")
REPORT = str(RESULTS.report) if PROJECT.settings.smoke else "report.html"
PARTIAL = Path(REPORT).with_suffix(".partial.html")
# In the folder that holds all it describes; a smoke run is no result to describe.
CRATE = "ro-crate-metadata.json"
RECORDS = RESULTS.folder / "records.tar.gz"  # in a bucket, a copy of Snakemake's
TARGETS = [REPORT] if PROJECT.settings.smoke else [REPORT, CRATE]
KEEPING = contextlib.ExitStack()
DRAWING = contextvars.ContextVar("drawing", default=is_drawing())


def stage_code(script):
    """The sha256 of the package's files that a stage runs: editing one re-runs the stage. As a
    param, since Snakemake looks at each input of each job again and again."""
    return code_hash(ROOT / "workflow/scripts" / script, ROOT / "src/scratchbook")


def reach_bucket():
    """The bucket that a profile names, if one does. Tells jobs of it, and learns from it what other
    checkouts did."""
    os.environ.pop(bucket.VARIABLE, None)
    place = default_storage()
    if place is None:
        return None
    os.environ[bucket.VARIABLE] = bucket.describe_bucket(*place)
    reached = bucket.Bucket(os.environ[bucket.VARIABLE])
    if is_first_process():
        try:
            bucket.fetch_records(*SNAKEMAKE_RECORDS, RECORDS)
            if not RESULTS.sources.exists() and (told := reached.read(RESULTS.sources)):
                write_text(RESULTS.sources, told.decode())
        except Exception as error:
            raise WorkflowError(f"cannot read from {place[1]}: {error}")
    return reached


def keep_records():
    """Copies Snakemake's records to the bucket, if there is one, until `KEEPING` is closed."""
    if KEPT_IN:
        KEEPING.enter_context(bucket.kept_records(*SNAKEMAKE_RECORDS, RECORDS, say))


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
    now = Plan(PROJECT, KEPT_IN, gpu=False)  # runs were trained since
    try:
        if now.open.issuperset(now.wanted):
            return
    except ScratchbookError as error:
        say(str(error))
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


def make_plan():
    """What is wanted and what is there. Only the first process asks."""
    try:
        plan = Plan(PROJECT, KEPT_IN, gpu=gpus_allowed() != 0)
        plan.open  # reads the store
        plan.sources.save()
    except ScratchbookError as error:
        raise WorkflowError(str(error))
    if news := plan.news():
        say(news)
    return plan


def tidy_up():
    """Clears what finished trainings left, and what a killed Snakemake did."""
    shutil.rmtree(BACKUPS, ignore_errors=True)
    store = Store(RESULTS, KEPT_IN)  # as it is now
    try:
        store.mark()
        store.sweep()
        if KEPT_IN and RESULTS.sources.exists():
            KEPT_IN.store(RESULTS.sources, RESULTS.sources)
    except OSError as error:
        raise WorkflowError(f"cannot write under {RESULTS.folder}: {error.strerror}")


def read_result(path):
    """A small file of results that a job in a process of its own is to know before it starts."""
    here = Path(in_bucket(str(path)))
    if not here.exists() and KEPT_IN:
        return json.loads(KEPT_IN.read(path))
    return json.loads(here.read_text(encoding="utf-8"))


def is_open(wildcards):
    """Whether a run is to be trained; in a job's process, which has no other, it is. In a drawing
    of the rules all are: it shows how the results came to be."""
    return PLAN is None or wildcards.run in PLAN.open or DRAWING.get()


def only_if_open(wildcards):
    """Nothing for an open run; for a finished one a file that nothing makes, so that no job can be
    made for it and its files are sources."""
    return (
        [] if is_open(wildcards) else [str(RESULTS.being_made / "this-run-is-finished")]
    )


def asked_again(wildcards):
    """The request for a finished run to be trained again, if there is one. It is written anew, since
    small inputs compare by content: else nothing would be done after a failure to keep it.
    """
    request = RESULTS.request(wildcards.run)
    if not request.exists():
        return []
    if PLAN is not None:
        asked = PLAN.store.request(wildcards.run)
        write_text(request, json.dumps({**asked, "start": time.time_ns()}))
    return [of_checkout(request)]


def order_of(wildcards):
    """All that a training is told."""
    if PLAN is None:
        return read_result(RESULTS.order(wildcards.run))
    return orders(wildcards.run) if is_open(wildcards) else None


@functools.cache
def orders(run):
    return PLAN.order(run).plain()


def ordered(key, otherwise):
    """An input function: what of a training's order, where there is one."""

    def value(wildcards):
        order = order_of(wildcards)
        return otherwise if order is None else key(order)

    return value


ordered_data = ordered(lambda order: ancient(str(RESULTS.data(order["data"]))), [])
ordered_threads = ordered(lambda order: order["threads"], 1)
ordered_weights = ordered(lambda order: backbone_files(order["spec"]), [])
ordered_start = ordered(lambda order: files_to_start_from(order["initial"]), [])


def backbone_files(spec):
    """The weights files, of those that a spec's backbones start from, that are there."""
    folder = Path(PROJECT.settings.data_dir)
    return [of_checkout(file) for file in weights_files(spec["layers"], folder)]


def files_to_start_from(run):
    """The files of the run whose weights a run starts from; none for most. In a drawing of the rules
    it would be a circle."""
    if run is None or DRAWING.get():
        return []
    return [RESULTS.run(run).record, *weights_of(run)]


def weights_of(run):
    """The folder of a run's weights, which is to be fetched from a bucket; on a disk it is there
    where its record is."""
    return [RESULTS.run(run).checkpoints] if KEPT_IN else []


def settled(name):
    """An input function: a run's file for what is derived from it. Of a finished run that goes where
    the run goes, and need not be made anew, whatever the file's time; in a bucket it stays behind,
    and so the time counts."""

    def file(wildcards):
        path = str(getattr(RESULTS.run(wildcards.run), name))
        goes_along = PLAN is not None and wildcards.run not in PLAN.open and not KEPT_IN
        return ancient(path) if goes_along else path

    return file


def kept_of(run):
    """What is known of a finished run."""
    if PLAN is None:
        return read_result(RESULTS.run(run).checksums)
    return PLAN.store.kept(run)


def only_if_missing(wildcards):
    """The same of prepared data: what is in a file, its name says, whatever else has changed."""
    there = PLAN is not None and PLAN.has_data(wildcards.data) and not DRAWING.get()
    return [str(RESULTS.being_made / "these-data-are-there")] if there else []


def dataset_declared(wildcards):
    """All that preparing is told: a data set's name and declaration, of which content, and how much
    of it."""
    try:
        name = PLAN.dataset_of(wildcards.data)
        content = PLAN.content(name)
    except ScratchbookError as error:
        raise WorkflowError(str(error))
    return {
        "name": name,
        "declared": PROJECT.datasets[name].model_dump(mode="json"),
        "content": content.sha256,
        "index": content.index,
        "limit": PROJECT.image_limit,
    }


def made_by(wildcards):
    """What a run was made by (its `spec`, `threads`, `data` and `initial` run), or is to be."""
    if PLAN is not None and is_open(wildcards):
        return orders(wildcards.run)
    return kept_of(wildcards.run)


def data_read(wildcards):
    """The prepared data that a run was trained on."""
    return ancient(str(RESULTS.data(made_by(wildcards)["data"])))


def threads_used(wildcards):
    """CPU threads that a run was trained with."""
    return made_by(wildcards)["threads"]


def pretrained_files(wildcards):
    """The weights files that a run's backbones start from and that are there."""
    return backbone_files(made_by(wildcards)["spec"])


def initial_run(wildcards):
    """The files of the run that a run started from."""
    return files_to_start_from(made_by(wildcards)["initial"])


def cam_choices(wildcards):
    """What Grad-CAM is to look at under this name."""
    every = map(PROJECT.cam, PROJECT.notebooks)
    return next(
        choices for choices in every if choices and cam_key(choices) == wildcards.cam
    )


def maps_of(notebook, experiment):
    """The maps of an experiment's runs by seed, of those whose pixels can be had."""
    if (cam := PLAN.cam(notebook)) is None:
        return {}
    runs = PLAN.runs(notebook)[experiment].items()
    return {
        seed: RESULTS.run(run).cam(cam) for seed, run in runs if PLAN.has_pixels(run)
    }


def maps_of_run(wildcards):
    """The maps of one run."""
    return maps_of(wildcards.notebook, wildcards.experiment)[int(wildcards.seed)]


def maps_of_other_seeds(wildcards):
    """The experiment's maps under its other seeds, for drift to be held against."""
    maps = maps_of(wildcards.notebook, wildcards.experiment)
    return [file for seed, file in maps.items() if seed != int(wildcards.seed)]


def read_files(notebook, *names):
    """Files of a notebook's runs that a stage reads. In a bucket all of them, which are fetched; on
    a disk those that tell another run from this one: each further one costs time.
    """
    if not KEPT_IN:
        names = ["record", "metrics"]
    runs = [
        RESULTS.run(run)
        for runs in PLAN.runs(notebook).values()
        for run in runs.values()
    ]
    return [getattr(run, name) for run in runs for name in names]


def evaluated_runs(wildcards):
    """What comparing a notebook's experiments reads."""
    return read_files(wildcards.notebook, "record", "history", "predictions", "metrics")


def mapped_runs(wildcards):
    """The drift of a notebook's runs, and in a bucket their maps; none where it asks for none."""
    found, name = [], wildcards.notebook
    for experiment in PROJECT.notebooks[name].experiments:
        for seed, maps in maps_of(name, experiment).items():
            found.append(RESULTS.notebook(name).drift(experiment, seed))
            found += [maps] if KEPT_IN else []
    return found


def data_shown(wildcards):
    """The prepared data of a notebook, for its pictures, where it can be had."""
    data = PLAN.data_name(wildcards.notebook)
    return [ancient(str(RESULTS.data(data)))] if PLAN.can_prepare(data) else []


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
    data = sorted({file for notebook in each for file in data_shown(notebook)})
    if not KEPT_IN:
        return data
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
    return PLAN.trial(wildcards.notebook)


def page_of(wildcards):
    """A notebook's page as declared."""
    return PLAN.page(wildcards.notebook)


def all_pages(_wildcards):
    """The pages of all notebooks."""
    return [PLAN.page(name) for name in PROJECT.notebooks]


def rule_graph(_wildcards):
    """The names of the rules whose outputs each one reads."""
    token = DRAWING.set(True)
    try:
        return rules_read_from(TARGETS)
    finally:
        DRAWING.reset(token)


KEPT_IN = reach_bucket()
PLAN = make_plan() if is_first_process() else None
