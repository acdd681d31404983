package capture

import "github.com/ebpfdump/ebpfdump/capture/internal/process"

// ProcessesNamed lists the processes with a name, for a JoinConfig's PIDs, by the name that ps
// shows; there may be none. This process is never among them.
func ProcessesNamed(name string) []int { return process.Named(name) }

// Programs lists the processes that run a program, which the kernel's own threads do not, in
// ascending order and without this one. It needs no privilege, and looks at no socket.
func Programs() []Owner {
	var all []Owner
	for pid, name := range process.Programs() {
		all = append(all, Owner{PID: pid, Name: name})
	}
	return all
}
