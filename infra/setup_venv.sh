#!/bin/sh
# Makes the virtual environment $VENV with $PYTHON: torch in a step of its own, then the project with the tested set.
set -eu

"$PYTHON" -c 'import sys; sys.exit(not ((3, 11) <= sys.version_info < (3, 13)))' 2>/dev/null || {
    echo "ShareVerse needs Python 3.11 or 3.12, but '${PYTHON:-python3}' is $("$PYTHON" --version 2>&1 || echo missing): install one and run make PYTHON=/path/to/python3.11." >&2
    exit 1
}

if command -v uv >/dev/null 2>&1; then
    echo "Setting up $VENV with uv ..."
    test -x "$VENV/bin/python" || uv venv --quiet --seed --python "$PYTHON" "$VENV"
    install() { uv pip install --quiet --python "$VENV/bin/python" "$@"; }
else
    echo "Setting up $VENV with pip (some minutes; faster with uv) ..."
    test -x "$VENV/bin/python" || "$PYTHON" -m venv "$VENV"
    install() { "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }
fi

torch=$(grep '^torch==' constraints.txt)
if ! "$VENV/bin/python" -c "import importlib.metadata as m, sys; sys.exit(m.version('torch').split('+')[0] != '${torch#torch==}')" 2>/dev/null; then
    echo "Installing $torch ..."
    # Without a GPU the CPU build: a tenth of the size. Its index may be out of reach, then the default index serves.
    if command -v nvidia-smi >/dev/null 2>&1 || ! install "$torch+cpu" --extra-index-url https://download.pytorch.org/whl/cpu 2>/dev/null; then
        install "$torch"
    fi
fi

echo "Installing ShareVerse and what it needs ..."
install -e '.[dev]' -c constraints.txt
touch "$VENV/.ready"
