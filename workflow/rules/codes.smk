# From item texts to item codes.


def code_inputs(wildcards):
    """Own codes are made from embeddings; published ones come with the download."""
    inputs = ["data/{dataset}/items.parquet", "data/{dataset}/raw/manifest.json"]
    if PARAMS.embedder_of(wildcards.dataset) is not None:
        inputs.append("data/{dataset}/embeddings.safetensors")
    return inputs


rule embed_items:
    input:
        "data/{dataset}/items.parquet",
    output:
        "data/{dataset}/embeddings.safetensors",
    log:
        "logs/{dataset}/embed.log",
    benchmark:
        "logs/{dataset}/embed.benchmark.tsv"
    threads: 2
    resources:
        gpu=GPUS,
    params:
        embedder=embedder_of,
    shell:
        "{APAO} embed {wildcards.dataset:q} > {log:q} 2>&1"


rule code_items:
    input:
        code_inputs,
    output:
        codes="data/{dataset}/codes.parquet",
        codebooks="data/{dataset}/codebooks.safetensors",
        quality="data/{dataset}/code_quality.json",
    log:
        "logs/{dataset}/codes.log",
    benchmark:
        "logs/{dataset}/codes.benchmark.tsv"
    params:
        codes=codes_of,
    shell:
        "{APAO} codes {wildcards.dataset:q} > {log:q} 2>&1"
