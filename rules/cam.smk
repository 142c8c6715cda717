rule map_attention:
    input:
        data=dataset_of,
        run=RUN.record,
        checkpoints=RUN.checkpoints,
        pretrained=pretrained_files,
        initial=initial_run,
    output:
        RUN.cam,
    log:
        RESULTS.run_log("cam", *WILDCARDS),
    benchmark:
        RESULTS.benchmark(RESULTS.run_log("cam", *WILDCARDS))
    conda:
        "../envs/keras.yaml"
    threads: run_threads
    resources:
        gpu=1,
        mem_mb=4000,
        runtime=60,
    params:
        code=stage_code("map_attention.py"),
        choices=cam_choices,
        progress=str(RESULTS.progress(*WILDCARDS)),
        pretrained=pretrained_folder,
    script:
        "../workflow/scripts/map_attention.py"


rule measure_drift:
    input:
        maps=RUN.cam,
        other_seeds=maps_of_other_seeds,
    output:
        RUN.drift,
    log:
        RESULTS.run_log("drift", *WILDCARDS),
    benchmark:
        RESULTS.benchmark(RESULTS.run_log("drift", *WILDCARDS))
    conda:
        "../envs/statistics.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=stage_code("measure_drift.py"),
    script:
        "../workflow/scripts/measure_drift.py"
