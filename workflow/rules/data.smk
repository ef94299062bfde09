# From raw files to histories with their split.


# Run on the submitting machine, since the compute nodes of a cluster often have no network.
localrules:
    download,
    link,


rule download:
    output:
        folder=directory("data/{dataset}/raw"),
        # Snakemake hashes no folders; later rules depend on this file instead.
        hash="data/{dataset}/raw.sha256",
    log:
        "logs/{dataset}/download.log",
    wildcard_constraints:
        dataset=PIPELINE.names(links=False),
    cache: PIPELINE.shares
    conda:
        "../envs/apao.yaml"
    params:
        fetched=PIPELINE.fetched,
    shell:
        "apao download {wildcards.dataset:q} > {log:q} 2>&1"


# The user's own files are linked to, and must not enter a shared cache.
use rule download as link with:
    input:
        PIPELINE.own_files,
    wildcard_constraints:
        dataset=PIPELINE.names(links=True),
    cache: False
    params:
        fetched=PIPELINE.fetched,
        content=PIPELINE.own_content,


rule preprocess:
    input:
        "data/{dataset}/raw.sha256",
    output:
        interactions="data/{dataset}/interactions.parquet",
        catalogue="data/{dataset}/items.parquet",
        users="data/{dataset}/users.parquet",
        stats="data/{dataset}/stats.json",
    log:
        "logs/{dataset}/preprocess.log",
    conda:
        "../envs/apao.yaml"
    params:
        source=PIPELINE.source,
        code=PIPELINE.code("preprocess"),
    shell:
        # Also show the summary on the terminal.
        "apao preprocess {wildcards.dataset:q} > {log:q} 2>&1 && cat {log:q} >&2"
