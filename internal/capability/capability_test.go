package capability

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestPrivilege(t *testing.T) {
	t.Parallel()
	admin := Privilege{Effective: 1 << unix.CAP_SYS_ADMIN}
	if !admin.MayLoad() || !admin.Has(unix.CAP_PERFMON) || admin.Has(unix.CAP_NET_RAW) {
		t.Errorf("CAP_SYS_ADMIN: may load %t, has CAP_PERFMON %t, has CAP_NET_RAW %t", admin.MayLoad(), admin.Has(unix.CAP_PERFMON), admin.Has(unix.CAP_NET_RAW))
	}
	if (Privilege{Effective: 1 << unix.CAP_NET_RAW}).MayLoad() {
		t.Error("CAP_NET_RAW is enough to load the tap")
	}
	if p := CurrentPrivilege(); p.Has(unix.CAP_BPF) != Held(unix.CAP_BPF) {
		t.Errorf("%+v and Held contradict each other", p)
	}
}

func TestHint(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		privilege Privilege
		lacking   []string
		want      string
	}{
		{Privilege{UID: 1000}, []string{"CAP_BPF"}, "run as root (sudo), or once: setcap cap_bpf+ep on the capability.test binary"},
		// setcap takes away what the file had, so that is named as well.
		{Privilege{UID: 1000, Effective: 1<<unix.CAP_NET_RAW | 1<<unix.CAP_NET_ADMIN}, []string{"CAP_PERFMON"},
			"run as root (sudo), or once: setcap cap_bpf,cap_net_admin,cap_net_raw,cap_perfmon+ep on the capability.test binary"},
		{Privilege{UID: 1000}, []string{"CAP_BPF", "CAP_SYS_ADMIN"}, "run as root (sudo)"},
		{Privilege{UID: 1000, Effective: 1 << unix.CAP_SYS_ADMIN}, []string{"CAP_NET_RAW"}, "run as root (sudo)"},
		{Privilege{}, []string{"CAP_BPF", "CAP_NET_RAW"}, "run as a root that has it: outside of the container, or in one started with --cap-add BPF --cap-add NET_RAW"},
		{Privilege{Nested: true}, []string{"CAP_BPF"}, "run it as root outside of the user namespace (rootless container, unshare -U)"},
	} {
		if got := test.privilege.Hint(test.lacking...); got != test.want {
			t.Errorf("%+v without %v: %s\nwant: %s", test.privilege, test.lacking, got, test.want)
		}
	}
}
