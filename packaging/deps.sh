#!/usr/bin/env bash
# Installs what a fresh Debian or Ubuntu lacks for building, demo and tests, and
# says so. What is there already is left alone; a second run does nothing.
#   deps.sh          all: packages, and containerd 2.x built from its module
#   deps.sh demo     only what the demo needs
#   deps.sh bench    what the benchmark needs
#   deps.sh docs     what makes a site of the documentation
#   deps.sh web      what the tests of the web page need
set -euo pipefail
cd "$(dirname "$0")/.."


# command → Debian package
declare -A needs=(
  [containerd]=containerd [ctr]=containerd [runc]=runc [nft]=nftables [ip]=iproute2 [iptables]=iptables
  [gcc]=gcc [nsenter]=util-linux [ping]=iputils-ping [busybox]=busybox-static
)
what=${1:-all}
case "$what" in
  all) needs+=([conntrack]=conntrack [crun]=crun [setpriv]=util-linux [unshare]=util-linux [protoc]=protobuf-compiler [iperf3]=iperf3
    [lintian]=lintian [systemd-analyze]=systemd [udevadm]=udev [ps]=procps [curl]=curl [chromium]=chromium) ;;
  web) needs=([chromium]=chromium) ;;
  bench) needs+=([iperf3]=iperf3 [chromium]=chromium) ;;
  docs) needs=([mkdocs]=mkdocs) ;;
  demo) ;;
  *) echo "deps: all, demo, bench, docs or web, not $what" >&2; exit 2 ;;
esac

command -v go >/dev/null || { echo "deps: Go is missing; install Go $(sed -n 's/^go //p' go.mod) from https://go.dev/dl or your distribution" >&2; exit 1; }

missing=()
for command in "${!needs[@]}"; do
  command -v "$command" >/dev/null || PATH="$PATH:/usr/sbin:/sbin" command -v "$command" >/dev/null || missing+=("${needs[$command]}")
done
if [[ $what = all || $what = bench ]] && [ ! -x /usr/lib/cni/host-local ]; then missing+=(containernetworking-plugins); fi
if [ "$what" = all ] && [ ! -e /usr/share/bash-completion/bash_completion ]; then missing+=(bash-completion); fi
if [ "${#missing[@]}" -gt 0 ]; then
  readarray -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
  [ "$(id -u)" = 0 ] || { echo "deps: these packages are missing: ${missing[*]}. Run as root: sudo make deps" >&2; exit 1; }
  command -v apt-get >/dev/null || { echo "deps: install these by hand, apt-get is not here: ${missing[*]}" >&2; exit 1; }
  echo "deps: installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  log=$(mktemp)
  # A package may want to start its service; tests and demo start their own.
  policy=
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d && policy=ours
  fi
  trap '[ -z "$policy" ] || rm -f /usr/sbin/policy-rc.d' EXIT
  if ! { apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    exit 1
  fi
  rm -f "$log"
fi

# Takes one program out of its package: installing the package would start a server.
# usage: taken PROGRAM PACKAGE, into .cache/PROGRAM/PROGRAM
taken() {
  local program=$1 package=$2 to=.cache/$1/$1 at
  [ ! -x "$to" ] || return 0
  if command -v "$program" >/dev/null; then
    mkdir -p "${to%/*}" && ln -sf "$(command -v "$program")" "$to"
    return 0
  fi
  echo "deps: $program"
  at=$(mktemp -d)
  { (cd "$at" && { apt-get download "$package" || { apt-get update && apt-get download "$package"; }; }) &&
    dpkg-deb --fsys-tarfile "$at"/"$package"_*.deb | tar -x -C "$at" "./usr/bin/$program"; } >"$at/log" 2>&1 ||
    { tail -n 20 "$at/log" >&2; exit 1; }
  install -D "$at/usr/bin/$program" "$to"
  rm -rf "$at"
}

[[ $what = all || $what = bench ]] || exit 0
# So that no distribution's older CNI plugins are what ours are compared with.
./internal/testx/build-cni.sh .cache/cni-1.9.1
# What leases are compared with.
taken etcd etcd-server
[ "$what" = all ] || exit 0

# promtool judges the alert rules.
taken promtool prometheus

# NetworkManager judges its drop-in: itself, and the one library that nothing else here
# brings.
if [ ! -x .cache/NetworkManager/usr/sbin/NetworkManager ]; then
  echo "deps: NetworkManager"
  at=$(mktemp -d)
  { (cd "$at" && { apt-get download network-manager libndp0 || { apt-get update && apt-get download network-manager libndp0; }; }) &&
    for deb in "$at"/*.deb; do dpkg-deb -x "$deb" "$at/root"; done; } >"$at/log" 2>&1 || { tail -n 20 "$at/log" >&2; exit 1; }
  mkdir -p .cache/NetworkManager/usr/sbin
  cp "$at/root/usr/sbin/NetworkManager" .cache/NetworkManager/usr/sbin/
  cp -r "$at/root/usr/lib" .cache/NetworkManager/usr/
  rm -rf "$at"
fi

# The tests run on the distribution's containerd and on a 2.x, which Debian 12 lacks.
./internal/testx/build-containerd.sh .cache/containerd-2.4.2
echo "deps: all there"
