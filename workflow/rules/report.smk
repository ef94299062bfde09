# Tables and figures, each of exactly the runs that params.yaml lists for it. There is one rule per study, so that
# `snakemake report_figure2` is a target and the report shows each figure with the caption that the rule wrote.


for table in PIPELINE.tables():

    rule:
        name:
            f"report_{table}"
        input:
            PIPELINE.study_inputs(table),
        output:
            csv=f"results/tables/{table}.csv",
            md=f"results/tables/{table}.md",
            html=report(
                f"results/tables/{table}.html",
                caption="../report/table.rst",
                category="Tables",
                labels={"table": PIPELINE.title(table)},
            ),
            tex=f"results/tables/{table}.tex",
        log:
            f"logs/report/{table}.log",
        conda:
            "../envs/apao.yaml"
        params:
            name=table,
            study=PIPELINE.study(table),
        shell:
            "apao report {params.name:q} > {log:q} 2>&1"


for figure in PIPELINE.figures():

    rule:
        name:
            f"report_{figure}"
        input:
            PIPELINE.study_inputs(figure),
        output:
            png=report(
                f"figures/{figure}.png",
                caption=f"../../figures/{figure}.rst",
                category="Figures",
                labels={"figure": PIPELINE.title(figure)},
            ),
            pdf=f"figures/{figure}.pdf",
            csv=f"figures/{figure}.csv",
            rst=f"figures/{figure}.rst",
        log:
            f"logs/report/{figure}.log",
        conda:
            "../envs/apao.yaml"
        params:
            name=figure,
            study=PIPELINE.study(figure),
        shell:
            "apao report {params.name:q} > {log:q} 2>&1"
