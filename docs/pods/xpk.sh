#!/bin/bash
# Two v5e-16 slices of a cluster that xpk made: bash xpk.sh CLUSTER IMAGE
set -euo pipefail

xpk workload create --cluster "$1" --workload lrd-jax --docker-image "$2" --tpu-type v5litepod-16 --num-slices 2 \
  --max-restarts 4 --command "
  lrd-jax generate --model /shared/llada-8b-instruct --dtype bfloat16 --chat --gen-length 512 \
  --input /shared/prompts.jsonl --output /shared/answers.txt --batch 32 --mesh data=8,tensor=4"
