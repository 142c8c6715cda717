from snakemake.utils import min_version

min_version("9.0")


configfile: "config/config.yaml"


if "CHECKED_SNAKEMAKE" not in globals():  # workflow/Snakefile has read it

    include: "rules/internals.smk"


include: "rules/common.smk"


wildcard_constraints:
    notebook=NAME,
    experiment=NAME,
    seed=r"\d+",
    run=RUN_PATTERN,
    data=rf"{KEY_PATTERN}-p\d+",
    cam=r"[0-9a-f]+",


# Seconds each: on a cluster they run where Snakemake does.
localrules:
    all,
    order_data,
    order_run,
    keep_run,
    evaluate_run,
    order_maps,
    measure_drift,
    compare_experiments,
    write_notebook,
    write_report,
    describe_results,


# A job in a process of its own has nothing to begin or to end.
onstart:
    if PLAN is not None:
        check_networks()
        tidy_up()
        keep_records()


onsuccess:
    if PLAN is not None:
        KEEPING.close()
        tidy_up()
        remove_partial_page()


onerror:
    if PLAN is not None:
        KEEPING.close()
        write_partial_page()


rule all:
    default_target: True
    input:
        TARGETS,


include: "rules/data.smk"
include: "rules/train.smk"
include: "rules/evaluate.smk"
include: "rules/cam.smk"
include: "rules/compare.smk"
include: "rules/report.smk"
