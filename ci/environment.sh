# shellcheck shell=bash
# To be sourced by the other scripts: the project's environment, and a work folder of this job's own.
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
python=${PYTHON:-python3}
[[ -x .venv/bin/nox ]] || { "$python" -m venv .venv && .venv/bin/pip install --quiet "nox[uv]"; }
.venv/bin/nox -s bench --install-only >/dev/null
output=$PWD/ci-output
mkdir -p "$output"
# What this machine needs to build images, such as "--network host --certificates /etc/ssl/certs/ca-certificates.crt".
# shellcheck disable=SC2034
read -ra build_options <<<"${IMAGE_BUILD_OPTIONS:-}"
bench() { .nox/bench/bin/selfflow-bench --work "$output/work" --results "$output/results" "$@"; }
