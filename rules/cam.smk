rule order_maps:
    output:
        RESULTS.maps("{cam}"),
    log:
        RESULTS.log("maps", "{cam}"),
    conda:
        "../envs/data.yaml"
    params:
        choices=cam_choices,
    script:
        "../workflow/scripts/order_maps.py"


rule map_attention:
    input:
        choices=ancient(RESULTS.maps("{cam}")),
        data=data_read,
        run=settled("record"),
        checkpoints=lambda wildcards: weights_of(wildcards.run),
        pretrained=pretrained_files,
        initial=initial_run,
    output:
        RUN.cam("{cam}"),
    log:
        RESULTS.log("{run}", "cam-{cam}"),
    benchmark:
        RESULTS.benchmark(RESULTS.log("{run}", "cam-{cam}"))
    conda:
        "../envs/keras.yaml"
    threads: threads_used
    resources:
        gpu=1,
        mem_mb=4000,
        runtime=60,
    params:
        code=stage_code("map_attention.py"),
        progress=str(RESULTS.progress("{run}")),
    script:
        "../workflow/scripts/map_attention.py"


rule measure_drift:
    input:
        maps=maps_of_run,
        other_seeds=maps_of_other_seeds,
    output:
        NOTEBOOK.drift("{experiment}", "{seed}"),
    log:
        RESULTS.log("{notebook}", "drift", "{experiment}", "seed{seed}"),
    benchmark:
        RESULTS.benchmark(
            RESULTS.log("{notebook}", "drift", "{experiment}", "seed{seed}")
        )
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
