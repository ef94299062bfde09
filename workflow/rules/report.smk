# Tables and figures, each from exactly the runs that params.yaml lists for it.


def study_data(wildcards):
    """Dataset sizes and baselines that a study reads besides its runs."""
    names = (
        STUDIES[wildcards.study].dataset_names() if wildcards.study in STUDIES else ()
    )
    files = [f"data/{name}/stats.json" for name in names]
    if wildcards.study == "table1":
        files += [f"results/{name}/baselines/metrics.json" for name in names]
    return files


rule draw_table:
    input:
        study_inputs,
        study_data,
    output:
        csv=report(
            "results/tables/{study}.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{study}", "form": "numbers"},
        ),
        md="results/tables/{study}.md",
        tex="results/tables/{study}.tex",
    log:
        "logs/report/{study}.log",
    wildcard_constraints:
        study=r"table[1-5]",
    params:
        study=study_of,
    shell:
        "{APAO} report {wildcards.study} > {log:q} 2>&1"


rule draw_figure:
    input:
        study_inputs,
        study_data,
    output:
        png=report(
            "figures/{study}.png",
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{study}"},
        ),
        pdf="figures/{study}.pdf",
        csv="figures/{study}.csv",
        rst="figures/{study}.rst",
    log:
        "logs/report/{study}.log",
    wildcard_constraints:
        study=r"figure[1-5]",
    params:
        study=study_of,
    shell:
        "{APAO} report {wildcards.study} > {log:q} 2>&1"
