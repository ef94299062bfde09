#!/usr/bin/env bash
# One quarter of an hour on a machine with a GPU, torch and no network: check, measure, then train Office.
#
#   benchmarks/gpu.sh SECONDS OUT      all of it within SECONDS; small files of finished runs come to OUT
#
# Needs data/office (apao download, preprocess and codes, made where there is a network) and the packages of
# pyproject's dependencies. Every step writes its result when it ends, so a cut costs one step.
#
#   STEPS="check probe train"   steps to do (default: all of them); "bench" adds the benchmark without its curves
#   SIDE=3                      trainings at once
set -uo pipefail
cd "$(dirname "$0")/.."
seconds=${1:?seconds that this may take}
out=${2:?folder for results}
steps=${STEPS:-check probe train}
side=${SIDE:-3}
began=$SECONDS
export PYTHONPATH="$PWD/src:$PWD${PYTHONPATH:+:$PYTHONPATH}" GOMP_SPINCOUNT=0
mkdir -p "$out"

left() { echo $((seconds - (SECONDS - began))); }
say() { echo "[$((SECONDS - began)) s] $*" | tee -a "$out/log.txt"; }

check() {
    python3 -c 'import torch; assert torch.cuda.is_available(), "no GPU that torch can use"
print(torch.__version__, torch.cuda.get_device_name(), "bf16", torch.cuda.is_bf16_supported())' >> "$out/log.txt" || return 1
    # Golden values of the authors own classes, in fp32 on the GPU: nothing else counts if they differ.
    python3 -m apao verify tests/golden --device cuda > "$out/verify.txt" || { tail -3 "$out/verify.txt"; return 1; }
    say "$(tail -n 1 "$out/verify.txt")"
}

# One epoch each, so that the trainings below can be judged before they end.
probe() {
    for backbone in tiger llama; do
        for objective in ce apao-pairwise; do
            for more in precision=bf16 precision=fp32 micro_batch_tokens=16384; do
                run="office/$backbone/$objective+epochs=1+$more/seed42"
                timeout "$(left)" python3 -m apao train "$run" --device cuda > "$out/probe.txt" 2>&1 || say "$run failed: $(tail -n 1 "$out/probe.txt")"
                history="results/$run/history.csv"
                [ -f "$history" ] && say "$run: $(python3 -c "import pandas, sys; print(*pandas.read_csv(sys.argv[1])['seconds'])" "$history") s per epoch"
            done
        done
    done
}

one_run() {
    local run=$1 log="$out/$(echo "$1" | tr / _).log"
    [ -f "results/$run/metrics.json" ] && return
    timeout "$(left)" python3 -m apao train "$run" --device cuda > "$log" 2>&1 &&
        timeout "$(left)" python3 -m apao evaluate "$run" --device cuda >> "$log" 2>&1 || { say "$run: $(tail -n 1 "$log")"; return; }
    mkdir -p "$out/results/$run"
    cp results/"$run"/{run.json,metrics.json,history.csv,ranks.parquet} results/"$run"/*.provenance.json "$out/results/$run/"
    say "$run finished"
}

train() {
    # In the order of docs/reproduce.md; objectives that start from ce come after it.
    local runs=()
    for backbone in llama tiger; do
        for objective in ce apao-pointwise apao-pairwise msl apao-pointwise+weights=eq17 bear; do
            runs+=("office/$backbone/$objective/seed42")
        done
    done
    for objective in s-dpo dpo dmpo 'ce->point' 'ce->pair' front-greater frequency multi-target igd position; do
        runs+=("office/llama/$objective/seed42" "office/tiger/$objective/seed42")
    done
    for seed in 43 44; do
        for backbone in llama tiger; do
            runs+=("office/$backbone/ce/seed$seed" "office/$backbone/apao-pointwise/seed$seed" "office/$backbone/apao-pairwise/seed$seed")
        done
    done
    for run in "${runs[@]}"; do
        [ "$(left)" -gt 20 ] || break
        while [ "$(jobs -rp | wc -l)" -ge "$side" ]; do wait -n; done
        one_run "$run" &
    done
    wait
}

bench() { timeout "$(left)" python3 -m benchmarks run gpu --seconds 3 > "$out/bench.txt" 2>&1; cp benchmarks/results/latest.* "$out/"; }

for step in $steps; do
    say "$step"
    "$step" || { say "$step failed"; exit 1; }
done
say "done"
