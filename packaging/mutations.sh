#!/bin/bash
# Applies each patch of testdata/mutations to a copy of the last commit, one at a time,
# and expects the test that the patch names to fail: a promise whose test cannot fail
# is not proven. A patch that does not apply, or does not compile, is a failure, and so
# is a test that fails without the patch.
#
#	packaging/mutations.sh [patch …]
#
# The head of a patch, before the first line that begins with "diff":
#
#	Promise: what it breaks
#	Test: package TestName [VARIABLE=value …]
#
# JOBS patches are tried at a time (two). The copies lie in .cache/mutations, always at
# the same place, so that what was compiled for one run is good for the next.
set -euo pipefail
cd "$(git rev-parse --show-toplevel)"
export GOFLAGS=-tags=hashicorpmetrics
jobs=${JOBS:-2}
export copies=$PWD/.cache/mutations
[ $# -gt 0 ] || set -- testdata/mutations/*.patch
git diff --quiet HEAD || echo "note: changes that are not committed are not in the copies" >&2

discard() {
	for tree in "$copies"/[0-9]*; do
		[ ! -e "$tree" ] || git worktree remove --force "$tree" 2>/dev/null || rm -rf "$tree"
	done
	git worktree prune
}
trap discard EXIT
discard
mkdir -p "$copies"
for ((i = 0; i < jobs; i++)); do
	git worktree add --quiet --detach "$copies/$i" HEAD
	ln -s "$PWD/.cache" "$copies/$i/.cache" # programs that the tests start
done

# field prints one of a patch's head.
field() { sed -n "/^diff/q; s/^$1: //p" "$2"; }

# judge tries a patch in the present directory and prints what is wrong.
judge() { # patch
	local patch=$1 out=$2 pkg name rest
	read -r pkg name rest < <(field Test "$patch") || true
	[ -n "${name:-}" ] && [ -n "$(field Promise "$patch")" ] || { echo "has no Promise or Test"; return 1; }
	git apply "$patch" 2>"$out" || { echo "does not apply: $(head -1 "$out")"; return 1; }
	# shellcheck disable=SC2086
	if env $rest go test -count=1 -vet=off -timeout 5m -run "^$name\$" "$pkg" >"$out" 2>&1; then
		grep -q 'no tests to run' "$out" && { echo "there is no $name in $pkg"; return 1; }
		echo "$pkg $name does not notice it"
		return 1
	fi
	grep -qE '^ *--- FAIL|^panic: ' "$out" || { echo "does not compile: $(grep -m1 -E '\.go:' "$out")"; return 1; }
}

# try judges a patch in the copy of this slot and prints a line.
try() { # patch
	local patch why start=$SECONDS tree=$copies/$slot
	patch=$(realpath "$1")
	if why=$(cd "$tree" && judge "$patch" "$copies/$slot.out"); then
		printf 'ok    %-34s %3ds  %s\n' "$(basename "$patch" .patch)" $((SECONDS - start)) "$(field Promise "$patch")"
	else
		printf 'FAIL  %-34s %3ds  %s\n' "$(basename "$patch" .patch)" $((SECONDS - start)) "$why"
	fi
	git -C "$tree" checkout --quiet --force HEAD -- .
	git -C "$tree" clean --quiet -fd --exclude=/.cache
}
export -f field judge try

# Without a patch the tests pass: each package's at once.
whole() {
	local bad=0 pkg names vars
	for patch in "$@"; do field Test "$patch"; done | sort -u >"$copies/tests"
	while read -r pkg; do
		names=$(awk -v p="$pkg" '$1 == p {print $2}' "$copies/tests" | sort -u | paste -sd'|')
		vars=$(awk -v p="$pkg" '$1 == p {for (i = 3; i <= NF; i++) print $i}' "$copies/tests")
		# shellcheck disable=SC2086
		(cd "$copies/0" && env $vars go test -count=1 -vet=off -timeout 5m -run "^($names)\$" "$pkg" >"$copies/0.out" 2>&1) || {
			echo "FAIL  $pkg ($names) without a patch:"
			grep -E '^ *--- FAIL|^panic: |\.go:' "$copies/0.out" | head -5
			bad=$((bad + 1))
		}
	done < <(awk '{print $1}' "$copies/tests" | sort -u)
	return "$bad"
}
bad=0
whole "$@" || bad=$?
echo "without a patch: $bad packages fail, ${SECONDS}s"
printf '%s\0' "$@" | xargs -0 -n1 -P"$jobs" --process-slot-var=slot bash -c 'try "$1"' _ | tee "$copies/result"
bad=$((bad + $(grep -c '^FAIL' "$copies/result" || true)))
echo "$# mutations, $bad not as they should be, ${SECONDS}s"
[ "$bad" = 0 ]
