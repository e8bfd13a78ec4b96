#!/usr/bin/env bash
# Three nodes of Stellar on one machine: each in a network namespace of its own,
# with a real containerd, the agent and a labelled container; a fourth namespace
# is their switch and a machine outside. Nothing of the machine's own network or
# containerd is touched.
#   demo.sh up | down
#   demo.sh on a|b|c COMMAND...     a command as if typed on that machine
# STELLAR_DEMO_MODE=routed: without bridges. STELLAR_DEMO_DIR and STELLAR_DEMO_PREFIX:
# where its files lie and what its namespaces are called, for a second one.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PWD/bin:$PATH:/usr/sbin:/sbin

dir=${STELLAR_DEMO_DIR:-/var/lib/stellar-demo}
nodes=(a b c)
prefix=${STELLAR_DEMO_PREFIX:-stellar-demo}
outside=$prefix-out # the switch, and the machine 192.0.2.254
image=docker.io/stellar/busybox:test
testbed=.cache/testbed # starts and ends a private containerd, makes images

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

# on NODE COMMAND...: as if typed on that machine.
on() { (
  node=$1
  shift
  export STELLAR_ADDRESS=unix://$dir/$node/run/stellar.sock CONTAINERD_ADDRESS=$dir/$node/containerd/containerd.sock
  exec nsenter --net="/run/netns/$prefix-$node" -- "$@"
); }

# show NODE COMMAND...: on, with the command itself.
show() {
  printf '\033[2mdemo-%s#\033[0m %s\n' "$1" "${*:2}"
  on "$@"
}

# ping NODE ADDRESS [COUNT]: from the container of the node.
ping() {
  printf '\033[2mweb-%s#\033[0m ping %s\n' "$1" "$2"
  on "$1" ctr tasks exec --exec-id "ping-$RANDOM$RANDOM" "web-$1" ping -c "${3:-2}" -i 0.2 -W 1 "$2" | sed -n '/packets transmitted/,$p'
}

# alive PIDFILE: the recorded process still is what was started here.
alive() {
  local pid
  pid=$(cat "$1" 2>/dev/null) && [ -n "$pid" ] && grep -qzF -- "$dir/" "/proc/$pid/cmdline" 2>/dev/null
}

stop() { # stop PIDFILE
  local pid
  alive "$1" || { rm -f "$1"; return 0; }
  pid=$(cat "$1")
  kill "$pid" 2>/dev/null || true
  for _ in $(seq 100); do
    alive "$1" || break
    sleep 0.1
  done
  if alive "$1"; then kill -9 "$pid"; fi
  rm -f "$1"
}

agent() { # agent NODE FLAGS...: in the background
  local node=$1 d=$dir/$1
  shift
  setsid nsenter --net="/run/netns/$prefix-$node" -- stellar agent --node-name "demo-$node" --data-dir "$d/data" --run-dir "$d/run" \
    --containerd-address "$d/containerd/containerd.sock" ${STELLAR_DEMO_MODE:+--mode "$STELLAR_DEMO_MODE"} "$@" >"$d/agent.log" 2>&1 </dev/null &
  echo $! >"$d/agent.pid"
  disown
}

wait_for() { # wait_for WHAT COMMAND...
  local what=$1
  shift
  for _ in $(seq 200); do
    if "$@" >/dev/null 2>&1; then return 0; fi
    sleep 0.1
  done
  echo "demo: $what: not within 20 s" >&2
  return 1
}

netns() {
  local node i=0
  ip netns add "$outside"
  ip -n "$outside" link set lo up
  ip -n "$outside" link add switch type bridge
  ip -n "$outside" address add 192.0.2.254/24 dev switch
  ip -n "$outside" link set switch up
  for node in "${nodes[@]}"; do
    i=$((i + 1))
    ip netns add "$prefix-$node"
    ip -n "$prefix-$node" link set lo up
    ip -n "$prefix-$node" link add eth0 type veth peer name "port-$node" netns "$outside"
    ip -n "$outside" link set "port-$node" master switch up
    ip -n "$prefix-$node" address add "192.0.2.$i/24" dev eth0
    ip -n "$prefix-$node" link set eth0 up
    ip -n "$prefix-$node" route add default via 192.0.2.254
  done
}

containerds() {
  local node pids=() pid
  for node in "${nodes[@]}"; do
    mkdir -p "$dir/$node"
    "$testbed" start "$dir/$node/containerd" -netns "$prefix-$node" >/dev/null &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do wait "$pid"; done
}

down() {
  local node
  for node in "${nodes[@]}"; do
    [ ! -d "$dir/$node/containerd" ] || "$testbed" stop "$dir/$node/containerd"
    stop "$dir/$node/agent.pid"
    [ ! -e "/run/netns/$prefix-$node" ] || ip netns delete "$prefix-$node"
  done
  [ ! -e "/run/netns/$outside" ] || ip netns delete "$outside"
  rm -rf --one-file-system "$dir"
}

leftovers() { [ -e "$dir" ] || compgen -G "/run/netns/$prefix-*" >/dev/null; }

failed() {
  local status=$?
  [ $status != 0 ] || return 0
  trap - EXIT
  tail -n 20 "$dir"/?/agent.log >&2 || true
  echo "demo: failed (exit code $status), removing what it made" >&2
  down
  exit $status
}

up() {
  local node id
  local -A address
  if leftovers; then
    echo "demo: removing what an earlier demo left"
    down
  fi
  trap failed EXIT
  trap 'exit 130' INT TERM
  mkdir -p "$dir"
  chmod 700 "$dir"

  say "Three machines: network namespaces $prefix-a, -b, -c (192.0.2.1 to .3), each with a containerd; outside is 192.0.2.254"
  netns
  containerds

  say "The agent on each; one makes a cluster, the others join it with a token"
  agent a --init
  agent b
  agent c
  for node in "${nodes[@]}"; do
    wait_for "the agent of node $node" test -S "$dir/$node/run/stellar.sock"
  done
  on a stellar status --wait --timeout 30s >/dev/null
  for node in b c; do
    printf '\033[2mdemo-a#\033[0m stellar cluster token create   \033[2m| demo-%s#\033[0m stellar cluster join 192.0.2.1 --token-file -\n' "$node"
    on a stellar cluster token create | on "$node" stellar cluster join 192.0.2.1 --token-file -
  done
  for node in "${nodes[@]}"; do
    on "$node" stellar status --wait --timeout 30s >/dev/null
  done

  say "A container with the label stellar.io/network on each"
  for node in "${nodes[@]}"; do
    show "$node" ctr run -d --runc-root "$dir/$node/containerd/runc" --label stellar.io/network=true "$image" "web-$node" sleep infinity
    on "$node" stellar wait endpoint "web-$node" >/dev/null
    address[$node]=$(on "$node" stellar endpoint ls -o json | sed -n "/\"container\": \"web-$node\"/,/}/s/.*\"address\": \"\(.*\)\".*/\1/p")
  done

  say "What every node knows"
  wait_for "the leases are replicated" counted
  show a stellar node ls
  for node in "${nodes[@]}"; do
    show "$node" stellar endpoint ls
    show "$node" stellar route ls
  done

  say "From every container to the containers of the other nodes, over plain routes, and to the outside, masqueraded"
  for node in "${nodes[@]}"; do
    for id in "${nodes[@]}"; do
      [ "$node" = "$id" ] || ping "$node" "${address[$id]}"
    done
    ping "$node" 192.0.2.254
  done

  say "The agent of demo-c is killed while web-a pings web-c: the kernel carries the packets, none is lost"
  ping a "${address[c]}" 15 >"$dir/ping.log" &
  id=$!
  sleep 1
  kill -9 "$(cat "$dir/c/agent.pid")"
  wait "$id"
  cat "$dir/ping.log"
  ping b "${address[a]}"

  say "demo-c is removed by force"
  show a stellar node rm demo-c --force --yes
  wait_for "the route to demo-c is withdrawn" withdrawn "${address[c]}"
  show a stellar node ls
  show a stellar route ls
  show a stellar ipam ls
  ping b "${address[a]}"
  cat <<TEXT

The subnet of demo-c is in quarantine: web-c still runs and still has its address, for nobody told it to stop. So the
routes to it are gone, and its addresses are given to nobody, until you say that the machine is dead for certain.
TEXT

  say "Go on by hand"
  cat <<TEXT
  packaging/demo.sh on a stellar status            any command on machine a, b or c (\`on a bash\`: a shell there)
  packaging/demo.sh on b stellar endpoint inspect web-b
  packaging/demo.sh on b stellar events -f         what happens, while you type:
  packaging/demo.sh on b ctr run -d --runc-root $dir/b/containerd/runc --label stellar.io/network=true --label stellar.io/ip=172.16.4.100 $image web-d sleep infinity
  packaging/demo.sh on a stellar ipam release 172.16.8.0/22 --yes      ends the quarantine
  packaging/demo.sh on a ip route                  packaging/demo.sh on a nft list table inet stellar
  make demo-down                                   removes all of it
TEXT
  trap - EXIT INT TERM
}

counted() { ! on a stellar node ls --no-headers | awk '$(NF-1) != 1' | grep -q .; }
withdrawn() { ! on a ip route get "$1" 2>/dev/null | grep -q via; }

[ "$(id -u)" = 0 ] || { echo "the demo makes network namespaces and starts containerd: run it as root (sudo make demo)" >&2; exit 1; }
case "${1:-}" in
  up | down) GOFLAGS= go build -o "$testbed" ./internal/testx/testbed ;;
esac
case "${1:-}" in
  up) up ;;
  down) down; echo "demo: nothing is left" ;;
  on)
    [ $# -ge 3 ] || { echo "usage: $0 on a|b|c COMMAND..." >&2; exit 2; }
    on "${@:2}"
    ;;
  *) echo "usage: $0 up | down | on NODE COMMAND..." >&2; exit 2 ;;
esac
