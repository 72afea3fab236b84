#!/bin/sh
# Two instances share a lease in a file: only one runs its command; when it is stopped, the other takes over.
# Needs `awaitelect` on the PATH, or beside this folder in .venv. Takes about ten seconds and leaves nothing behind.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
PATH="$here/.venv/bin:$PATH"
folder=$(mktemp -d)
trap 'kill $one $two 2>/dev/null || :; wait; rm -rf "$folder"' EXIT
one='' two=''

work='trap "echo \"    $AWAITELECT_IDENTITY: stopping\"; exit 0" TERM
while :; do echo "    $AWAITELECT_IDENTITY: working (token $AWAITELECT_FENCING_TOKEN)"; sleep 1; done'

say() { printf '\n=== %s\n' "$1"; }

say "alice and bob are started; both want to run the same job"
awaitelect --lock "file:$folder/job.lease" --identity alice -- sh -c "$work" &
one=$!
until ls "$folder"/job.lease/*.json >/dev/null 2>&1; do sleep 0.1; done
awaitelect --lock "file:$folder/job.lease" --identity bob -- sh -c "$work" &
two=$!
sleep 3

say "alice is stopped: her job ends, and bob's starts at once"
kill $one
wait $one || :
sleep 3

say "bob is stopped: the lease is free again"
kill $two
wait $two || :
