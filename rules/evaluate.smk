rule evaluate_run:
    input:
        predictions=f"{RUN}/predictions.h5",
        code=stage_code("evaluate_run.py"),
    output:
        f"{RUN}/metrics.json",
    log:
        f"{LOGS}/{{notebook}}/{{experiment}}/seed{{seed}}/evaluate.log",
    benchmark:
        f"{BENCHMARKS}/{{notebook}}/{{experiment}}/seed{{seed}}/evaluate.tsv"
    conda:
        "../envs/statistics.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    script:
        "../workflow/scripts/evaluate_run.py"
