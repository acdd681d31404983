package bpf

import (
	"fmt"
	"os"
	"sync"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// mapping is the memory of an array map with BPF_F_MMAPABLE, which is read and written without a
// system call. It may be used concurrently. Unlike ebpf.Memory it ends with close and not some time
// after: until then the kernel keeps the map, of which a capture has one of 4 MB.
type mapping struct {
	mu     sync.RWMutex
	memory []byte // nil when it is closed
}

func mapMemory(m *ebpf.Map) (*mapping, error) {
	// The kernel puts each element at a multiple of 8 bytes, and maps whole pages.
	size, page := int(m.ValueSize()+7)&^7*int(m.MaxEntries()), os.Getpagesize()
	memory, err := unix.Mmap(m.FD(), 0, (size+page-1)/page*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mapping the memory of a map: %w", err)
	}
	return &mapping{memory: memory}, nil
}

// ReadAt implements io.ReaderAt. After close it returns os.ErrClosed.
func (m *mapping) ReadAt(p []byte, off int64) (int, error) {
	return m.copy(off, len(p), func(part []byte) { copy(p, part) })
}

// WriteAt implements io.WriterAt. After close it returns os.ErrClosed.
func (m *mapping) WriteAt(p []byte, off int64) (int, error) {
	return m.copy(off, len(p), func(part []byte) { copy(part, p) })
}

// copy gives the part from off on, if there are n bytes.
func (m *mapping) copy(off int64, n int, do func(part []byte)) (int, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	switch {
	case m.memory == nil:
		return 0, os.ErrClosed
	case off < 0 || off > int64(len(m.memory)-n):
		return 0, fmt.Errorf("%d bytes at %d of a map of %d: %w", n, off, len(m.memory), unix.ERANGE)
	}
	do(m.memory[off:][:n])
	return n, nil
}

// close is safe to call twice, and for a nil mapping.
func (m *mapping) close() error {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.memory == nil {
		return nil
	}
	err := unix.Munmap(m.memory)
	m.memory = nil
	return err
}
