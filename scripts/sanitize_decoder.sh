#!/usr/bin/env bash
# Fuzzes the compiled kernels under the address and undefined-behaviour sanitizers of gcc.
#
# PYTHON has the test dependencies; CHALK_STRESS multiplies the examples of each test (100).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=$(realpath -s "${PYTHON:-.venv/bin/python}")

# A copy of the package with its own extension, so that the one in use stays as it is.
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -r src/chalk_online_store tests conftest.py pyproject.toml "$copy"
find "$copy" -name '*.so' -delete
codec=$copy/chalk_online_store/codec
include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
suffix=$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')
gcc -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer \
    -Wall -Wextra -shared -fPIC -I"$include" "$codec"/_kernels_*.c -o "$codec/_kernels$suffix"

cd "$copy"
# Python itself never frees some of what it allocates, and hides bytes from the address sanitizer
# in its own allocator: PYTHONMALLOC gives every object its own red zones.
env LD_PRELOAD="$(gcc -print-file-name=libasan.so):$(gcc -print-file-name=libubsan.so)" \
    ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc PYTHONPATH="$copy" \
    CHALK_STRESS="${CHALK_STRESS:-20}" \
    "$python" -m pytest -p no:cacheprovider --capture=no -q tests/test_decoder.py tests/test_kernels.py \
    tests/test_matrix.py # or it is silent
