# Read by the bash scripts of the tests: nothing that they wait for takes forever,
# and what went wrong is said.

# A script's children have its output: whoever waits for its end waits for theirs.
trap 'kill -9 $(jobs -p) 2>/dev/null' EXIT

# await CONDITION waits until a command succeeds.
await() {
	until eval "$1"; do
		if [ $SECONDS -ge 120 ]; then
			echo "waited in vain until $1" >&2
			tail -n 100 -- *log >&2
			exit 7
		fi
		sleep 0.05
	done
}

# ended PID waits for the end of a child, and returns its status.
ended() {
	await "! kill -0 $1 2>/dev/null"
	wait "$1"
}
