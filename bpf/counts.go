package bpf

import (
	"encoding/binary"
	"fmt"

	"github.com/cilium/ebpf"
)

// sizeCounts gives maps of counters an element for each cpu that there can be.
func sizeCounts(specs ...*ebpf.MapSpec) error {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("counting the cpus: %w", err)
	}
	for _, spec := range specs {
		spec.MaxEntries = uint32(cpus)
	}
	return nil
}

// readCounts reads such a map, without a system call.
func readCounts[T any](m *ebpf.Map) ([]T, error) {
	memory, err := m.Memory()
	if err != nil {
		return nil, err
	}
	raw := make([]byte, memory.Size())
	if _, err := memory.ReadAt(raw, 0); err != nil {
		return nil, err
	}
	all := make([]T, m.MaxEntries())
	_, err = binary.Decode(raw, binary.NativeEndian, all)
	return all, err
}
