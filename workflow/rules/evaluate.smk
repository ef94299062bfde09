# Evaluation of trained runs, and the measurements of studies.


rule evaluate:
    input:
        record=rules.train.output.record,
        model=rules.train.output.model,
        interactions="data/{dataset}/interactions.parquet",
        codes="data/{dataset}/codes.parquet",
    output:
        metrics="results/{dataset}/{backbone}/{objective}/seed{seed}/metrics.json",
        ranks="results/{dataset}/{backbone}/{objective}/seed{seed}/ranks.parquet",
        lists="results/{dataset}/{backbone}/{objective}/seed{seed}/lists.parquet",
    log:
        "logs/{dataset}/{backbone}/{objective}/seed{seed}/evaluate.log",
    benchmark:
        "logs/{dataset}/{backbone}/{objective}/seed{seed}/evaluate.benchmark.tsv"
    conda:
        "../envs/apao.yaml"
    threads: PIPELINE.threads
    resources:
        gpu=PIPELINE.gpus,
    params:
        command="evaluate",
        resolved=PIPELINE.decoding,
        code=PIPELINE.code("evaluate"),
    shell:
        "apao {params.command} {wildcards.dataset:q}/{wildcards.backbone:q}/{wildcards.objective:q}/seed{wildcards.seed}"
        " --resolved {params.resolved:q} > {log:q} 2>&1"


rule baselines:
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
        code=PIPELINE.code("baselines"),
    shell:
        "apao baselines {wildcards.dataset:q} > {log:q} 2>&1"


# Measurements of a run have the inputs of its evaluation. Other settings, if not overridden, are those of the
# evaluation.
use rule evaluate as beams with:
    output:
        "results/{dataset}/{backbone}/{objective}/seed{seed}/beams.json",
    log:
        "logs/{dataset}/{backbone}/{objective}/seed{seed}/beams.log",
    benchmark:
        "logs/{dataset}/{backbone}/{objective}/seed{seed}/beams.benchmark.tsv"
    # Alone on the machine: other jobs would affect the measured time.
    threads: lambda wildcards: workflow.cores
    params:
        command="beams",
        resolved=PIPELINE.measuring("beams"),
        code=PIPELINE.code("beams"),


use rule evaluate as exact with:
    output:
        "results/{dataset}/{backbone}/{objective}/seed{seed}/exact.json",
        "results/{dataset}/{backbone}/{objective}/seed{seed}/pruning.json",
    log:
        "logs/{dataset}/{backbone}/{objective}/seed{seed}/exact.log",
    benchmark:
        "logs/{dataset}/{backbone}/{objective}/seed{seed}/exact.benchmark.tsv"
    params:
        command="exact",
        resolved=PIPELINE.measuring("exact"),
        code=PIPELINE.code("exact"),


rule decoding_time:
    output:
        "results/{dataset}/{backbone}/decoding_time.json",
    log:
        "logs/{dataset}/{backbone}/decoding_time.log",
    conda:
        "../envs/apao.yaml"
    # Alone on the machine, as above.
    threads: lambda wildcards: workflow.cores
    resources:
        gpu=PIPELINE.gpus,
    params:
        timing=PIPELINE.timing,
        code=PIPELINE.code("decoding_time"),
    shell:
        "apao decoding-time {wildcards.dataset:q} {wildcards.backbone:q} > {log:q} 2>&1"
