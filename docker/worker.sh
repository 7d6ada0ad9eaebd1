#!/bin/sh
# Registers work pools and deployments, then works for the pool $1 (local: embedded simulator; cluster: CARLA and GPUs).
set -eu
pool=${1:-local}
for name in local cluster; do
    python -m prefect --no-prompt work-pool create "$name" --type process --overwrite
done
python -m prefect --no-prompt deploy --all
exec python -m prefect worker start --pool "$pool" --type process
