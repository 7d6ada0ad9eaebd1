#!/bin/sh
# Registers work pools and deployments, then works for the pool $1 (local: embedded simulator; cluster: CARLA and GPUs).
set -eu
umask 077
pool=${1:-local}
for name in local cluster; do
    python -m prefect --no-prompt work-pool create "$name" --type process --overwrite
done
python -m prefect --no-prompt deploy --all
exec python -m infra.stack.prefect_worker --pool "$pool"
