package bpf

import (
	"slices"
	"strings"
	"testing"
)

// What the tracepoints of some kernels tell, as their types have it.
var tracepointShapes = map[string]map[string]string{
	"5.10": {
		"submit_sqe": "ctx req opcode user_data flags force_nonblock sq_thread",
		"complete":   "ctx user_data res cflags",
		"task_add":   "ctx opcode user_data mask",
	},
	"6.1": {
		"submit_sqe":   "req force_nonblock",
		"complete":     "ctx req user_data res cflags extra1 extra2",
		"task_add":     "req mask",
		"cqe_overflow": "ctx user_data res cflags ocqe",
	},
	"6.18": {
		"submit_req":   "req",
		"complete":     "ctx req cqe",
		"task_add":     "req mask",
		"cqe_overflow": "ctx user_data res cflags ocqe",
	},
	"none":           {},
	"without a req":  {"submit_sqe": "ctx opcode user_data force_nonblock sq_thread", "complete": "ctx user_data res"},
	"without a ring": {"submit_req": "req", "complete": "req cqe"},
}

// Each kernel's tracepoints are taken as they are, and what does not do is said.
func TestURingTracepoints(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		kernel, points string
		at             map[string]uint32
	}{
		{"5.10", "submit_sqe complete", map[string]uint32{uringVarSubmitReq: 1, uringVarCompleteCtx: 0, uringVarCompleteReq: 12, uringVarCompleteUserData: 1, uringVarCompleteRes: 2, uringVarCompleteCflags: 3}},
		{"6.1", "submit_sqe complete cqe_overflow task_add", map[string]uint32{uringVarSubmitReq: 0, uringVarCompleteReq: 1, uringVarCompleteUserData: 2, uringVarCompleteRes: 3, uringVarCompleteCflags: 4, uringVarCompleteCqe: 12}},
		{"6.18", "submit_req complete cqe_overflow task_add", map[string]uint32{uringVarSubmitReq: 0, uringVarCompleteCtx: 0, uringVarCompleteReq: 1, uringVarCompleteCqe: 2}},
		{kernel: "none"}, {kernel: "without a req"}, {kernel: "without a ring"},
	} {
		spec, err := loadUring()
		if err != nil {
			t.Fatal(err)
		}
		points, err := findTracepoints(spec, func(point string) []string { return strings.Fields(tracepointShapes[test.kernel][point]) })
		if (err == nil) != (test.points != "") || !slices.Equal(points, strings.Fields(test.points)) {
			t.Errorf("%s: %q, %v", test.kernel, points, err)
		}
		for name, want := range test.at {
			var got uint32
			if err := spec.Variables[name].Get(&got); err != nil || got != want {
				t.Errorf("%s: %s is %d, %v; want %d", test.kernel, name, got, err, want)
			}
		}
	}
}

// Without this, nobody would know that the kernel at hand refuses the programs.
func TestCallsFollowURing(t *testing.T) {
	t.Parallel()
	if c := mustFollow(t, CallsOptions{RingSize: MinRingSize}); c.NoURing() != nil {
		t.Error(c.NoURing())
	}
}
