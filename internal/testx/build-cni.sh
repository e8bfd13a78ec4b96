#!/bin/sh
# Builds the reference CNI plugins and cnitool that the tests use, once.
# usage: build-cni.sh DIRECTORY
set -eu
dir=${1:?usage: build-cni.sh DIRECTORY}
plugins=1.9.1 cni=1.3.1
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
if [ "$(cat "$dir/.version" 2>/dev/null)" = "$plugins $cni" ]; then
	exit 0
fi
echo "building the CNI plugins $plugins in $dir"
# Outside the checkout: its go.mod has no say here.
cd /
module=github.com/containernetworking/plugins/plugins
GOBIN=$dir GOFLAGS= CGO_ENABLED=0 go install -trimpath -ldflags '-s -w' \
	"$module/main/bridge@v$plugins" "$module/main/ptp@v$plugins" "$module/ipam/host-local@v$plugins"
GOBIN=$dir GOFLAGS= CGO_ENABLED=0 go install -trimpath -ldflags '-s -w' "github.com/containernetworking/cni/cnitool@v$cni"
echo "$plugins $cni" >"$dir/.version"
