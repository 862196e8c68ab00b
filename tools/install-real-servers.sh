#!/bin/bash
# Installs the real servers that the tests run, where they are missing: Debian's Prometheus and Alertmanager
# (promtool, amtool), PostgreSQL and pgbouncer, Chromium for screenshots, an OpenTelemetry Collector built once by ocb from deploy/collector/builder.yaml,
# a Prometheus 3 (server and promtool, without its web page) built once from the modules of that Collector, and Helm.
# With Node on the machine, also the packages of examples/node.
# What is built is cached outside the checkout, under names that say what it was built from.
# Says nothing when there is nothing to do. `--where [otelcol|prometheus3|promtool3|helm|node_modules|litellm]` prints a path and installs nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

manifest=deploy/collector/builder.yaml
cache="${XDG_CACHE_HOME:-$HOME/.cache}/otel-openai-usage"
# Comments in the manifest do not change what is built.
built_from=$(grep -v '^ *#' "$manifest" | sha256sum | cut -c1-12)
collector="$cache/otelcol-$built_from"
prometheus="$cache/prometheus3-$built_from"
promtool="$cache/promtool3-$built_from"
helm_version=v3.22.0
helm="$cache/helm-$helm_version"
litellm_version=1.110.2
litellm="$cache/litellm-$litellm_version"
node="$cache/node-$(sha256sum < examples/node/package.json | cut -c1-12)"
version=$(sed -n 's/^  version: //p' "$manifest")
export GOFLAGS="${GOFLAGS:-} -p=2" # each compiler takes up to a gigabyte

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
  say "installing Debian's prometheus, prometheus-alertmanager, postgresql, pgbouncer and chromium"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
    prometheus prometheus-alertmanager postgresql-15 pgbouncer chromium fonts-dejavu-core > /dev/null
)

# build WHAT COMMAND...: runs the command in $work; what it says is shown only if it fails.
build() {
  local what=$1
  shift
  say "building $what; this takes some minutes, once"
  if ! "$@" > "$work/log" 2>&1; then
    tail -n 30 "$work/log" >&2
    say "$what was not built; the lines above say why"
    return 1
  fi
}

ocb() {
  sed "s#output_path: .*#output_path: $work/source#" "$manifest" > "$work/builder.yaml"
  go run "go.opentelemetry.io/collector/cmd/builder@v$version" --config "$work/builder.yaml" "$@"
}

build_collector() (
  work=$(mktemp -d "$cache/build.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  build "the OpenTelemetry Collector $version" ocb --ldflags="-s -w"
  mv "$work/source/otelcol" "$collector"
)

# The Collector's Prometheus receiver brings the whole of Prometheus as a module, so its versions fit together.
# `|| return` because bash ignores `set -e` in a function whose status is tested.
compile_prometheus() {
  ocb --skip-compilation || return
  mkdir "$work/empty" || return
  cp "$work/source/go.mod" "$work/source/go.sum" "$work/empty" || return
  cd "$work/empty" || return
  export CGO_ENABLED=0 GOFLAGS="$GOFLAGS -buildvcs=false -mod=mod"
  local program
  for program in prometheus promtool; do
    go build -trimpath -tags remove_all_sd -ldflags "-s -w" -o "$work/$program" \
      "github.com/prometheus/prometheus/cmd/$program" || return
  done
}

build_prometheus() (
  work=$(mktemp -d "$cache/build.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  build "Prometheus 3" compile_prometheus
  mv "$work/promtool" "$promtool"
  mv "$work/prometheus" "$prometheus"
)

build_helm() (
  work=$(mktemp -d "$cache/build.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  build "Helm $helm_version" env GOBIN="$work" CGO_ENABLED=0 \
    go install -trimpath -ldflags "-s -w" "helm.sh/helm/v3/cmd/helm@$helm_version"
  mv "$work/helm" "$helm"
)

# Not in the project's own environment: it pins many packages that we use, too.
install_litellm() (
  work=$(mktemp -d "$cache/build.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  rm -rf "$litellm" # a virtual environment can't be moved, so what is half made is made again
  build "an environment for LiteLLM $litellm_version" install_litellm_there
)

install_litellm_there() {
  python3 -m venv "$litellm" || return
  "$litellm/bin/pip" install --quiet "litellm==$litellm_version" || return
  touch "$litellm/complete"
}

install_node_packages() (
  work=$(mktemp -d "$cache/build.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  cp examples/node/package.json "$work"
  build "the packages of examples/node" npm --prefix "$work" install --no-package-lock --no-audit --no-fund
  mv "$work" "$node"
)

if [ "${1:-}" = --where ]; then
  case "${2:-otelcol}" in
    otelcol) echo "$collector" ;;
    prometheus3) echo "$prometheus" ;;
    promtool3) echo "$promtool" ;;
    helm) echo "$helm" ;;
    node_modules) echo "$node/node_modules" ;;
    litellm) echo "$litellm/bin/python" ;;
    *)
      say "expected otelcol, prometheus3, promtool3, helm, node_modules or litellm, got $2"
      exit 2
      ;;
  esac
  exit 0
fi
for program in prometheus promtool amtool chromium pgbouncer /usr/lib/postgresql/15/bin/postgres; do
  command -v $program > /dev/null || { install_packages; break; }
done
if [ ! -x "$collector" ] || [ ! -x "$prometheus" ] || [ ! -x "$helm" ]; then
  mkdir -p "$cache"
  exec 9> "$cache/build.lock"
  flock 9 # two checkouts may ask at the same time; the second finds it built
  [ -x "$collector" ] || build_collector
  [ -x "$prometheus" ] || build_prometheus
  [ -x "$helm" ] || build_helm
fi
if [ ! -e "$litellm/complete" ]; then
  mkdir -p "$cache"
  exec 9> "$cache/build.lock"
  flock 9
  [ -e "$litellm/complete" ] || install_litellm
fi
# A machine without Node has no use for them; the tests that need them are skipped there.
if [ ! -d "$node" ] && command -v npm > /dev/null; then
  mkdir -p "$cache"
  exec 9> "$cache/build.lock"
  flock 9
  [ -d "$node" ] || install_node_packages
fi
