package bpf

import (
	"path"
	"testing"

	"github.com/cilium/ebpf/features"
)

// ways are those to hear of system calls.
var ways = map[string]way{"tracepoints": atTracepoints, "raw": atRawTracepoints, "functions": atFunctions}

// wayOf is the way that eachWay tests, or the best.
func wayOf(tb testing.TB) way {
	if w, ok := ways[path.Base(tb.Name())]; ok {
		return w
	}
	return bestWay()
}

func hasSessions() bool { return features.HaveBPFLinkKprobeSession() == nil }

// eachWay tests each way to hear of system calls that is taken on this kernel, and probes where
// it has them.
func eachWay(t *testing.T, test func(t *testing.T)) {
	t.Parallel()
	for name, way := range ways {
		if way == atTracepoints && Preemptible() || way == atFunctions && !hasSessions() {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
}
