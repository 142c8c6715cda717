rule train_run:
    input:
        data=dataset_of,
        pretrained=pretrained_files,
        initial=initial_run,
        code=stage_code("train_run.py"),
    output:
        history=f"{RUN}/history.csv",
        checkpoints=directory(f"{RUN}/checkpoints"),
        predictions=f"{RUN}/predictions.h5",
        run=f"{RUN}/run.json",
    log:
        f"{LOGS}/{{notebook}}/{{experiment}}/seed{{seed}}/train.log",
    benchmark:
        f"{BENCHMARKS}/{{notebook}}/{{experiment}}/seed{{seed}}/train.tsv"
    conda:
        "../envs/keras.yaml"
    threads: run_threads
    resources:
        gpu=1,
        mem_mb=6000,
        runtime=720,
    params:
        spec=run_spec,
        keep_epochs=kept_epochs,
        precision=PROJECT.settings.precision,
        pretrained=pretrained_folder,
        # Snakemake lowers `threads` to `--cores`, and the last digits depend on how many there are.
        threads=run_threads,
        # Undeclared, since Snakemake deletes declared outputs before a job starts: a killed
        # training goes on from here.
        state=f"{RESULTS}/state/{{notebook}}/{{experiment}}/seed{{seed}}",
    script:
        "../workflow/scripts/train_run.py"
