#!/bin/bash
# The same command on every host of a Cloud TPU VM slice: bash tpu-vm.sh NAME ZONE
set -euo pipefail

gcloud compute tpus tpu-vm ssh "$1" --zone "$2" --worker=all --command "
  lrd-jax generate --model /shared/llada-8b-instruct --dtype bfloat16 --chat --gen-length 512 \
  --input /shared/prompts.jsonl --output /shared/answers.txt --batch 16 --mesh data=4,tensor=4"
