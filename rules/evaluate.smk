rule evaluate_run:
    input:
        predictions=RUN.predictions,
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
    params:
        code=stage_code("evaluate_run.py"),
    script:
        "../workflow/scripts/evaluate_run.py"
