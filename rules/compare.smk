rule compare_experiments:
    input:
        runs=evaluated_runs,
        code=stage_code("compare_experiments.py"),
    output:
        experiments=report(
            f"{RESULTS}/{{notebook}}/compare.csv",
            caption="../report/captions/compare.rst",
        ),
        pairs=f"{RESULTS}/{{notebook}}/comparisons.csv",
        markdown=f"{RESULTS}/{{notebook}}/compare.md",
        latex=f"{RESULTS}/{{notebook}}/compare.tex",
    log:
        f"{LOGS}/{{notebook}}/compare.log",
    benchmark:
        f"{BENCHMARKS}/{{notebook}}/compare.tsv"
    conda:
        "../envs/statistics.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        page=trial_of,
        results=subpath(output.experiments, ancestor=2),
    script:
        "../workflow/scripts/compare_experiments.py"
