package bpf

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// HeldFilter is the eBPF filter of a socket, which this process keeps hold of while another one is in its place.
type HeldFilter struct{ program *ebpf.Program }

// Hold takes hold of an eBPF filter. A Wrapper that a capture has left is that of the filter inside, if that is an
// eBPF one, and otherwise itself: it runs the classic filter that is a part of it.
//
// It needs CAP_SYS_ADMIN, or else the error is a *MissingError.
func (f *OwnFilter) Hold() (*HeldFilter, error) {
	id := f.Program.ID
	if id == 0 {
		return nil, errors.New("taking hold of the socket's eBPF filter: this kernel does not say which program it is")
	}
	other, err := f.OtherTap()
	if err != nil {
		return nil, err
	}
	if other != nil && other.Wraps && other.Inside.Program.ID != 0 {
		id = other.Inside.Program.ID
	}
	program, err := openProgram(id)
	if err != nil {
		return nil, err
	}
	return &HeldFilter{program}, nil
}

// Restore puts the filter on a socket, in the place of any that it has.
func (h *HeldFilter) Restore(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, h.program.FD()); err != nil {
		return fmt.Errorf("putting the socket's own filter back: %w", err)
	}
	return nil
}

// Close lets go of the filter. What a Wrapper that it was inside of has pinned, and nobody needs any more, is removed.
func (h *HeldFilter) Close() error {
	for _, folder := range append([]string{usualFileSystem}, mountsOf("bpf")...) {
		if pins, _ := filepath.Glob(filepath.Join(folder, wrapperPin+"*")); len(pins) > 0 {
			tidyPins(folder)
		}
	}
	return h.program.Close()
}
