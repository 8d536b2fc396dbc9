#!/bin/sh
# One worker for each GPU, or WORKERS that share the cores:  workers.sh runs/NAME [OPTIONS of weince compare work]
set -eu
gpus=$(nvidia-smi --list-gpus 2>/dev/null | wc -l || echo 0)
workers=${WORKERS:-$([ "$gpus" -gt 0 ] && echo "$gpus" || echo 2)}
threads=$(( ($(nproc) + workers - 1) / workers ))
number=0
while [ "$number" -lt "$workers" ]; do
    if [ "$gpus" -gt 0 ]; then export CUDA_VISIBLE_DEVICES=$((number % gpus)); fi
    OMP_NUM_THREADS=$threads weince compare work "$@" --threads "$threads" &
    number=$((number + 1))
done
wait
