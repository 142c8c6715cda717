# All that leans on Snakemake's internals, which any release may change, and nothing else: each part
# names what it uses and what happens where that is missing. Read before the rest is there.
import sys
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

from snakemake.exceptions import WorkflowError

CHECKED_SNAKEMAKE = "9.27.1"  # all of this was checked on it
# What Python says of an attribute, a module, an item or a parameter that is not there.
CHANGED = (AttributeError, ImportError, LookupError, TypeError)

# Snakemake's records of how files were made, a file for each output, and its marks of those that
# were begun. Missing, as with `--persistence-backend db`, none go to a bucket and a fresh checkout
# makes all anew.
SNAKEMAKE_RECORDS = (Path(".snakemake/metadata"), Path(".snakemake/incomplete"))


# Where Snakemake copies outputs in `update()` to, while their job runs. A folder that a killed
# Snakemake left there would make every later job of that output fail.
BACKUPS = Path(".snakemake/backups")


@contextmanager
def needed_to(purpose):
    """Around a use that nothing can stand in for: where it is missing, an error of one sentence."""
    try:
        yield
    except CHANGED as error:
        raise WorkflowError(
            f"Scratchbook cannot {purpose} with Snakemake {version('snakemake')}: {error}; "
            f"it is known to work with Snakemake {CHECKED_SNAKEMAKE}"
        ) from None


def snakefile_folder():
    """Where the Snakefile lies that is being read; the address, where that is on the web.

    Uses `workflow.current_basedir.get_path_or_uri`. Missing: an error.
    """
    with needed_to("find its own files"):
        return Path(workflow.current_basedir.get_path_or_uri(secret_free=True))


def module_source():
    """The repository, and what of it, that a module by github(), gitlab() or gitfile() is from.

    Uses `hosted_repo.repo_clone` or `repo_path`, and `ref`, of `workflow.current_basedir`.
    Missing: an error.
    """
    with needed_to("fetch its repository as a module"):
        here = workflow.current_basedir
        if not hasattr(here, "ref"):
            raise WorkflowError(
                "Scratchbook's module needs its whole repository: name it by github(), gitlab() or "
                "gitfile(), or clone it and give the path of the clone's workflow/Snakefile"
            )
        hosted = hasattr(here, "hosted_repo")
        source = here.hosted_repo.repo_clone if hosted else here.repo_path
        return Path(source).absolute(), here.ref


def is_first_process():
    """Whether this process plans the jobs, and does not run one of another's.

    Uses `workflow.is_main_process`. Missing: yes; each job then reads all that the first does.
    """
    return getattr(workflow, "is_main_process", True)


def is_drawing():
    """Whether Snakemake was only asked for a drawing of its rules.

    Uses its command line. Missing: no, and where all runs are finished their training is not drawn.
    """
    return bool({"--rulegraph", "--filegraph"}.intersection(sys.argv))


def gpus_allowed():
    """How many GPUs `--resources gpu=…` allows; None where it says nothing.

    Uses `workflow.resource_settings.resources`. Missing: None.
    """
    with suppress(*CHANGED):
        resources = workflow.resource_settings.resources
        allowed = resources.get("gpu")
        return None if allowed is None else int(getattr(allowed, "value", allowed))
    return None


def default_storage():
    """The storage plugin that a profile names, where results go and its settings; None without one.

    Uses `workflow.storage_settings` and `workflow.storage_registry`. Missing: an error, for without
    the bucket all would be trained anew.
    """
    with needed_to("see whether results are kept in a bucket"):
        settings = workflow.storage_settings
        if settings.default_storage_provider is None:
            return None
        return (
            settings.default_storage_provider,
            settings.default_storage_prefix,
            workflow.storage_registry.default_storage_provider.settings,
        )


def in_bucket(path):
    """Where the local copy of a result is that a profile keeps in a bucket; else the path itself.

    Uses `workflow.modifier.path_modifier.apply_default_storage`. Missing: the path itself; of
    results in a bucket there is then no partial page and no drawing of the rules.
    """
    with suppress(*CHANGED):
        return workflow.modifier.path_modifier.apply_default_storage(path)
    return path


def of_checkout(file):
    """A file that is never in a bucket. Not `local(file)`: where disks are not shared, that would
    keep its jobs from being submitted, but these are on every node, as the scripts are.

    Uses `snakemake.path_modifier.PATH_MODIFIER_FLAG` and `snakemake.io.flag`. Missing: `local`.
    """
    try:
        from snakemake.io import flag
        from snakemake.path_modifier import PATH_MODIFIER_FLAG
    except ImportError:
        return local(str(file))
    return flag(str(file), PATH_MODIFIER_FLAG)


def say(line):
    """Writes a line among Snakemake's own, and to its log.

    Uses `snakemake.logging.logger`. Missing: to standard error.
    """
    try:
        from snakemake.logging import logger
    except ImportError:
        print(line, file=sys.stderr)
    else:
        logger.info(line)


def rules_read_from(targets):
    """The names of the rules whose outputs each one reads. Found as Snakemake finds them, from the
    targets of `all` backwards, through one job of each in each notebook.

    Uses `workflow.rules`, `is_producer`, `get_wildcards` and `expand_input` of each, and
    `snakemake.iocontainers.Wildcards`. Missing: {}, and the page has no drawing of the rules.
    """
    reads, seen, wanted = {}, set(), [("all", in_bucket(file)) for file in targets]
    with suppress(*CHANGED):
        from snakemake.iocontainers import Wildcards

        while wanted:
            reader, file = wanted.pop()
            writer = next(
                (each for each in workflow.rules if each.is_producer(file)), None
            )
            if writer is None or writer.name == reader:
                continue
            reads.setdefault(reader, set()).add(writer.name)
            wildcards = Wildcards(fromdict=writer.get_wildcards(file))
            job = (writer.name, wildcards.get("notebook"))
            if job not in seen:
                seen.add(job)
                reads.setdefault(writer.name, set())
                files = writer.expand_input(wildcards)[0]
                wanted += [(writer.name, str(each)) for each in files]
        return {name: sorted(reads[name]) for name in sorted(reads)}
    return {}
