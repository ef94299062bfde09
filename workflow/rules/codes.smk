# From item texts to item codes.


rule embed_items:
    input:
        "data/{dataset}/items.parquet",
    output:
        "data/{dataset}/embeddings.safetensors",
    log:
        "logs/{dataset}/embed.log",
    benchmark:
        "logs/{dataset}/embed.benchmark.tsv"
    conda:
        "../envs/apao.yaml"
    threads: 2
    resources:
        gpu=STUDY.gpus,
    params:
        embedder=STUDY.embedder,
        code=STUDY.code("embed"),
    shell:
        "apao embed {wildcards.dataset:q} > {log:q} 2>&1"


rule code_items:
    input:
        STUDY.code_inputs,
    output:
        codes="data/{dataset}/codes.parquet",
        codebooks="data/{dataset}/codebooks.safetensors",
        quality="data/{dataset}/code_quality.json",
    log:
        "logs/{dataset}/codes.log",
    benchmark:
        "logs/{dataset}/codes.benchmark.tsv"
    conda:
        "../envs/apao.yaml"
    params:
        codes=STUDY.codes,
        code=STUDY.code("codes"),
    shell:
        "apao codes {wildcards.dataset:q} > {log:q} 2>&1"
