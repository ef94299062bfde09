# From raw files to leave-one-out histories.


rule download_dataset:
    output:
        "data/{dataset}/raw/manifest.json",
    log:
        "logs/{dataset}/download.log",
    params:
        source=source_of,
    shell:
        "{APAO} download {wildcards.dataset:q} {MIRROR_OPTION} > {log:q} 2>&1"


rule preprocess_dataset:
    input:
        "data/{dataset}/raw/manifest.json",
    output:
        interactions="data/{dataset}/interactions.parquet",
        catalogue="data/{dataset}/items.parquet",
        stats="data/{dataset}/stats.json",
    log:
        "logs/{dataset}/preprocess.log",
    params:
        source=source_of,
    shell:
        "{APAO} preprocess {wildcards.dataset:q} > {log:q} 2>&1"
