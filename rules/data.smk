rule prepare_dataset:
    input:
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
    params:
        dataset=dataset_declared,
        limit=PROJECT.image_limit,
    script:
        "../workflow/scripts/prepare_dataset.py"
