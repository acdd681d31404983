package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// Flows is the register of the addresses of chosen sockets, for programs that see packets without
// their sockets: see flows.h. It may be used concurrently.
type Flows struct {
	maps    map[string]*ebpf.Map
	hints   *mapping
	objects *loaded // of Follow
	links   []io.Closer
}

// FlowSocket is a socket as Flows enters it.
type FlowSocket struct {
	// Network is the inode of its network namespace.
	Network uint32
	// Cookie is its own, and Origin that of the marked socket: the same, or its listener's.
	Cookie, Origin uint64
	// Family, Type and Protocol are those of socket(2).
	Family, Type, Protocol int
	// Local is what it is bound to, the address unspecified if it is bound to any. The port of a
	// ping socket is its identifier. IPv4 in IPv6 addresses are taken as IPv4.
	Local netip.AddrPort
	// Peer is what it is connected to; invalid if it is not.
	Peer netip.AddrPort
	// OnlyIPv6 says that a socket of IPv6 gets no IPv4.
	OnlyIPv6 bool
}

// NewFlows creates an empty register.
//
// An error is a *MissingError if a privilege or a feature of the kernel is missing.
func NewFlows() (_ *Flows, err error) {
	_ = rlimit.RemoveMemlock() // as in Open
	spec, err := loadWire()
	if err != nil {
		return nil, fmt.Errorf("reading the object of the interfaces' tap: %w", err)
	}
	f := &Flows{maps: make(map[string]*ebpf.Map)}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	for _, name := range []string{wireMapFlows, wireMapLocals, wireMapHints} {
		if f.maps[name], err = ebpf.NewMap(spec.Maps[name]); err != nil {
			return nil, diagnoseWire(err)
		}
	}
	f.hints, err = mapMemory(f.maps[wireMapHints])
	return f, err
}

// Follow also enters the sockets that a Hook has marked, from now on: what they are bound to, and
// the addresses of what they send. ports chooses them as HookOptions.Ports does.
//
// Needs what the Hook needs.
func (f *Flows) Follow(hook *Hook, ports []uint16) error {
	spec, err := loadFlows()
	if err != nil {
		return fmt.Errorf("reading the register's object: %w", err)
	}
	if len(ports) > MaxPorts {
		return fmt.Errorf("choosing by ports: %d are more than %d", len(ports), MaxPorts)
	}
	var chosen [MaxPorts]uint16
	copy(chosen[:], ports)
	if err := errors.Join(spec.Variables[flowsVarPorts].Set(chosen), spec.Variables[flowsVarPortCount].Set(uint32(len(ports)))); err != nil {
		return fmt.Errorf("setting up the register: %w", err)
	}
	shared := f.shared()
	shared[flowsMapMarks] = hook.objects.maps[hookMapMarks]
	types := func() *btf.Spec { return kernelTypes(spec) }
	// The object has the record's layout, and leaves no record.
	if f.objects, err = newLoaded(spec, types, shared, flowsMapRing, flowsMapCounts); err != nil {
		return hook.diagnose(err)
	}
	points := []struct {
		attach  ebpf.AttachType
		program string
	}{
		{ebpf.AttachCGroupInetEgress, flowsProgSends},
		{ebpf.AttachCGroupInet4PostBind, flowsProgBinds4},
		{ebpf.AttachCGroupInet6PostBind, flowsProgBinds6},
		{ebpf.AttachCGroupInetSockCreate, flowsProgBegins},
		{ebpf.AttachCgroupInetSockRelease, flowsProgEnds},
	}
	var names []string
	for _, at := range points {
		names = append(names, at.program)
	}
	if err := f.objects.load(names[:1], names[1:]); err != nil {
		return hook.diagnose(err)
	}
	root, err := CgroupRoot()
	if err != nil {
		return err
	}
	defer root.Close()
	for _, at := range points {
		l, err := link.AttachCgroup(link.CgroupOptions{
			Path: fmt.Sprintf("/proc/self/fd/%d", root.Fd()), Attach: at.attach, Program: f.objects.programs[at.program],
		})
		if err != nil {
			return hook.diagnose(fmt.Errorf("%s %s: %w", attachingCgroup, root.Name(), err))
		}
		f.links = append(f.links, l)
	}
	return nil
}

// Unwatched is how many network namespaces there are in which sockets were entered since Follow, and
// of which a Wire does not watch the interfaces.
func (f *Flows) Unwatched(w *Wire) (n int) {
	if f.objects == nil {
		return 0
	}
	var network, yes uint32
	// Where that takes a privilege which was given up, none is found.
	for all := f.objects.maps[flowsMapNetworks].Iterate(); all.Next(&network, &yes); {
		if !w.Watches(network) {
			n++
		}
	}
	return n
}

// shared are the maps, by the names that they have in each object that includes flows.h.
func (f *Flows) shared() map[string]*ebpf.Map {
	all := make(map[string]*ebpf.Map)
	for name, m := range f.maps {
		all[name] = m
	}
	return all
}

// Enter enters a socket: a connected one by both ends, another one by what it is bound to, and a
// raw one by its protocol. One that has no address yet is not entered.
func (f *Flows) Enter(s *FlowSocket) error {
	local, peer := unmapped(s.Local), unmapped(s.Peer)
	owner := wireOwner{
		Cookie: s.Cookie, Origin: s.Origin, Family: uint16(s.Family), Type: uint16(s.Type), Protocol: uint16(s.Protocol),
		LocalPort: local.Port(), PeerPort: peer.Port(), State: stateClose,
	}
	protocol := uint8(s.Protocol)
	if s.Protocol == unix.IPPROTO_MPTCP {
		protocol = unix.IPPROTO_TCP
	}
	raw := s.Type == unix.SOCK_RAW
	switch {
	case !local.IsValid():
		return nil
	case peer.IsValid() && !raw && hasPorts(protocol):
		key := wireFlow{
			Network: s.Network, LocalPort: local.Port(), PeerPort: peer.Port(), Local: words(local.Addr()), Peer: words(peer.Addr()), Protocol: uint16(protocol),
		}
		if s.Type == unix.SOCK_STREAM {
			owner.State = stateEstablished
		}
		return f.put(wireMapFlows, key, owner, int64(local.Port()))
	case raw:
		local = netip.AddrPortFrom(local.Addr(), 0)
		owner.LocalPort = uint16(protocol) // as the kernel has it
	case local.Port() == 0:
		return nil
	}
	if s.Type == unix.SOCK_STREAM {
		owner.State = stateListen
	}
	hint := int64(local.Port())
	if raw {
		hint = hintsRaw + int64(protocol)
	}
	for _, version := range versions(local.Addr(), s) {
		key := wireLocal{Network: s.Network, Port: local.Port(), Version: version, Protocol: protocol}
		if !local.Addr().IsUnspecified() {
			key.Address = words(local.Addr())
		}
		if err := f.put(wireMapLocals, key, owner, hint); err != nil {
			return err
		}
	}
	return nil
}

// States of sockets, as the kernel counts them.
const (
	stateEstablished = 1
	stateClose       = 7
	stateListen      = 10
)

// hintsRaw is the offset of raw in struct hints.
const hintsRaw = 65536

// put enters a key, and then that there is one: whoever sees the hint finds it.
func (f *Flows) put(name string, key, owner any, hint int64) error {
	if err := f.maps[name].Update(key, owner, ebpf.UpdateAny); err != nil {
		return fmt.Errorf("entering the address of a socket: %w", err)
	}
	if _, err := f.hints.WriteAt([]byte{1}, hint); err != nil {
		return fmt.Errorf("entering the address of a socket: %w", err)
	}
	return nil
}

// versions are those of IP with which packets come to an address.
func versions(a netip.Addr, s *FlowSocket) []uint8 {
	switch {
	case s.Family == unix.AF_INET || a.Is4():
		return []uint8{4}
	case s.OnlyIPv6 || !a.IsUnspecified():
		return []uint8{6}
	}
	return []uint8{4, 6}
}

// words is an address as flows.h has it.
func words(a netip.Addr) (all [4]uint32) {
	bytes := a.As16()
	for i := range all {
		all[i] = binary.NativeEndian.Uint32(bytes[4*i:])
	}
	return all
}

func unmapped(a netip.AddrPort) netip.AddrPort {
	if !a.IsValid() {
		return a
	}
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// hasPorts tells whether the header of an IP protocol begins with two ports.
func hasPorts(protocol uint8) bool {
	switch protocol {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_UDPLITE, unix.IPPROTO_SCTP, unix.IPPROTO_DCCP:
		return true
	}
	return false
}

// Close detaches the programs, and releases the maps. It is safe to call it twice.
func (f *Flows) Close() error {
	if f == nil {
		return nil
	}
	var errs []error
	for _, l := range f.links {
		errs = append(errs, l.Close())
	}
	f.links = nil
	errs = append(errs, f.hints.close(), f.objects.Close())
	for _, m := range f.maps {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}
