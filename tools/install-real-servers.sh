#!/bin/bash
# Installs the real servers that the tests run, where they are missing: Debian's Prometheus and Alertmanager
# (promtool, amtool), Chromium for screenshots, and an OpenTelemetry Collector built once by ocb from deploy/collector/builder.yaml.
# The Collector is cached outside the checkout, under a name that says what it was built from.
# Says nothing when there is nothing to do. `--where` prints the Collector's path and installs nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

manifest=deploy/collector/builder.yaml
cache="${XDG_CACHE_HOME:-$HOME/.cache}/otel-openai-usage"
collector="$cache/otelcol-$(sha256sum "$manifest" | cut -c1-12)"

say() { echo "install-real-servers: $*" >&2; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# A policy that answers 101 keeps Debian from starting services that nobody asked for.
install_packages() (
  policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    trap 'as_root rm -f $policy' EXIT
    as_root sh -c "printf '#!/bin/sh\nexit 101\n' > $policy && chmod +x $policy"
  fi
  say "installing Debian's prometheus, prometheus-alertmanager and chromium"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
    prometheus prometheus-alertmanager chromium fonts-dejavu-core > /dev/null
)

build_collector() (
  version=$(sed -n 's/^  version: //p' "$manifest")
  work=$(mktemp -d "$cache/build.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  say "building the OpenTelemetry Collector $version; this takes some minutes, once"
  sed "s#output_path: .*#output_path: $work/source#" "$manifest" > "$work/builder.yaml"
  export GOFLAGS="${GOFLAGS:-} -p=2" # each compiler takes up to a gigabyte
  if ! go run "go.opentelemetry.io/collector/cmd/builder@v$version" --config "$work/builder.yaml" --ldflags="-s -w" > "$work/log" 2>&1; then
    tail -n 30 "$work/log" >&2
    say "the Collector was not built; the lines above say why"
    exit 1
  fi
  mv "$work/source/otelcol" "$collector"
)

if [ "${1:-}" = --where ]; then
  echo "$collector"
  exit 0
fi
for program in prometheus promtool amtool chromium; do
  command -v $program > /dev/null || { install_packages; break; }
done
if [ ! -x "$collector" ]; then
  mkdir -p "$cache"
  exec 9> "$cache/build.lock"
  flock 9 # two checkouts may ask at the same time; the second finds it built
  [ -x "$collector" ] || build_collector
fi
