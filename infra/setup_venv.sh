#!/bin/sh
# Makes the virtual environment $VENV with $PYTHON: torch in a step of its own, then the project with the tested set.
set -eu

if ! version=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null); then
    version="not there or does not run"
fi
case $version in
    3.11 | 3.12) ;;
    *)
        echo "ShareVerse needs Python 3.11 or 3.12, but '${PYTHON:-python3}' is $version: install one and run make PYTHON=/path/to/python3.11." >&2
        exit 1
        ;;
esac

if command -v uv >/dev/null 2>&1; then
    echo "Setting up $VENV with uv ..."
    # uv does not read pip's settings; a folder of wheels given to pip serves uv too.
    export UV_FIND_LINKS="${UV_FIND_LINKS:-$(echo "${PIP_FIND_LINKS:-}" | tr ' ' ',')}"
    test -x "$VENV/bin/python" || uv venv --quiet --seed --python "$PYTHON" "$VENV"
    install() { uv pip install --quiet --python "$VENV/bin/python" "$@"; }
else
    echo "Setting up $VENV with pip (some minutes; faster with uv) ..."
    "$VENV/bin/python" -m pip --version >/dev/null 2>&1 || "$PYTHON" -m venv "$VENV"
    install() { "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }
fi

# Without a GPU the CPU build of torch, a tenth of the size: from the wheels or index that pip is set to where they hold
# it, else from PyTorch's own index where that answers. `--no-deps`: the rest comes with the tested set below.
torch=$(grep '^torch==' constraints.txt)
cpu_index=https://download.pytorch.org/whl/cpu
answers() { "$VENV/bin/python" -c 'import sys, urllib.request as r; r.urlopen(sys.argv[1] + "/torch/", timeout=10)' "$1" 2>/dev/null; }
installed=$("$VENV/bin/python" -c 'from importlib.metadata import version; print("torch==" + version("torch"))' 2>/dev/null || true)
if [ "${installed%%+*}" != "$torch" ]; then
    echo "Installing $torch ..."
    if command -v nvidia-smi >/dev/null 2>&1; then
        install --no-deps "$torch"
    elif install --no-deps "$torch+cpu" 2>/dev/null; then
        :
    elif answers "$cpu_index"; then
        install --no-deps "$torch+cpu" --extra-index-url "$cpu_index"
    else
        echo "$cpu_index does not answer: taking the default build of torch, which may bring CUDA (some GB)."
        install --no-deps "$torch"
    fi
fi

echo "Installing ShareVerse and what it needs ..."
install -e '.[dev]' -c constraints.txt
touch "$VENV/.ready"
