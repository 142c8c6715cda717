rule write_notebook:
    input:
        tables=[
            NOTEBOOK.compare,
            NOTEBOOK.comparisons,
        ],
        runs=evaluated_runs,
        maps=mapped_runs,
        data=data_shown,
        catalogs=catalogs(),
    output:
        notebook=report(
            NOTEBOOK.page,
            caption="../report/captions/notebook.rst",
        ),
        figures=directory(NOTEBOOK.figures),
    log:
        RESULTS.log("{notebook}", "notebook"),
    benchmark:
        RESULTS.benchmark(RESULTS.log("{notebook}", "notebook"))
    conda:
        "../envs/report.yaml"
    threads: 4
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        code=stage_code("write_notebook.py"),
        page=page_of,
        results=subpath(output.notebook, ancestor=2),
    script:
        "../workflow/scripts/write_notebook.py"


rule write_report:
    input:
        notebooks=[RESULTS.notebook(name).page for name in PROJECT.notebooks],
        figures=[RESULTS.notebook(name).figures for name in PROJECT.notebooks],
        tables=compared_tables(),
        results=shown_results,
        templates=template_files(),
        catalogs=catalogs(),
        config=config_files(),
        requirements=of_checkout(ROOT / "requirements.txt"),
    output:
        report(REPORT, caption="../report/captions/page.rst"),
    log:
        RESULTS.log("report"),
    benchmark:
        RESULTS.benchmark(RESULTS.log("report"))
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        code=stage_code("write_report.py"),
        pages=all_pages,
        results=lambda wildcards, input: str(Path(input.notebooks[0]).parents[1]),
        templates=lambda wildcards, input: str(Path(input.templates[0]).parent),
        command=PROJECT.command(),
        rules=rule_graph,
    script:
        "../workflow/scripts/write_report.py"


rule describe_results:
    input:
        report=REPORT,
        notebooks=[RESULTS.notebook(name).page for name in PROJECT.notebooks],
        results=shown_results,
        tables=compared_tables(),
        config=config_files(),
        snakefile=of_checkout(ROOT / "Snakefile"),
        trainer=of_checkout(ROOT / "workflow/scripts/train_run.py"),
    output:
        CRATE,
    log:
        RESULTS.log("crate"),
    benchmark:
        RESULTS.benchmark(RESULTS.log("crate"))
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        code=stage_code("describe_results.py"),
        pages=all_pages,
        results=lambda wildcards, input: str(Path(input.notebooks[0]).parents[1]),
        licence=licence_file(),
    script:
        "../workflow/scripts/describe_results.py"
