# One training per run; its inputs include the weights of the run it starts from, if any. An interrupted training
# resumes from its checkpoint, which is not a declared output, so Snakemake does not delete it with a failed job.


rule train:
    input:
        PIPELINE.training_inputs,
        # For the catalogue, which has the items' ids and titles.
        "data/{dataset}/items.parquet",
    output:
        record="results/{dataset}/{backbone}/{objective}/seed{seed}/run.json",
        model="results/{dataset}/{backbone}/{objective}/seed{seed}/model.safetensors",
        catalogue="results/{dataset}/{backbone}/{objective}/seed{seed}/catalogue.parquet",
        config="results/{dataset}/{backbone}/{objective}/seed{seed}/config.json",
        history="results/{dataset}/{backbone}/{objective}/seed{seed}/history.csv",
    log:
        "logs/{dataset}/{backbone}/{objective}/seed{seed}/train.log",
    benchmark:
        "logs/{dataset}/{backbone}/{objective}/seed{seed}/train.benchmark.tsv"
    conda:
        "../envs/apao.yaml"
    threads: PIPELINE.threads
    resources:
        gpu=PIPELINE.gpus,
    params:
        training=PIPELINE.training,
        content=PIPELINE.backbone_content,
        code=PIPELINE.code("train"),
    shell:
        "apao train {wildcards.dataset:q}/{wildcards.backbone:q}/{wildcards.objective:q}/seed{wildcards.seed}"
        " --resolved {params.training:q} > {log:q} 2>&1"
