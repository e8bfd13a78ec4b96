#!/usr/bin/env bash
# Makes the generated Go code anew from the .proto files.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v protoc >/dev/null || { echo "generate: protoc is missing: make deps" >&2; exit 1; }
bin=$PWD/.cache/bin
GOFLAGS= GOBIN=$bin go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
GOFLAGS= GOBIN=$bin go install connectrpc.com/connect/cmd/protoc-gen-connect-go@v1.21.1
export PATH=$bin:$PATH
protoc --go_out=. --go_opt=module=stellar.io/stellar ipam/ipampb/*.proto
protoc -I api --go_out=. --go_opt=module=stellar.io/stellar --connect-go_out=. --connect-go_opt=module=stellar.io/stellar,simple api/stellar/v1/*.proto api/stellar/peer/v1/*.proto
echo "generate: done"
