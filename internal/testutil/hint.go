package testutil

import (
	"fmt"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

var (
	setcap = regexp.MustCompile(`setcap (\S+)\+ep`)
	capAdd = regexp.MustCompile(`--cap-add (\w+)`)
)

// hinted has the numbers of the capabilities that hints may name.
var hinted = map[string]int{
	"bpf": unix.CAP_BPF, "dac_read_search": unix.CAP_DAC_READ_SEARCH, "net_admin": unix.CAP_NET_ADMIN,
	"net_bind_service": unix.CAP_NET_BIND_SERVICE, "net_raw": unix.CAP_NET_RAW, "perfmon": unix.CAP_PERFMON,
	"setgid": unix.CAP_SETGID, "setuid": unix.CAP_SETUID, "sys_admin": unix.CAP_SYS_ADMIN, "sys_ptrace": unix.CAP_SYS_PTRACE,
}

// FollowHint returns the user and the capabilities, a bit each, of who does what a hint
// says and has nothing but that.
func FollowHint(hint string) (uid int, effective uint64, err error) {
	var names []string
	if m := setcap.FindStringSubmatch(hint); m != nil {
		uid = 1000
		names = strings.Split(m[1], ",")
	} else if strings.Contains(hint, "run as root (sudo)") {
		return 0, 1<<(unix.CAP_LAST_CAP+1) - 1, nil
	}
	for _, m := range capAdd.FindAllStringSubmatch(hint, -1) {
		names = append(names, m[1])
	}
	if names == nil {
		return 0, 0, fmt.Errorf("nothing to follow in %q", hint)
	}
	for _, name := range names {
		c, ok := hinted[strings.TrimPrefix(strings.ToLower(name), "cap_")]
		if !ok {
			return 0, 0, fmt.Errorf("no capability that hints may name: %s in %q", name, hint)
		}
		effective |= 1 << c
	}
	return uid, effective, nil
}
