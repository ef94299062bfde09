#!/usr/bin/env bash
# A quarter of an hour on a machine with a GPU, torch and no network: check, measure, then train Office.
#
#   benchmarks/gpu.sh SECONDS OUT      all of it within SECONDS; what came out is written to OUT
#
# Needs data/office (apao download, preprocess and codes, made where there is a network) and the packages of
# pyproject's dependencies. Every step writes its result when it ends, so a cut costs one step. Of every finished run the
# small files come into an archive per backbone, which is written again after each: unpack it in a project folder, then
# `apao publish RUN...`.
#
#   STEPS="check probe train"   what to do: check, probe, train, bench
#   RUNS="office/llama/ce/seed42 ..."   runs to train instead of those below, in this order
#   SIDE=4                      trainings at once; with CUDA's multi-process service small ones overlap, else they take turns.
#                               A packed Llama takes up to 15 GiB, a run with 100 negatives 25
#   ALSO="exact beams"          what is measured of a finished run beside its metrics: as long as its training, for llama
#   WEIGHTS="RUN ..."           runs whose weights also come into OUT, compressed, to score them exactly elsewhere
#   CASES="train/ decode/"      parts of the names of the cases that bench measures
#   APAO_REVISION=...           the commit, for the records, where this copy has no .git
set -uo pipefail
cd "$(dirname "$0")/.."
seconds=${1:?seconds that this may take}
out=${2:?folder for results}
steps=${STEPS:-check probe train}
side=${SIDE:-4}
also=${ALSO-exact beams}
device=${DEVICE:-cuda}
began=$SECONDS
export PYTHONPATH="$PWD/src:$PWD${PYTHONPATH:+:$PYTHONPATH}" GOMP_SPINCOUNT=0 PYTHONUNBUFFERED=1
mkdir -p "$out" logs

left() { echo $((seconds - (SECONDS - began))); }
say() { echo "[$((SECONDS - began)) s] $*" | tee -a "$out/log.txt"; }
# The last line that is not empty, of a log of a command that failed.
last() { grep -v '^ *$' "$1" | tail -n 1; }
# A command for at most the seconds that are left (timeout 0 would be without limit).
limited() {
    local rest
    rest=$(left)
    [ "$rest" -gt 0 ] && timeout -k 10 "$rest" "$@"
}

check() {
    python3 -c 'import sys, torch
print(sys.version.split()[0], torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")' |
        tee -a "$out/log.txt"
    # Golden values of the authors own classes, in fp32 on the GPU: nothing else counts if they differ.
    limited python3 -m apao verify tests/golden --device "$device" > "$out/verify.txt" || { last "$out/verify.txt"; return 1; }
    say "$(last "$out/verify.txt")"
    limited python3 -m pytest -q -o addopts= tests/contract/test_gpu_contract.py > "$out/tests.txt" 2>&1
    say "$(grep -E '^(FAILED|ERROR)' "$out/tests.txt" | cut -c1-160)
$(last "$out/tests.txt")"
}

# Steps of whole trainings, and the kernels that the time of the longest goes to.
probe() {
    for backbone in llama tiger; do
        for objective in ce apao-pairwise; do
            limited python3 -m benchmarks case gpu "train/$backbone/$objective" --seconds 2 \
                > "$out/probe.txt" 2>> "$out/errors.txt" && say "$(last "$out/probe.txt")"
        done
        limited python3 -m benchmarks profile gpu "train/$backbone/apao-pairwise" \
            >> "$out/profile.txt" 2>> "$out/errors.txt"
    done
    # Only measurements: what failed is in errors.txt, and the trainings come all the same.
    return 0
}

# The small files of all evaluated runs, without weights, one archive per dataset and backbone.
pack() {
    local folder name
    for folder in results/*/*/; do
        compgen -G "$folder*/*/metrics.json" > /dev/null || continue
        name=$(echo "$folder" | tr / - | sed 's/^results-//; s/-$//')
        for metrics in "$folder"*/*/metrics.json; do
            find "$(dirname "$metrics")" -maxdepth 1 \
                \( -name '*.json' -o -name '*.csv' -o -name ranks.parquet -o -name lists.parquet \)
        done | tar czf "$out/$name.tmp" -T - && mv "$out/$name.tmp" "$out/$name.tar.gz"
    done
}

# Wait for one of the trainings and pack what there is, so that a cut costs no finished run.
wait_for_one() {
    wait -n
    pack
}

one_run() {
    local run=$1 log="logs/$(echo "$1" | tr / _).log"
    stage train "$run" "$log" || return
    say "$run: $(last "$log")"
    stage evaluate "$run" "$log.evaluate"
    if [[ " ${WEIGHTS:-} " == *" $run "* ]]; then
        local packed="$out/${run//\//_}.safetensors.gz"
        gzip -c "results/$run/model.safetensors" > "$packed.tmp" && mv "$packed.tmp" "$packed"
    fi
    # The metrics are what the run is for; these can wait for another day.
    for name in $also; do
        [ "$(left)" -lt 60 ] || stage "$name" "$run" "$log.$name"
    done
    [ -f "results/$run/metrics.json" ] || return
    say "$run finished: $(python3 -c 'import json, sys
test = json.load(open(sys.argv[1]))["test"]
print(*(f"{name} {test[name]:.4f}" for name in ("recall@10", "recall@20", "ndcg@10", "ndcg@20")))' "results/$run/metrics.json")"
}

stage() {
    [ "$(left)" -gt 5 ] || { say "$2: no time for $1"; return 1; }
    limited python3 -m apao "$1" "$2" --device "$device" >> "$3" 2>&1 || { say "$2, $1: $(last "$3")"; return 1; }
}

train() {
    # What decides most comes first, the longest of it at once: pairwise with the release's unpacked rows, which can be
    # recorded. Then as many seeds as the paper has of what it gains, on the model that costs least; dropout the other way
    # round (is the gain regularisation?); items of one token; unpacked rows; tiger; a second dataset; and the rest.
    # Runs on codes that are not in data/ fail at once.
    local runs=(${RUNS:-}) wanted=()
    if [ ${#runs[@]} = 0 ]; then
        runs=(
            office/llama/apao-pairwise+pack=false/seed42
            office/llama/{ce,apao-pointwise}/seed4{2,3,4,5,6}
            office/llama/{ce,apao-pointwise}+dropout=0.1/seed4{3,4}
            office/tiger/{ce,apao-pointwise}+dropout=0/seed42
            office-item-id/llama/{ce/seed4{3,4},ce+dropout=0.1/seed4{2,3,4}}
            office/llama/{ce,apao-pointwise}+pack=false/seed42
            office/tiger/{ce,apao-pointwise}/seed4{2,3}
            beauty/llama/{ce,apao-pointwise}/seed42
            office/llama/{ce,apao-pointwise}+dropout=0.1/seed4{5,6}
            office/tiger/{ce,apao-pointwise}/seed44
            office/llama/frequency/seed42
            office/tiger/apao-pairwise/seed42
            office/tiger/{bear,apao-pointwise+weights=eq17,frequency,position,igd}/seed42
        )
        for codes in random text rq-vae; do
            runs+=("office-$codes/llama/ce/seed42" "office-$codes/llama/apao-pointwise/seed42")
        done
        for objective in s-dpo dpo dmpo 'ce->point' 'ce->pair' front-greater multi-target; do
            runs+=("office/llama/$objective/seed42" "office/tiger/$objective/seed42")
        done
        runs+=(office/{llama,tiger}/apao-pairwise/seed{43,44})
    fi
    # A published run is not made again unless it is named; its weights are not published, so what starts from it needs it.
    if [ -z "${RUNS:-}" ]; then
        for run in "${runs[@]}"; do
            [ -f "results/published/$run/metrics.json" ] || wanted+=("$run")
        done
    else
        wanted=("${runs[@]}")
    fi
    for run in ${WEIGHTS:-}; do
        [[ " ${wanted[*]} " == *" $run "* ]] || say "$run: its weights are wanted, but it is not among the runs"
    done
    local heavy='pair|dpo' skipped=0
    for run in "${wanted[@]}"; do
        while [ "$(jobs -rp | wc -l)" -ge "$side" ]; do wait_for_one; done
        [ "$(left)" -gt 45 ] || { skipped=$((skipped + 1)); continue; }
        # Two with 100 negatives and two others fill a GPU of 80 GiB.
        if [[ $run =~ $heavy ]]; then
            while [ "$(jobs -rp | wc -l)" -ge 2 ]; do wait_for_one; done
        fi
        case $run in
            */s-dpo/* | */dpo/* | */dmpo/* | *'ce->'*) start_of "$run" ;;
        esac
        one_run "$run" &
    done
    while [ -n "$(jobs -rp)" ]; do wait_for_one; done
    pack
    [ "$skipped" = 0 ] || say "no time for $skipped more runs"
}

# Train what a run starts from, the plain ce of its seed, unless its weights are here.
start_of() {
    local start
    start=$(echo "$1" | sed -E 's#^([^/]+/[^/]+)/.*/(seed[0-9]+)$#\1/ce/\2#')
    [ -f "results/$start/model.safetensors" ] || stage train "$start" "logs/${start//\//_}.log"
}

bench() {
    local part
    for part in ${CASES:-train/ decode/}; do
        # Else that of the part before would be taken for this one's.
        rm -f benchmarks/results/latest.json
        limited python3 -m benchmarks run gpu --seconds 2 --only "$part" >> "$out/bench.txt" 2>&1 ||
            say "bench $part: $(last "$out/bench.txt")"
        [ ! -f benchmarks/results/latest.json ] ||
            cp benchmarks/results/latest.json "$out/bench-${part//\//-}.json"
    done
    say "$(cat "$out/bench.txt")"
}

for step in $steps; do
    say "$step"
    "$step" || { say "$step failed"; exit 1; }
done
say "done"
