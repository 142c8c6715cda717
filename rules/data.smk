rule prepare_dataset:
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
        data_dir=PROJECT.settings.data_dir,
        limit=PROJECT.image_limit,
    script:
        "../workflow/scripts/prepare_dataset.py"
