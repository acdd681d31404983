package bpf

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/rlimit"
)

// ErrNotSupported is returned by Feature.Probe if the kernel lacks the feature.
var ErrNotSupported = ebpf.ErrNotSupported

// Feature is a feature of the kernel's BPF that the tap needs.
type Feature struct {
	// Kind is what the feature is: "program type", "map type" or "helper".
	Kind string
	// Name is the feature's usual name, such as "ring buffer".
	Name string

	programType ebpf.ProgramType
	mapType     ebpf.MapType
	helper      asm.BuiltinFunc
}

var tapFeatures = []Feature{
	{Kind: "program type", Name: "socket filter", programType: ebpf.SocketFilter},
	{Kind: "map type", Name: "array", mapType: ebpf.Array},
	{Kind: "map type", Name: "ring buffer", mapType: ebpf.RingBuf},
	{Kind: "helper", Name: "map_lookup_elem", helper: asm.FnMapLookupElem},
	{Kind: "helper", Name: "get_smp_processor_id", helper: asm.FnGetSmpProcessorId},
	{Kind: "helper", Name: "get_socket_cookie", helper: asm.FnGetSocketCookie},
	{Kind: "helper", Name: "ktime_get_boot_ns", helper: asm.FnKtimeGetBootNs},
	{Kind: "helper", Name: "skb_load_bytes", helper: asm.FnSkbLoadBytes},
	{Kind: "helper", Name: "skb_load_bytes_relative", helper: asm.FnSkbLoadBytesRelative},
	{Kind: "helper", Name: "ringbuf_reserve", helper: asm.FnRingbufReserve},
	{Kind: "helper", Name: "ringbuf_query", helper: asm.FnRingbufQuery},
	{Kind: "helper", Name: "ringbuf_submit", helper: asm.FnRingbufSubmit},
	{Kind: "helper", Name: "ringbuf_discard", helper: asm.FnRingbufDiscard},
}

// Features lists what the tap needs.
func Features() []Feature { return append([]Feature(nil), tapFeatures...) }

// Probe asks the kernel for the feature. Only two results are conclusive: nil, the kernel
// has it, and ErrNotSupported, it has not. Any other error, such as EPERM of a process
// without CAP_BPF, says nothing about the kernel.
func (f Feature) Probe() error {
	// Before 5.11 maps count against RLIMIT_MEMLOCK.
	_ = rlimit.RemoveMemlock()
	switch {
	case f.programType != ebpf.UnspecifiedProgram:
		return features.HaveProgramType(f.programType)
	case f.mapType != ebpf.UnspecifiedMap:
		return features.HaveMapType(f.mapType)
	case f.helper != asm.FnUnspec:
		return features.HaveProgramHelper(ebpf.SocketFilter, f.helper)
	}
	return fmt.Errorf("%s %s: no feature to probe for", f.Kind, f.Name)
}
