rule evaluate_run:
    input:
        predictions=RUN.predictions,
        code=stage_code("evaluate_run.py"),
    output:
        RUN.metrics,
    log:
        RESULTS.run_log("evaluate", *WILDCARDS),
    benchmark:
        RESULTS.benchmark(RESULTS.run_log("evaluate", *WILDCARDS))
    conda:
        "../envs/statistics.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    script:
        "../workflow/scripts/evaluate_run.py"
