# Tables and figures, each from exactly the runs that params.yaml lists for it.


rule draw_table:
    input:
        STUDY.study_inputs,
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
    conda:
        "../envs/apao.yaml"
    params:
        study=STUDY.study,
    shell:
        "apao report {wildcards.study} > {log:q} 2>&1"


rule draw_figure:
    input:
        STUDY.study_inputs,
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
    conda:
        "../envs/apao.yaml"
    params:
        study=STUDY.study,
    shell:
        "apao report {wildcards.study} > {log:q} 2>&1"
