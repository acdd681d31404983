#!/bin/sh
# Surveys other kernels under QEMU, and writes what they said and what changed
# from each to the next. Needs what make kernels needs.
# usage: make.sh VMRUN KERNEL...
set -eu
[ $# -gt 2 ] || { echo "usage: $0 VMRUN KERNEL KERNEL..." >&2; exit 2; }
vmrun=$1
shift
cd "$(dirname "$0")"
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
CGO_ENABLED=0 go build -o "$work/ebpfdump" ../../cmd/ebpfdump

rm -f ./*.json
surveys=
for kernel in "$@"; do
	echo "surveying Linux $kernel"
	"$vmrun" run -kernel "$kernel" -out "/survey.json:$work/survey.json" "$work/ebpfdump" survey --hooks -o /survey.json
	series=$(sed -n 's/.*"kernel": "\([0-9]*\.[0-9]*\).*/\1/p' "$work/survey.json" | head -n 1)
	cp "$work/survey.json" "$series.json"
	surveys="$surveys $series"
done

{
	cat introduction.md
	before=
	for series in $surveys; do
		if [ -n "$before" ]; then
			printf '\n### From %s to %s\n\n' "$before" "$series"
			status=0
			"$work/ebpfdump" survey --compare "$before.json" "$series.json" >"$work/differences" || status=$?
			# 5 says that something differs.
			[ $status = 0 ] || [ $status = 5 ] || exit $status
			sed 's/^/    /' "$work/differences"
		fi
		before=$series
	done
	printf '\n## The newest of them, Linux %s\n\n' "$before"
	"$work/ebpfdump" survey --read "$before.json" --markdown | sed 's/^#/##/'
} >"$work/README.md"
cp "$work/README.md" README.md
