# From item texts to item codes.


rule embed:
    input:
        "data/{dataset}/items.parquet",
        PIPELINE.vectors,
    output:
        embeddings="data/{dataset}/embeddings.safetensors",
        facts="data/{dataset}/embeddings.json",
        record="data/{dataset}/embed.provenance.json",
    log:
        "logs/{dataset}/embed.log",
    cache: PIPELINE.shares
    conda:
        "../envs/apao.yaml"
    threads: 2
    resources:
        gpu=PIPELINE.gpus,
    params:
        embedder=PIPELINE.embedder,
        content=PIPELINE.vector_content,
        code=PIPELINE.code("embed"),
    shell:
        "apao embed {wildcards.dataset:q} > {log:q} 2>&1"


rule codes:
    input:
        "data/{dataset}/items.parquet",
        PIPELINE.coded_from,
    output:
        codes="data/{dataset}/codes.parquet",
        codebooks="data/{dataset}/codebooks.safetensors",
        quality="data/{dataset}/code_quality.json",
        record="data/{dataset}/codes.provenance.json",
    log:
        "logs/{dataset}/codes.log",
    cache: PIPELINE.shares
    conda:
        "../envs/apao.yaml"
    resources:
        gpu=PIPELINE.tokenizer_gpus,
    params:
        codes=PIPELINE.codes,
        content=PIPELINE.code_content,
        code=PIPELINE.code("codes"),
    shell:
        "apao codes {wildcards.dataset:q} > {log:q} 2>&1"
