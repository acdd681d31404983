package capture

import "github.com/ebpfdump/ebpfdump/capture/internal/process"

// ProcessesNamed lists the processes that are called so, for a JoinConfig's PIDs, as ps
// shows their names; there may be none. This process is never among them.
func ProcessesNamed(name string) []int { return process.Named(name) }
