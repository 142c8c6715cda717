rule compare_experiments:
    input:
        runs=evaluated_runs,
    output:
        experiments=report(
            NOTEBOOK.compare,
            caption="../report/captions/compare.rst",
        ),
        pairs=NOTEBOOK.comparisons,
        index=NOTEBOOK.runs,
        markdown=NOTEBOOK.compare_markdown,
        latex=NOTEBOOK.compare_latex,
    log:
        RESULTS.log("{notebook}", "compare"),
    benchmark:
        RESULTS.benchmark(RESULTS.log("{notebook}", "compare"))
    conda:
        "../envs/statistics.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        code=stage_code("compare_experiments.py"),
        page=trial_of,
        results=subpath(output.experiments, ancestor=2),
    script:
        "../workflow/scripts/compare_experiments.py"
