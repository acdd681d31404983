package survey

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// Known results for every kernel since 5.10, which the survey must find by itself.
func TestHooks(t *testing.T) {
	t.Parallel()
	testutil.RequirePrivilege(t)
	rows, err := RowsByName([]string{"tcp", "udp6", "raw/udp", "unix-dgram"})
	if err != nil {
		t.Fatal(err)
	}
	r, err := Run(t.Context(), Options{Rows: rows, Program: "test", Hooks: true})
	if err != nil {
		t.Fatal(err)
	}
	type want struct {
		status                      Status
		offset0, net, link, sees    string
		part                        int // of a packet that can be read directly; 0 if it may not be
		zero, one, eight, exception string
	}
	for hook, sockets := range map[string]map[string]want{
		"cgroup_skb/ingress": {
			"raw/udp":    {Filtered, "IPv4", ReachedBytes, ReachedBytes, "in", 1500, "dropped", "kept", "refused", ""},
			"tcp":        {Filtered, "IPv4", ReachedBytes, ReachedBytes, "in", 52, "dropped", "kept", "refused", "ETIMEDOUT"},
			"udp6":       {Filtered, "IPv6", ReachedBytes, ReachedBytes, "in", 1488, "dropped", "kept", "refused", "ok"},
			"unix-dgram": {status: Unfiltered},
		},
		"cgroup_skb/egress": {
			"raw/udp":    {status: Unfiltered},
			"tcp":        {Filtered, "IPv4", ReachedBytes, ReachedNone, "out", 52, "dropped", "kept", "refused", "ETIMEDOUT"},
			"udp6":       {Filtered, "IPv6", ReachedBytes, ReachedNone, "out", 1488, "dropped", "kept", "refused", "no answer"},
			"unix-dgram": {status: Unfiltered},
		},
		"packet socket": {
			"raw/udp":    {Filtered, "Ethernet", ReachedBytes, ReachedBytes, "in", 0, "dropped", "cut", "cut", "ok"},
			"tcp":        {Filtered, "Ethernet", ReachedBytes, ReachedBytes, "in, out", 0, "dropped", "cut", "cut", "ok"},
			"udp6":       {Filtered, "Ethernet", ReachedBytes, ReachedBytes, "in", 0, "dropped", "cut", "cut", "ok"},
			"unix-dgram": {status: Unfiltered},
		},
		"socket": {
			"raw/udp":    {Filtered, "IPv4", ReachedBytes, ReachedBytes, "in", 0, "dropped", "cut", "cut", "ok"},
			"tcp":        {Filtered, "TCP", ReachedBytes, ReachedBytes, "in", 0, "dropped", "dropped", "dropped", "ETIMEDOUT"},
			"udp6":       {Filtered, "UDP", ReachedBytes, ReachedBytes, "in", 0, "dropped", "cut", "cut", "ok"},
			"unix-dgram": {Filtered, payload, ReachedSelf, ReachedNone, "in", 0, "dropped", "cut", "cut", "ok"},
		},
		"sk_reuseport": {
			"raw/udp":    {status: Refused},
			"tcp":        {Filtered, "TCP", ReachedBytes, ReachedBytes, "SYN", -1, "dropped", "kept", "dropped", "ECONNREFUSED"},
			"udp6":       {Filtered, "UDP", ReachedBytes, ReachedBytes, "in", 1448, "dropped", "kept", "dropped", "ok"},
			"unix-dgram": {status: Refused},
		},
		"reuseport filter": {
			"raw/udp":    {status: Refused},
			"tcp":        {Filtered, theEnd, ReachedBytes, ReachedBytes, "some", 0, "kept", "kept", "kept", "ok"},
			"udp6":       {Filtered, payload, ReachedBytes, ReachedBytes, "in", 0, "kept", "kept", "kept", "ok"},
			"unix-dgram": {status: Refused},
		},
	} {
		h, ok := r.hook(hook)
		if !ok || h.Missing != "" || len(h.Sockets) != len(rows) {
			t.Errorf("%s: %+v", hook, h)
			continue
		}
		for i := range h.Sockets {
			s := &h.Sockets[i]
			got := want{status: s.Status}
			if s.Status == Filtered {
				got = want{s.Status, s.Offset0, s.Net, s.Link, s.seesCell(), 0, h.effectCell(s, 0), h.effectCell(s, 1), h.effectCell(s, 8), s.Verdicts[0].Probe}
			}
			if s.Linear != nil {
				got.part = s.Linear.Part
				if !s.Linear.Same {
					t.Errorf("%s, %s: what is at data is not what is loaded from offset 0", hook, s.Name)
				}
			}
			wanted := sockets[s.Name]
			if wanted.exception == "" {
				got.exception = ""
			}
			if got != wanted {
				t.Errorf("%s, %s: %+v, want %+v", hook, s.Name, got, wanted)
			}
		}
	}
	checkHookReport(t, r)
}

// What was found is in every form of the report, and in comparisons.
func checkHookReport(t *testing.T, r *Report) {
	var text, page, markdown, file bytes.Buffer
	for _, form := range []struct {
		write func() error
		to    *bytes.Buffer
		want  string
	}{
		{func() error { return r.WriteText(&text) }, &text, "udp6           UDP      net, link in           1448   dropped kept    dropped"},
		{func() error { return r.WriteHTML(&page) }, &page, "<h2>Hook cgroup_skb/egress</h2>"},
		{func() error { return r.WriteMarkdown(&markdown) }, &markdown, `- sk\_reuseport: of a connection the program sees the SYN alone. *(tcp)*`},
		{func() error { return r.WriteJSON(&file) }, &file, `"name": "reuseport filter"`},
	} {
		if err := form.write(); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(form.to.String(), form.want) {
			t.Errorf("%q is not in %s", form.want, form.to)
		}
	}
	for line := range strings.Lines(text.String()) {
		if len(line) > textWidth+1 {
			t.Errorf("wider than %d columns: %s", textWidth, line)
		}
	}
	again, err := ReadJSON(&file)
	if err != nil {
		t.Fatal(err)
	}
	if differences, err := Compare(r, again); err != nil || len(differences) > 0 {
		t.Errorf("read back: %v, %v", differences, err)
	}
	h, _ := again.hook("sk_reuseport")
	h.Missing, h.Sockets = "the kernel loads no such program", nil
	h, _ = again.hook("socket")
	h.Direct = !h.Direct
	differences, err := Compare(r, again)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range differences {
		got = append(got, d.String())
	}
	want := []string{
		"hooks sk_reuseport missing: nothing -> the kernel loads no such program",
		"hooks socket direct: false -> true",
	}
	if !slices.Equal(got, want) {
		t.Errorf("differences %q, want %q", got, want)
	}
	if only := r.Only([]string{"tcp"}); len(only.Hooks) != len(r.Hooks) || len(only.Hooks[0].Sockets) != 1 {
		t.Errorf("only tcp: %+v", only.Hooks)
	}
}
