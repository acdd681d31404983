package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// OtherTap is a Tap or a Wrapper that another process has put on a socket.
type OtherTap struct {
	// Ended says that it was left there: nobody has renewed its lease for a Lease. It records nothing
	// any more, a Tap keeps everything, and a Wrapper decides what its filter does.
	Ended bool
	// Leased says that it is on a socket of another process than its capture's. Without a lease it is the filter of
	// its capture's own socket.
	Leased bool
	// Wraps says that it is a Wrapper, and Inside is the filter that it runs. Of a classic one
	// nothing more is known: its Key is 0.
	Wraps  bool
	Inside OwnFilter
	// Ring is the kernel's number of the map that it records into, which its capture has open.
	Ring uint32
}

// OtherTap tells whether the filter is a Tap or a Wrapper, and nil if it is not. A program that is only
// called so is none.
//
// It needs CAP_SYS_ADMIN, or else the error is a *MissingError.
func (f *OwnFilter) OtherTap() (*OtherTap, error) {
	if f.Program.Name != wrapperName && f.Program.Name != tapProgTap {
		return nil, nil
	}
	spec, err := loadTap()
	if err != nil {
		return nil, fmt.Errorf("reading the tap's object: %w", err)
	}
	maps, err := openMaps(f.Program.ID)
	if err != nil {
		return nil, err
	}
	defer closeMaps(maps)
	read := func(variable string) (value uint64, ok bool) {
		v := spec.Variables[variable]
		content := maps[v.SectionName]
		var all []byte
		if content == nil || content.ValueSize() != spec.Maps[v.SectionName].ValueSize || content.Lookup(uint32(0), &all) != nil {
			return 0, false
		}
		field := all[v.Offset : v.Offset+v.Size()]
		if len(field) == 4 {
			return uint64(binary.NativeEndian.Uint32(field)), true
		}
		return binary.NativeEndian.Uint64(field), true
	}
	wrapped, ok1 := read(tapVarWrapped)
	leased, ok2 := read(tapVarLeased)
	end, ok3 := read(tapVarLeaseEnd)
	if !ok1 || !ok2 || !ok3 || maps[tapMapRing] == nil || maps[tapMapCounts] == nil || wrapped != 0 != (f.Program.Name == wrapperName) {
		return nil, nil // of others, or of another version of this project
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return nil, fmt.Errorf("asking for the time: %w", err)
	}
	other := &OtherTap{Ended: leased != 0 && end != 0 && uint64(now.Nano()) > end, Leased: leased != 0, Wraps: wrapped != 0}
	if about, err := maps[tapMapRing].Info(); err == nil {
		id, _ := about.ID()
		other.Ring = uint32(id)
	}
	if wrapped == 0 || wrapped&classicFilter != 0 {
		return other, nil
	}
	// It holds on to the program, whose number therefore is no other's.
	if other.Inside, err = ownProgram(uint32(wrapped)); err != nil {
		return nil, err
	}
	return other, nil
}

// openMaps opens the maps of a program, by their names.
func openMaps(id uint32) (_ map[string]*ebpf.Map, err error) {
	program, err := openProgram(id)
	if err != nil {
		return nil, err
	}
	defer program.Close()
	info, err := program.Info()
	if err != nil {
		return nil, fmt.Errorf("asking for the maps of the socket's eBPF filter: %w", err)
	}
	ids, _ := info.MapIDs()
	maps := make(map[string]*ebpf.Map)
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			closeMaps(maps)
			return nil, fmt.Errorf("asking for the maps of the socket's eBPF filter: %w", err)
		}
		name := ""
		if about, err := m.Info(); err == nil {
			name = about.Name
		}
		if maps[name] != nil {
			m.Close()
			continue
		}
		maps[name] = m
	}
	return maps, nil
}

func closeMaps(maps map[string]*ebpf.Map) {
	for _, m := range maps {
		m.Close()
	}
}

// openProgram takes hold of the eBPF program that is a socket's filter.
func openProgram(id uint32) (*ebpf.Program, error) {
	program, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	switch {
	case errors.Is(err, unix.EPERM):
		return nil, LacksCapability(unix.CAP_SYS_ADMIN, "taking hold of the socket's eBPF filter", err)
	case err != nil:
		return nil, fmt.Errorf("taking hold of the socket's eBPF filter: %w", err)
	}
	return program, nil
}

// ownProgram describes an eBPF program as a filter.
func ownProgram(id uint32) (f OwnFilter, err error) {
	program, err := openProgram(id)
	if err != nil {
		return f, err
	}
	defer program.Close()
	info, err := program.Info()
	if err != nil {
		return f, fmt.Errorf("asking for the socket's eBPF filter: %w", err)
	}
	f.Program = Program{ID: id, Name: info.Name}
	if loaded, ok := info.LoadTime(); ok {
		f.Program.Loaded = loaded.Nanoseconds()
	}
	f.UID, _ = info.CreatedByUID()
	return f, nil
}
