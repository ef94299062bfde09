# From raw files to leave-one-out histories.


# On a cluster, on the machine of the command: compute nodes often reach no network.
localrules:
    download,
    link,


rule download:
    output:
        folder=directory("data/{dataset}/raw"),
        # A folder has a time and no hash; what follows from its content depends on this.
        hash="data/{dataset}/raw.sha256",
    log:
        "logs/{dataset}/download.log",
    wildcard_constraints:
        dataset=STUDY.names(links=False),
    cache: STUDY.shares
    conda:
        "../envs/apao.yaml"
    params:
        fetched=STUDY.fetched,
    shell:
        "apao download {wildcards.dataset:q} > {log:q} 2>&1"


# The user's own files are linked to, and must not enter a shared cache.
use rule download as link with:
    input:
        STUDY.own_files,
    wildcard_constraints:
        dataset=STUDY.names(links=True),
    cache: False
    params:
        fetched=STUDY.fetched,
        content=STUDY.own_content,


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
        source=STUDY.source,
        code=STUDY.code("preprocess"),
    shell:
        # Its summary is for the terminal, too.
        "apao preprocess {wildcards.dataset:q} > {log:q} 2>&1 && cat {log:q} >&2"
