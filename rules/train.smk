# A finished run is a source file, no job's output: nothing that a workflow does overwrites or deletes
# one. Training writes elsewhere, and `only_if_open` keeps the jobs of finished runs from being made.


rule order_run:
    input:
        data=ordered_data,  # which all wait for, and which needs the cores
    output:
        update(RESULTS.order("{run}")),
    log:
        RESULTS.log("{run}", "order"),
    conda:
        "../envs/data.yaml"
    # As its training's, which starts in its place: of a thousand orders, each of which leaves a core,
    # a training that needs two would come after the last.
    threads: ordered_threads
    params:
        order=order_of,
    script:
        "../workflow/scripts/order_run.py"


rule train_run:
    input:
        order=RESULTS.order("{run}"),
        data=ordered_data,
        pretrained=ordered_weights,
        initial=ordered_start,
    output:
        temp(directory(RESULTS.trained("{run}").folder)),
    log:
        RESULTS.log("{run}", "train"),
    benchmark:
        RESULTS.benchmark(RESULTS.log("{run}", "train"))
    priority: 1
    conda:
        "../envs/keras.yaml"
    threads: ordered_threads
    resources:
        gpu=1,
        mem_mb=6000,
        runtime=720,
    params:
        order=order_of,
        # Undeclared, since Snakemake deletes declared outputs before a job starts: a killed
        # training goes on from here, and one whose files were lost writes them anew.
        state=str(RESULTS.state("{run}")),
        progress=str(RESULTS.progress("{run}")),
    script:
        "../workflow/scripts/train_run.py"


rule keep_run:
    input:
        trained=RESULTS.trained("{run}").folder,
        again=asked_again,
        gate=only_if_open,
    output:
        record=update(RUN.record),
        history=update(RUN.history),
        predictions=update(RUN.predictions),
        checkpoints=update(directory(RUN.checkpoints)),
        checksums=update(RUN.checksums),
    log:
        RESULTS.log("{run}", "keep"),
    priority: 2
    conda:
        "../envs/data.yaml"
    params:
        # Of this disk, where it is asked for again, also where the run goes to a bucket.
        results=lambda wildcards: str(RESULTS.folder),
    script:
        "../workflow/scripts/keep_run.py"
