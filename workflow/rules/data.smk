# From raw files to leave-one-out histories.


rule download_dataset:
    input:
        STUDY.own_files,
    output:
        "data/{dataset}/raw/manifest.json",
    log:
        "logs/{dataset}/download.log",
    conda:
        "../envs/apao.yaml"
    params:
        source=STUDY.source,
    shell:
        "apao download {wildcards.dataset:q} > {log:q} 2>&1"


rule preprocess_dataset:
    input:
        "data/{dataset}/raw/manifest.json",
    output:
        interactions="data/{dataset}/interactions.parquet",
        catalogue="data/{dataset}/items.parquet",
        stats="data/{dataset}/stats.json",
    log:
        "logs/{dataset}/preprocess.log",
    conda:
        "../envs/apao.yaml"
    params:
        source=STUDY.source,
        code=STUDY.code("preprocess"),
    shell:
        "apao preprocess {wildcards.dataset:q} > {log:q} 2>&1"
