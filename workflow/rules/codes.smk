# From item texts to item codes.


rule embed:
    input:
        "data/{dataset}/items.parquet",
        STUDY.vectors,
    output:
        embeddings="data/{dataset}/embeddings.safetensors",
        facts="data/{dataset}/embeddings.json",
        record="data/{dataset}/embed.provenance.json",
    log:
        "logs/{dataset}/embed.log",
    cache: STUDY.shares
    conda:
        "../envs/apao.yaml"
    threads: 2
    resources:
        gpu=STUDY.gpus,
    params:
        embedder=STUDY.embedder,
        content=STUDY.vector_content,
        code=STUDY.code("embed"),
    shell:
        "apao embed {wildcards.dataset:q} > {log:q} 2>&1"


rule codes:
    input:
        "data/{dataset}/items.parquet",
        STUDY.coded_from,
    output:
        codes="data/{dataset}/codes.parquet",
        codebooks="data/{dataset}/codebooks.safetensors",
        quality="data/{dataset}/code_quality.json",
        record="data/{dataset}/codes.provenance.json",
    log:
        "logs/{dataset}/codes.log",
    cache: STUDY.shares
    conda:
        "../envs/apao.yaml"
    resources:
        gpu=STUDY.tokenizer_gpus,
    params:
        codes=STUDY.codes,
        content=STUDY.code_content,
        code=STUDY.code("codes"),
    shell:
        "apao codes {wildcards.dataset:q} > {log:q} 2>&1"
