rule prepare_dataset:
    output:
        RESULTS.data("{dataset}"),
    log:
        RESULTS.log("data", "{dataset}"),
    benchmark:
        RESULTS.benchmark(RESULTS.log("data", "{dataset}"))
    conda:
        "../envs/data.yaml"
    threads: 2
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        code=stage_code("prepare_dataset.py"),
        spec=lambda wildcards: PROJECT.datasets[wildcards.dataset].model_dump(
            mode="json"
        ),
        source=dataset_source,
        data_dir=PROJECT.settings.data_dir,
        limit=PROJECT.image_limit,
    script:
        "../workflow/scripts/prepare_dataset.py"
