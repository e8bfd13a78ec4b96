#!/bin/bash
# Applies each patch of testdata/mutations to a copy of the last commit, one at a time,
# and expects the test that the patch names to fail: a promise whose test cannot fail
# is not proven. A patch that does not apply, or does not compile, is a failure, and so
# is a test that fails without the patch.
#
#	packaging/mutations.sh [--whole] [patch …]
#
# The head of a patch, before the first line that begins with "diff":
#
#	Promise: what it breaks
#	Test: package TestName [VARIABLE=value …]
#	Whole: ./integration TestName [VARIABLE=value …]
#
# Test is the smallest that notices. Whole, of which there may be several or none, are
# tests on whole nodes that notice as well, in minutes instead of seconds: they run with
# --whole, and only then. A patch that only a whole node notices has no Test. What a whole
# test says when it fails is printed: it may have failed for another reason. Whole tests
# are not run without their patches first: make test-faults does.
#
# JOBS patches are tried at a time (two). The copies lie in .cache/mutations, always at
# the same place, so that what was compiled for one run is good for the next.
set -euo pipefail
cd "$(git rev-parse --show-toplevel)"
export GOFLAGS=-tags=hashicorpmetrics
jobs=${JOBS:-2}
export copies=$PWD/.cache/mutations
export header=Test
[ "${1:-}" != --whole ] || { header=Whole; shift; }
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

# judge tries a patch and a test in the present directory and prints what is wrong.
judge() { # patch, file for what it says, package, test, variables
	local patch=$1 out=$2 pkg=$3 name=${4:-} rest=${5:-}
	[ -n "$name" ] && [ -n "$(field Promise "$patch")" ] || { echo "has no Promise or Test"; return 1; }
	git apply "$patch" 2>"$out" || { echo "does not apply: $(head -1 "$out")"; return 1; }
	# shellcheck disable=SC2086
	if env $rest go test -count=1 -vet=off -timeout 10m -run "^$name\$" "$pkg" >"$out" 2>&1; then
		grep -q 'no tests to run' "$out" && { echo "there is no $name in $pkg"; return 1; }
		echo "$pkg $name does not notice it"
		return 1
	fi
	grep -qE '^ *--- FAIL|^panic: ' "$out" || { echo "does not compile: $(grep -m1 -E '\.go:' "$out")"; return 1; }
}

# try judges a patch and a test in the copy of this slot and prints a line.
try() { # patch, package, test, variables
	local patch why what=$1 start=$SECONDS tree=$copies/$slot
	patch=$(realpath "$1")
	what=$(basename "$patch" .patch)
	[ "$header" = Test ] || what="$what ${3:-}"
	if why=$(cd "$tree" && judge "$patch" "$copies/$slot.out" "${@:2}"); then
		printf 'ok    %-34s %3ds  %s\n' "$what" $((SECONDS - start)) "$(field Promise "$patch")"
		[ "$header" = Test ] || grep -m2 -E '^ +[a-z_]+_test\.go:[0-9]+: ' "$copies/$slot.out" | cut -c1-200
	else
		printf 'FAIL  %-34s %3ds  %s\n' "$what" $((SECONDS - start)) "$why"
	fi
	git -C "$tree" checkout --quiet --force HEAD -- .
	git -C "$tree" clean --quiet -fd --exclude=/.cache
}
export -f field judge try

# pairs prints each patch with each test of its head, four lines a pair, and a patch
# without any test as it is, to be called wrong.
pairs() { # patch …
	local patch line
	for patch in "$@"; do
		while read -r line; do
			# shellcheck disable=SC2086
			set -- $line
			printf '%s\0' "$patch" "$1" "$2" "${*:3}"
		done < <(field "$header" "$patch")
		grep -qE '^(Test|Whole): ' "$patch" || printf '%s\0' "$patch" "" "" ""
	done
}

# Without a patch the tests pass: each package's at once.
without() { # patch …
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
if [ "$header" = Test ]; then
	without "$@" || bad=$?
	echo "without a patch: $bad packages fail, ${SECONDS}s"
fi
pairs "$@" | xargs -0 -r -n4 -P"$jobs" --process-slot-var=slot bash -c 'try "$@"' _ | tee "$copies/result"
bad=$((bad + $(grep -c '^FAIL' "$copies/result" || true)))
echo "$(grep -cE '^(ok|FAIL) ' "$copies/result" || true) mutations, $bad not as they should be, ${SECONDS}s"
[ "$bad" = 0 ]
