rule map_attention:
    input:
        data=dataset_of,
        run=f"{RUN}/run.json",
        checkpoints=f"{RUN}/checkpoints",
        pretrained=pretrained_files,
        initial=initial_run,
        code=stage_code("map_attention.py"),
    output:
        f"{RUN}/cam.h5",
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
        pretrained=pretrained_folder,
    script:
        "../workflow/scripts/map_attention.py"


rule measure_drift:
    input:
        maps=f"{RUN}/cam.h5",
        other_seeds=maps_of_other_seeds,
        code=stage_code("measure_drift.py"),
    output:
        f"{RUN}/drift.csv",
    log:
        f"{LOGS}/{{notebook}}/{{experiment}}/seed{{seed}}/drift.log",
    benchmark:
        f"{BENCHMARKS}/{{notebook}}/{{experiment}}/seed{{seed}}/drift.tsv"
    conda:
        "../envs/statistics.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    script:
        "../workflow/scripts/measure_drift.py"
