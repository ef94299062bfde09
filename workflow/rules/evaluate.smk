# What a trained run achieves, and the measurements behind single figures.


rule evaluate_run:
    input:
        record=rules.train_run.output.record,
        model=rules.train_run.output.model,
        interactions="data/{dataset}/interactions.parquet",
        codes="data/{dataset}/codes.parquet",
    output:
        metrics="results/{dataset}/{backbone}/{objective}/seed{seed}/metrics.json",
        ranks="results/{dataset}/{backbone}/{objective}/seed{seed}/ranks.parquet",
    log:
        "logs/{dataset}/{backbone}/{objective}/seed{seed}/evaluate.log",
    benchmark:
        "logs/{dataset}/{backbone}/{objective}/seed{seed}/evaluate.benchmark.tsv"
    conda:
        "../envs/apao.yaml"
    threads: STUDY.threads
    resources:
        gpu=STUDY.gpus,
    params:
        decoding=STUDY.decoding,
        code=STUDY.code("evaluate"),
    shell:
        "apao evaluate {wildcards.dataset:q}/{wildcards.backbone:q}/{wildcards.objective:q}/seed{wildcards.seed}"
        " --resolved {params.decoding:q} > {log:q} 2>&1"


rule evaluate_baselines:
    input:
        interactions="data/{dataset}/interactions.parquet",
        codes="data/{dataset}/codes.parquet",
    output:
        "results/{dataset}/baselines/metrics.json",
    log:
        "logs/{dataset}/baselines.log",
    conda:
        "../envs/apao.yaml"
    params:
        code=STUDY.code("baselines"),
    shell:
        "apao baselines {wildcards.dataset:q} > {log:q} 2>&1"


rule measure_pruning:
    input:
        record=rules.train_run.output.record,
        model=rules.train_run.output.model,
        interactions="data/{dataset}/interactions.parquet",
        codes="data/{dataset}/codes.parquet",
    output:
        "results/{dataset}/{backbone}/{objective}/seed{seed}/pruning.json",
    log:
        "logs/{dataset}/{backbone}/{objective}/seed{seed}/pruning.log",
    conda:
        "../envs/apao.yaml"
    threads: STUDY.threads
    resources:
        gpu=STUDY.gpus,
    params:
        decoding=STUDY.decoding,
        code=STUDY.code("pruning"),
    shell:
        "apao pruning {wildcards.dataset:q}/{wildcards.backbone:q}/{wildcards.objective:q}/seed{wildcards.seed}"
        " --resolved {params.decoding:q} > {log:q} 2>&1"


rule measure_beams:
    input:
        record=rules.train_run.output.record,
        model=rules.train_run.output.model,
        interactions="data/{dataset}/interactions.parquet",
        codes="data/{dataset}/codes.parquet",
    output:
        "results/{dataset}/{backbone}/{objective}/seed{seed}/beams.json",
    log:
        "logs/{dataset}/{backbone}/{objective}/seed{seed}/beams.log",
    conda:
        "../envs/apao.yaml"
    # Alone on the machine: a neighbour would be part of the measurement.
    threads: lambda wildcards: workflow.cores
    resources:
        gpu=STUDY.gpus,
    params:
        beams=STUDY.beams,
        code=STUDY.code("beams"),
    shell:
        "apao beams {wildcards.dataset:q}/{wildcards.backbone:q}/{wildcards.objective:q}/seed{wildcards.seed}"
        " --resolved {params.beams:q} > {log:q} 2>&1"


rule measure_decoding_time:
    output:
        "results/{dataset}/{backbone}/decoding_time.json",
    log:
        "logs/{dataset}/{backbone}/decoding_time.log",
    conda:
        "../envs/apao.yaml"
    # Alone on the machine, for the same reason.
    threads: lambda wildcards: workflow.cores
    resources:
        gpu=STUDY.gpus,
    params:
        sizes=STUDY.timing,
        code=STUDY.code("decoding-time"),
    shell:
        "apao decoding-time {wildcards.dataset:q} {wildcards.backbone:q} > {log:q} 2>&1"
