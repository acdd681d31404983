package capture

import "github.com/ebpfdump/ebpfdump/capture/internal/process"

// ProcessesNamed lists the processes with a name, for a JoinConfig's PIDs, by the name that ps
// shows; there may be none. This process is never among them.
func ProcessesNamed(name string) []int { return process.Named(name) }
