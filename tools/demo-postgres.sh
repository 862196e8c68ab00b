#!/bin/bash
# `make demo STATE=postgres`: the demo with its state in a PostgreSQL of its own, in a temporary folder that is removed afterwards.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=$(ls -d /usr/lib/postgresql/*/bin 2> /dev/null | sort -V | tail -n 1)
if [ -z "$bin" ]; then
  echo "demo: there is no PostgreSQL; \`make servers\` installs Debian's" >&2
  exit 1
fi
folder=$(mktemp -d "${TMPDIR:-/tmp}/otel-openai-usage-postgres.XXXXXX")
port=$(.venv/bin/python -c "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])")

# PostgreSQL refuses to run as root.
as_postgres() {
  if [ "$(id -u)" = 0 ]; then (cd "$folder" && setpriv --reuid=postgres --regid=postgres --clear-groups "$@"); else "$@"; fi
}

stop() {
  as_postgres "$bin/pg_ctl" -D "$folder/data" -m fast stop > /dev/null 2>&1 || true
  rm -rf "$folder"
}
trap stop EXIT

[ "$(id -u)" != 0 ] || chown postgres: "$folder"
as_postgres "$bin/initdb" -D "$folder/data" -U usage -A trust -E UTF8 > /dev/null
as_postgres "$bin/pg_ctl" -D "$folder/data" -l "$folder/log" -w -o "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories=$folder" start > /dev/null
echo "PostgreSQL: psql postgresql://usage@127.0.0.1:$port/postgres"
.venv/bin/otel-openai-usage demo --state-url "postgresql://usage@127.0.0.1:$port/postgres" "$@"
