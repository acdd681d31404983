package process

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

// classes are the controllers of cgroup version 1 whose cgroups give sockets a class or a priority,
// and the file that says which.
var classes = map[string]string{"net_cls": "net_cls.classid", "net_prio": "net_prio.ifpriomap"}

// changesClass is an error if a copy of a socket would give the socket another network class than
// it has: whoever receives a descriptor gives the socket his own, for all who have it. Where that
// cannot be found out, there is no error: hardly anybody uses these cgroups, and containers may
// not see them.
func (p *Process) changesClass() error {
	for controller, file := range classes {
		own, theirs := groupIn("/proc/self/cgroup", controller), groupIn(p.living("cgroup"), controller)
		if own == theirs {
			continue
		}
		mount, ok := bpf.ControllerMount(controller)
		if !ok {
			continue
		}
		ours, err := os.ReadFile(filepath.Join(mount, own, file))
		if err != nil {
			continue
		}
		class, err := os.ReadFile(filepath.Join(mount, theirs, file))
		if err != nil || bytes.Equal(ours, class) {
			continue
		}
		return &bpf.MissingError{
			What: fmt.Sprintf("copying the sockets of %s would change their network class, which cgroup %s gives them (%s)", p, terminal.Plain(theirs), controller),
			Hint: fmt.Sprintf("run it in that cgroup, too (cgexec -g %s:%s)", controller, terminal.Plain(theirs)),
		}
	}
	return nil
}

// groupIn is the cgroup in the hierarchy of a controller, by /proc/PID/cgroup (cgroups(7)); empty if
// there is none.
func groupIn(path, controller string) string {
	text, _ := os.ReadFile(path)
	for line := range strings.Lines(string(text)) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) == 3 && slices.Contains(strings.Split(fields[1], ","), controller) {
			return fields[2]
		}
	}
	return ""
}
