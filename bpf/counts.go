package bpf

import (
	"encoding/binary"
	"fmt"

	"github.com/cilium/ebpf"
)

// counts are counters in a map that has an element T for each cpu, read without a system call.
// It may be used concurrently.
type counts[T any] struct {
	memory *mapping
	cpus   int
}

// sizeCounts gives the map of counters an element for each cpu that there can be.
func sizeCounts(spec *ebpf.MapSpec) error {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("counting the cpus: %w", err)
	}
	spec.MaxEntries = uint32(cpus)
	return nil
}

// openCounts maps the memory of such a map, until close.
func openCounts[T any](m *ebpf.Map) (*counts[T], error) {
	memory, err := mapMemory(m)
	if err != nil {
		return nil, fmt.Errorf("mapping the counters: %w", err)
	}
	return &counts[T]{memory, int(m.MaxEntries())}, nil
}

// read reads the counters of each cpu.
func (c *counts[T]) read() ([]T, error) {
	raw := make([]byte, binary.Size(make([]T, c.cpus)))
	if _, err := c.memory.ReadAt(raw, 0); err != nil {
		return nil, fmt.Errorf("reading the counters: %w", err)
	}
	all := make([]T, c.cpus)
	_, err := binary.Decode(raw, binary.NativeEndian, all)
	return all, err
}

// close is safe to call for counts that were never opened.
func (c *counts[T]) close() error {
	if c == nil {
		return nil
	}
	return c.memory.close()
}
