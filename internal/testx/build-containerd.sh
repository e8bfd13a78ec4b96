#!/bin/sh
# Builds the containerd 2.x that the tests use, once.
# usage: build-containerd.sh DIRECTORY [VERSION]
set -eu
dir=${1:?usage: build-containerd.sh DIRECTORY [VERSION]}
version=${2:-2.4.2}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
if [ "$(cat "$dir/.version" 2>/dev/null)" = "$version" ]; then
	exit 0
fi
module=github.com/containerd/containerd/v2
echo "building containerd $version in $dir (about a minute)"
# Outside the checkout: its go.mod has no say here.
cd /
GOBIN=$dir GOFLAGS= CGO_ENABLED=0 go install -trimpath -ldflags "-s -w -X $module/version.Version=$version" \
	"$module/cmd/containerd@v$version" "$module/cmd/ctr@v$version" "$module/cmd/containerd-shim-runc-v2@v$version"
echo "$version" >"$dir/.version"
