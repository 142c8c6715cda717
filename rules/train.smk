rule train_run:
    input:
        data=dataset_of,
        pretrained=pretrained_files,
        initial=initial_run,
    output:
        history=RUN.history,
        checkpoints=directory(RUN.checkpoints),
        predictions=RUN.predictions,
        run=RUN.record,
    log:
        RESULTS.run_log("train", *WILDCARDS),
    benchmark:
        RESULTS.benchmark(RESULTS.run_log("train", *WILDCARDS))
    conda:
        "../envs/keras.yaml"
    threads: run_threads
    resources:
        gpu=1,
        mem_mb=6000,
        runtime=720,
    params:
        code=stage_code("train_run.py"),
        spec=run_spec,
        keep_epochs=kept_epochs,
        precision=PROJECT.settings.precision,
        pretrained=pretrained_folder,
        # Snakemake lowers `threads` to `--cores`, and the last digits depend on how many there are.
        threads=run_threads,
        # Undeclared, since Snakemake deletes declared outputs before a job starts: a killed
        # training goes on from here.
        state=str(RESULTS.state(*WILDCARDS)),
        progress=str(RESULTS.progress(*WILDCARDS)),
    script:
        "../workflow/scripts/train_run.py"
