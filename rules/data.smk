rule prepare_dataset:
    input:
        code=stage_code("prepare_dataset.py"),
    output:
        f"{RESULTS}/data/{{dataset}}.h5",
    log:
        f"{LOGS}/data/{{dataset}}.log",
    benchmark:
        f"{BENCHMARKS}/data/{{dataset}}.tsv"
    params:
        spec=lambda wildcards: PROJECT.dataset(wildcards.dataset),
        source=dataset_source,
        data_dir=PROJECT.settings.data_dir,
        smoke=PROJECT.settings.smoke,
    resources:
        mem_mb=2000,
        runtime=60,
    threads: 2
    conda:
        "../envs/data.yaml"
    script:
        "../workflow/scripts/prepare_dataset.py"
