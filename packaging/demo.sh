#!/usr/bin/env bash
# A node of Stellar in network namespaces of its own: a real containerd, the
# agent, two labelled containers, and a second host outside. Nothing of the
# machine's own network or containerd is touched.
#   demo.sh up | down
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin

dir=${STELLAR_DEMO_DIR:-/var/lib/stellar-demo}
host=stellar-demo
outside=stellar-demo-out
image=docker.io/stellar/busybox:test
export STELLAR_ADDRESS=unix://$dir/run/stellar.sock
stellar=$PWD/bin/stellar
in_host=(nsenter --net="/run/netns/$host" --)
testbed=.cache/testbed # starts and ends a private containerd, makes images
ctr=(ctr --address "$dir/containerd/containerd.sock")

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
run() { printf '$ %s\n' "$*"; "$@"; }

[ "$(id -u)" = 0 ] || { echo "the demo makes network namespaces and starts containerd: run it as root (sudo make demo)" >&2; exit 1; }

# alive PIDFILE NAME: the recorded process still is what was started here.
alive() {
  local pid
  pid=$(cat "$1" 2>/dev/null) && [ -n "$pid" ] && grep -qzF -- "$dir" "/proc/$pid/cmdline" 2>/dev/null
}

stop() { # stop PIDFILE
  local pid i
  alive "$1" || { rm -f "$1"; return 0; }
  pid=$(cat "$1")
  kill "$pid" 2>/dev/null || true
  for i in $(seq 100); do
    alive "$1" || break
    sleep 0.1
  done
  if alive "$1"; then kill -9 "$pid"; fi
  rm -f "$1"
}

start() { # start NAME COMMAND...: in the demo's host, in the background
  local name=$1
  shift
  setsid "${in_host[@]}" "$@" >"$dir/$name.log" 2>&1 </dev/null &
  echo $! >"$dir/$name.pid"
}

wait_for() { # wait_for WHAT COMMAND...
  local what=$1 i
  shift
  for i in $(seq 200); do
    if "$@" >/dev/null 2>&1; then return 0; fi
    sleep 0.1
  done
  echo "demo: $what does not answer; see the logs in $dir" >&2
  tail -n 20 "$dir"/*.log >&2
  exit 1
}

down() {
  [ ! -d "$dir/containerd" ] || "$testbed" stop "$dir/containerd"
  stop "$dir/agent.pid"
  if [ -e "/run/netns/$host" ] && [ -x "$stellar" ]; then
    "${in_host[@]}" "$stellar" agent cleanup --yes --data-dir "$dir/data" --run-dir "$dir/run" >/dev/null || true
  fi
  for ns in "$host" "$outside"; do
    [ ! -e "/run/netns/$ns" ] || ip netns delete "$ns"
  done
  rm -rf --one-file-system "$dir"
}

up() {
  if [ -e "$dir" ] || [ -e "/run/netns/$host" ]; then
    echo "demo: removing what an earlier demo left"
    down
  fi
  mkdir -p "$dir"
  chmod 700 "$dir"
  trap 'status=$?; if [ $status != 0 ]; then echo "demo: failed, cleaning up (logs were in $dir)" >&2; down; fi' EXIT

  say "Two network namespaces: $host is this node, $outside a machine outside (192.0.2.254)"
  ip netns add "$host"
  ip netns add "$outside"
  ip -n "$host" link set lo up
  ip -n "$outside" link set lo up
  ip -n "$host" link add eth0 type veth peer name eth0 netns "$outside"
  ip -n "$host" address add 192.0.2.1/24 dev eth0
  ip -n "$outside" address add 192.0.2.254/24 dev eth0
  ip -n "$host" link set eth0 up
  ip -n "$outside" link set eth0 up
  ip -n "$host" route add default via 192.0.2.254

  say "containerd, with a directory and a socket of its own"
  "$testbed" start "$dir/containerd" -netns "$host" >/dev/null
  "${ctr[@]}" version | sed -n '/Server/,$p'

  say "The agent, with a new cluster of one node"
  start agent "$stellar" agent --init --node-name demo --data-dir "$dir/data" --run-dir "$dir/run" --containerd-address "$dir/containerd/containerd.sock"
  wait_for "the agent" "$stellar" status --brief
  run "$stellar" status --wait --timeout 30s

  say "Two containers with the label stellar.io/network"
  for id in demo-a demo-b; do
    run "${ctr[@]}" run -d --runc-root "$dir/containerd/runc" --label stellar.io/network=true "$image" "$id" sleep infinity
  done
  "$stellar" wait endpoint demo-a >/dev/null
  "$stellar" wait endpoint demo-b >/dev/null
  run "$stellar" endpoint ls -o wide

  b=$("$stellar" endpoint ls -o json | sed -n '/"container": "demo-b"/,/}/s/.*"address": "\(.*\)".*/\1/p')
  say "From one to the other"
  run "${ctr[@]}" tasks exec --exec-id "ping-$RANDOM" demo-a ping -c 3 -i 0.2 "$b"
  say "From a container to the outside: masqueraded as the host"
  run "${ctr[@]}" tasks exec --exec-id "ping-$RANDOM" demo-a ping -c 3 -i 0.2 192.0.2.254

  say "Go on by hand"
  cat <<TEXT
  export STELLAR_ADDRESS=$STELLAR_ADDRESS CONTAINERD_ADDRESS=$dir/containerd/containerd.sock
  bin/stellar status                     what the node thinks of itself
  bin/stellar endpoint inspect demo-a    one container, with the time of each phase
  bin/stellar events -f                  what happens, while you type:
  ctr run -d --runc-root $dir/containerd/runc --label stellar.io/network=true --label stellar.io/ip=172.16.0.100 $image demo-c sleep infinity
  nsenter --net=/run/netns/$host ip route; nsenter --net=/run/netns/$host nft list table inet stellar
  make demo-down                         removes all of it
TEXT
  trap - EXIT
}

GOFLAGS= go build -o "$testbed" ./internal/testx/testbed

case "${1:-}" in
  up) up ;;
  down) down; echo "demo: nothing is left" ;;
  *) echo "usage: $0 up|down" >&2; exit 2 ;;
esac
