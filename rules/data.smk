rule order_data:
    output:
        update(RESULTS.order("{data}")),
    log:
        RESULTS.log("data", "{data}-order"),
    conda:
        "../envs/data.yaml"
    params:
        order=dataset_declared,
    script:
        "../workflow/scripts/order_data.py"


rule prepare_dataset:
    input:
        order=RESULTS.order("{data}"),
        gate=only_if_missing,
    output:
        RESULTS.data("{data}"),
    log:
        RESULTS.log("data", "{data}"),
    benchmark:
        RESULTS.benchmark(RESULTS.log("data", "{data}"))
    conda:
        "../envs/data.yaml"
    threads: 2
    resources:
        mem_mb=2000,
        runtime=60,
    script:
        "../workflow/scripts/prepare_dataset.py"
