# Read by the bash scripts of the tests: nothing that they wait for takes forever,
# and what went wrong is said.

# A script's children have its output: whoever waits for its end waits for theirs.
trap 'kill -9 $(jobs -p) 2>/dev/null || true' EXIT

# What an earlier script has left would answer for what this one waits for, until its
# children have opened theirs.
rm -f -- *log *ready

# give_up says what was not to be, and what the logs say: the closing lines of
# programs that can still end, and where those hang that cannot.
give_up() {
	kill -INT $(jobs -p)
	sleep 2
	kill -QUIT $(jobs -p) 2>/dev/null && sleep 1
	tail -n 200 -- *log
	echo "waited in vain until $1: $({ tail -qn 4 -- *log; grep -ah -A 8 '^goroutine 1 ' -- *log; } | tr -s '\n\t' ';')"
	exit 7
} >&2

# await CONDITION waits until a command succeeds. Each child of a script has a log of its
# own: that of an earlier one would answer for it. How long the script took until then, on a
# machine that does other things as well, is nothing that it waits for.
await() {
	local since=$SECONDS
	until eval "$1"; do
		[ $((SECONDS - since)) -lt 120 ] || give_up "$1"
		sleep 0.05
	done
}

# ended PID waits for the end of a child, and returns its status.
ended() {
	await "! kill -0 $1 2>/dev/null"
	wait "$1"
}
