rule evaluate_run:
    input:
        predictions=settled("predictions"),
    output:
        RUN.metrics,
    log:
        RESULTS.log("{run}", "evaluate"),
    benchmark:
        RESULTS.benchmark(RESULTS.log("{run}", "evaluate"))
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
