#!/bin/bash
# Applies each patch of testdata/mutations to a copy of the last commit, one at a time,
# and expects the test that the patch names to fail: a promise whose test cannot fail
# is not proven. A patch that does not apply, or does not compile, is a failure.
#
#	packaging/mutations.sh [patch …]
#
# The head of a patch, before the first line that begins with "diff":
#
#	Promise: what it breaks
#	Test: package TestName [VARIABLE=value …]
set -euo pipefail
cd "$(git rev-parse --show-toplevel)"
export GOFLAGS=-tags=hashicorpmetrics
root=$PWD
[ $# -gt 0 ] || set -- testdata/mutations/*.patch
git diff --quiet HEAD || echo "note: changes that are not committed are not in the copy" >&2

copy=$(mktemp -d)
trap 'git worktree remove --force "$copy/tree" 2>/dev/null || true; rm -rf "$copy"' EXIT
git worktree add --quiet --detach "$copy/tree" HEAD
out=$copy/out
bad=0

judge() { # patch
	local patch=$1 pkg name rest
	read -r pkg name rest < <(sed -n 's/^Test: //p' "$patch")
	[ -n "${name:-}" ] && grep -q '^Promise: ' "$patch" || { echo "has no Promise or Test"; return 1; }
	git apply "$patch" 2>"$out" || { echo "does not apply: $(head -1 "$out")"; return 1; }
	# shellcheck disable=SC2086
	if env $rest go test -count=1 -vet=off -timeout 5m -run "^$name\$" "$pkg" >"$out" 2>&1; then
		grep -q 'no tests to run' "$out" && { echo "there is no $name in $pkg"; return 1; }
		echo "$pkg $name does not notice it"
		return 1
	fi
	grep -qE '^ *--- FAIL|^panic: ' "$out" || { echo "does not compile: $(grep -m1 -E '\.go:' "$out")"; return 1; }
}

for patch in "$@"; do
	patch=$(realpath "$patch")
	start=$SECONDS
	if why=$(cd "$copy/tree" && judge "$patch"); then
		printf 'ok    %-34s %3ds  %s\n' "$(basename "$patch" .patch)" $((SECONDS - start)) "$(sed -n 's/^Promise: //p' "$patch")"
	else
		printf 'FAIL  %-34s %3ds  %s\n' "$(basename "$patch" .patch)" $((SECONDS - start)) "$why"
		bad=$((bad + 1))
	fi
	git -C "$copy/tree" checkout --quiet --force HEAD -- .
	git -C "$copy/tree" clean --quiet -fd
done
echo "$# mutations, $bad not noticed as they should be, ${SECONDS}s"
cd "$root"
[ "$bad" = 0 ]
