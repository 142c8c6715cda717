rule map_attention:
    input:
        data=dataset_of,
        run=f"{RUN}/run.json",
        checkpoints=f"{RUN}/checkpoints",
        code=stage_code("map_attention.py"),
    output:
        maps=f"{RUN}/cam.h5",
        drift=f"{RUN}/drift.csv",
    log:
        f"{LOGS}/{{notebook}}/{{experiment}}/seed{{seed}}/cam.log",
    benchmark:
        f"{BENCHMARKS}/{{notebook}}/{{experiment}}/seed{{seed}}/cam.tsv"
    conda:
        "../envs/keras.yaml"
    threads: run_threads
    resources:
        gpu=1,
        mem_mb=4000,
        runtime=60,
    params:
        choices=cam_choices,
    script:
        "../workflow/scripts/map_attention.py"
