package doctor

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/capability"
	"github.com/ebpfdump/ebpfdump/internal/privilege"
)

// The names of the trials.
const (
	TapLoads         = "tap loads"
	TapRecords       = "tap records"
	RawSocket        = "raw socket"
	PacketSocket     = "packet socket"
	NetworkNamespace = "network namespace"
	LowPort          = "port below 1024"
	SystemCalls      = "system calls"
	OtherProcess     = "other process"
	OtherDescriptors = "other's descriptors"
	OtherUser        = "other user"
	NetlinkMessage   = "netlink message"
	CgroupHook       = "cgroup hook"
	BPFFileSystem    = "BPF file system"
	KernelDrops      = "kernel's drops"
)

// trials has a row for each trial, except the two of the tap, which share one tap.
// Capability 0 means that none is needed.
var trials = []struct {
	name       string
	doing      string
	capability capability.Cap
	try        func() error
}{
	{RawSocket, "opening a raw socket", unix.CAP_NET_RAW, func() error {
		return openSocket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_TCP)
	}},
	{PacketSocket, "opening a packet socket", unix.CAP_NET_RAW, func() error {
		return openSocket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	}},
	{NetworkNamespace, "making a network namespace", unix.CAP_SYS_ADMIN, makeNamespace},
	{NetlinkMessage, "sending to a netlink socket", unix.CAP_NET_ADMIN, connectNetlink},
	{LowPort, "binding to a port below 1024", unix.CAP_NET_BIND_SERVICE, bindLowPort},
	{CgroupHook, "following sockets at the cgroup hook", unix.CAP_NET_ADMIN, hookPacket},
	{KernelDrops, "recording what the kernel drops", unix.CAP_PERFMON, dropPacket},
	{SystemCalls, "following system calls", unix.CAP_PERFMON, followCall},
	{OtherProcess, "copying sockets of other users' processes", unix.CAP_SYS_PTRACE, copyFromOthers},
	{OtherDescriptors, "listing descriptors of other users' processes", unix.CAP_DAC_READ_SEARCH, listOthers},
	{OtherUser, "becoming another user", unix.CAP_SETUID, becomeOther},
	{BPFFileSystem, "keeping hold of a filter in a BPF file system", 0, func() error {
		_, err := bpf.FileSystem()
		return err
	}},
}

// tryAll runs the trials. None leaves anything behind, or sends a packet to another
// machine.
func tryAll(p capability.Privilege) []Trial {
	results := tryTap(p)
	for _, t := range trials {
		results = append(results, judgeTrial(t.name, t.doing, t.capability, t.try(), p))
	}
	return results
}

// judgeTrial interprets the error of a trial. The error itself may name the missing
// capability.
func judgeTrial(name, doing string, needs capability.Cap, err error, p capability.Privilege) Trial {
	t := Trial{Name: name, Finding: Finding{Answer: Yes}}
	capability, held := "", false
	if needs != 0 {
		capability, held = needs.String(), p.Has(int(needs))
	}
	var missing *bpf.MissingError
	if errors.As(err, &missing) && missing.Capability != "" && !p.Nested {
		capability, held = missing.Capability, p.HasNamed(missing.Capability)
	}
	refused := errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)
	switch {
	case err == nil:
	case missing != nil && missing.Capability == "" && !refused:
		t.Answer, t.Detail, t.Mend = No, missing.What, missing.Hint
	case refused && capability == "":
		t.Answer = No
		t.Detail = doing + " is not permitted"
		t.Mend = "look for a seccomp profile of the container, or a security module's rules"
	case refused && held && !p.Nested:
		t.Answer = No
		t.Detail = doing + " is not permitted although " + capability + " is held"
		t.Mend = "look for a seccomp profile of the container, or a security module's rules"
	case refused:
		t.Answer = No
		t.Detail = doing + " needs " + capability
		t.Lacks, t.Mend = capability, privilege.HintToAdd(p, capability)
	case missing != nil && missing.Capability == "":
		t.Answer, t.Detail, t.Mend = No, missing.What, missing.Hint
	case isAbsence(err):
		t.Answer = No
		t.Detail = fmt.Sprintf("%s: this kernel has nothing like it (%v)", doing, err)
		t.Mend = "use a kernel that has it"
	default:
		t.Answer = Unknown
		t.Detail = fmt.Sprintf("%s: %v", doing, err)
	}
	return t
}

// isAbsence tells whether an error means that the kernel was built without a feature.
func isAbsence(err error) bool {
	for _, errno := range []unix.Errno{unix.ENOSYS, unix.EINVAL, unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT, unix.ESOCKTNOSUPPORT} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

func openSocket(domain, typ, protocol int) error {
	fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func makeNamespace() error {
	ns, err := capture.NewNamespace()
	if err != nil {
		return err
	}
	ns.Close()
	return nil
}

// connectNetlink connects two netlink sockets of our own, as the probe does.
func connectNetlink() error {
	var fds [2]int
	for i := range fds {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return err
		}
		fds[i] = fd
	}
	name, err := unix.Getsockname(fds[0])
	if err != nil {
		return err
	}
	return unix.Connect(fds[1], name)
}

// becomeOther changes the user of a thread that is discarded afterwards, as starting a
// command does.
func becomeOther() error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked, so the thread ends with the goroutine
		result <- becomeNobody()
	}()
	return <-result
}

// becomeNobody changes the ids of this thread only, where the functions of package unix
// would change all threads. Nobody becomes someone else, since what one is already takes no privilege.
func becomeNobody() error {
	var uids, gids [3]int
	uids[0], uids[1], uids[2] = unix.Getresuid()
	gids[0], gids[1], gids[2] = unix.Getresgid()
	other := uintptr(65534)
	if slices.Contains(uids[:], int(other)) || slices.Contains(gids[:], int(other)) {
		other = 1
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, other, other, other); errno != 0 {
		return bpf.LacksCapability(unix.CAP_SETGID, "becoming another user", errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, other, other, other); errno != 0 {
		return bpf.LacksCapability(unix.CAP_SETUID, "becoming another user", errno)
	}
	return nil
}

// bindLowPort briefly binds a port on the loopback address. It does not matter if the
// port is taken: the kernel checks the privilege first.
func bindLowPort() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	err = unix.Bind(fd, &unix.SockaddrInet4{Port: 1023, Addr: [4]byte{127, 0, 0, 1}})
	if errors.Is(err, unix.EADDRINUSE) {
		return nil
	}
	return err
}

// openHook opens a tap with a cgroup hook, for the trials of following sockets.
func openHook() (*bpf.Tap, *bpf.Hook, error) {
	tap, err := bpf.Open(bpf.Options{RingSize: bpf.MinRingSize})
	if err != nil {
		return nil, nil, err
	}
	hook, err := bpf.OpenHook(tap, bpf.HookOptions{Record: true})
	if err != nil {
		return nil, nil, errors.Join(err, tap.Close())
	}
	return tap, hook, nil
}

// loopbackSocket opens a UDP socket on a port of the loopback address, and returns that.
func loopbackSocket() (fd int, at unix.Sockaddr, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, nil, fmt.Errorf("opening a socket: %w", err)
	}
	err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	if err == nil {
		at, err = unix.Getsockname(fd)
	}
	if err != nil {
		unix.Close(fd)
		return -1, nil, fmt.Errorf("binding a socket: %w", err)
	}
	return fd, at, nil
}

// probePacket sends the probe's payload from a socket, and waits until the tap has recorded it.
func probePacket(tap *bpf.Tap, fd int, to unix.Sockaddr) error {
	if err := unix.Sendto(fd, []byte(capture.ProbePayload), 0, to); err != nil {
		return fmt.Errorf("sending a packet: %w", err)
	}
	return readPacket(tap, func(data []byte) bool { return bytes.HasSuffix(data, []byte(capture.ProbePayload)) })
}

// hookPacket checks that the cgroup hook records a packet on the loopback address. Older
// kernels do not run it where cgroup v1's net_cls or net_prio is in use.
func hookPacket() error {
	tap, hook, err := openHook()
	if err != nil {
		return err
	}
	defer tap.Close()
	defer hook.Close()
	fd, to, err := loopbackSocket()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, err := hook.Mark(fd); err != nil {
		return err
	}
	return probePacket(tap, fd, to)
}

// dropPacket checks that a packet is recorded which a filter that keeps nothing turns away.
func dropPacket() error {
	tap, err := bpf.Open(bpf.Options{RingSize: bpf.MinRingSize})
	if err != nil {
		return err
	}
	defer tap.Close()
	flows, err := bpf.NewFlows()
	if err != nil {
		return err
	}
	defer flows.Close()
	drops, err := bpf.OpenDrops(tap, nil, bpf.DropOptions{Flows: flows})
	if err != nil {
		return err
	}
	defer drops.Close()
	fd, to, err := loopbackSocket()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	nothing := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing}); err != nil {
		return fmt.Errorf("attaching a filter: %w", err)
	}
	if err := errors.Join(drops.Mark(fd), enterFlow(flows, fd, to)); err != nil {
		return err
	}
	return probePacket(tap, fd, to)
}

// enterFlow enters a UDP socket of this network namespace.
func enterFlow(flows *bpf.Flows, fd int, bound unix.Sockaddr) error {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &st); err != nil {
		return fmt.Errorf("asking for the network namespace: %w", err)
	}
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return fmt.Errorf("asking a socket for its cookie: %w", err)
	}
	at := bound.(*unix.SockaddrInet4)
	return flows.Enter(&bpf.FlowSocket{
		Network: uint32(st.Ino), Cookie: cookie, Origin: cookie, Family: unix.AF_INET, Type: unix.SOCK_DGRAM, Protocol: unix.IPPROTO_UDP,
		Local: netip.AddrPortFrom(netip.AddrFrom4(at.Addr), uint16(at.Port)),
	})
}

// followCall checks that a system call of this process is recorded.
func followCall() error {
	tap, hook, err := openHook()
	if err != nil {
		return err
	}
	defer tap.Close()
	defer hook.Close()
	calls, err := bpf.OpenCalls(hook, bpf.CallsOptions{RingSize: bpf.MinRingSize, Choose: bpf.ChooseKnown})
	if err != nil {
		return err
	}
	defer calls.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening two sockets: %w", err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	cookie, err := unix.GetsockoptUint64(pair[1], unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return fmt.Errorf("asking a socket for its cookie: %w", err)
	}
	if err := errors.Join(hook.Follow(uint32(os.Getpid()), nil), calls.Known(0, cookie)); err != nil {
		return err
	}
	payload := []byte(capture.ProbePayload)
	if err := unix.Send(pair[0], payload, 0); err != nil {
		return fmt.Errorf("sending a packet: %w", err)
	}
	if _, _, err := unix.Recvfrom(pair[1], make([]byte, len(payload)), 0); err != nil {
		return fmt.Errorf("receiving a packet: %w", err)
	}
	var event bpf.Event
	for event.Kind() != bpf.CallRecvfrom {
		if err := calls.Read(&event); err != nil {
			return fmt.Errorf("reading what was received from the ring: %w", err)
		}
	}
	if !bytes.Equal(event.Data, payload) {
		return fmt.Errorf("%q was recorded of a call that received %q", event.Data, payload)
	}
	return nil
}

// copyFromOthers tries to copy a descriptor from processes of other users, or from any
// process if there are none. One success is enough: some processes, such as the first of
// a container, are protected from everybody.
func copyFromOthers() error { return tryOthers(copyDescriptor) }

// listOthers tries likewise to list the descriptors of other processes.
func listOthers() error {
	return tryOthers(func(pid int) error {
		_, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if errors.Is(err, os.ErrNotExist) {
			return unix.ESRCH
		}
		return err
	})
}

func tryOthers(try func(pid int) error) error {
	own, others, err := processes()
	if err != nil {
		return err
	}
	if _, err := os.Stat("/proc/1"); len(others) == 0 && errors.Is(err, os.ErrNotExist) {
		return unix.EPERM // they are hidden (hidepid of proc(5))
	}
	if len(others) == 0 {
		others = own
	}
	var refusal error
	for _, pid := range others {
		err := try(pid)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.ESRCH) { // has exited
			refusal = err
		}
	}
	return refusal
}

// processes lists the other processes, by whether they belong to our user.
func processes() (own, others []int, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, nil, fmt.Errorf("listing processes: %w", err)
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		var st unix.Stat_t
		if unix.Stat("/proc/"+entry.Name(), &st) != nil {
			continue
		}
		if int(st.Uid) == os.Geteuid() {
			own = append(own, pid)
		} else {
			others = append(others, pid)
		}
	}
	return own, others, nil
}

// copyDescriptor briefly copies a descriptor of a process. It does not matter whether it
// exists: the kernel checks the privilege first.
func copyDescriptor(pid int) error {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, 0, 0)
	if errors.Is(err, unix.EBADF) {
		return nil
	}
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// tryTap loads the tap as capture does, and lets it record a packet.
func tryTap(p capability.Privilege) []Trial {
	loads := Trial{Name: TapLoads, Finding: Finding{Answer: Yes}}
	records := Trial{Name: TapRecords, Finding: Finding{Answer: Yes}}
	tap, err := bpf.Open(bpf.Options{})
	if err != nil {
		failed(&loads, err, p)
		records.Finding = Finding{No, "there is no tap to try"}
		records.Lacks, records.Mend = loads.Lacks, loads.Mend
		return []Trial{loads, records}
	}
	defer tap.Close()
	if err := recordPacket(tap); err != nil {
		failed(&records, err, p)
	}
	return []Trial{loads, records}
}

// failed interprets an error of the tap.
func failed(t *Trial, err error, p capability.Privilege) {
	t.Finding = Finding{No, err.Error()}
	var missing *bpf.MissingError
	if !errors.As(err, &missing) {
		return
	}
	t.Detail, t.Lacks, t.Mend = missing.What, missing.Capability, missing.Hint
	if t.Lacks != "" {
		t.Mend = privilege.HintToAdd(p, t.Lacks)
	}
}

// recordPacket sends a packet through the tap. Unix sockets need no network interface,
// and the filter has run when send returns.
func recordPacket(tap *bpf.Tap) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening two sockets: %w", err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	if err := tap.Attach(pair[1]); err != nil {
		return err
	}
	payload := []byte(capture.ProbePayload)
	if err := unix.Send(pair[0], payload, 0); err != nil {
		return fmt.Errorf("sending a packet: %w", err)
	}
	return readPacket(tap, func(data []byte) bool { return bytes.Equal(data, payload) })
}

// readPacket reads the packet that a trial has sent.
func readPacket(tap *bpf.Tap, is func([]byte) bool) error {
	if err := tap.Flush(); err != nil {
		return fmt.Errorf("flushing the ring: %w", err)
	}
	var rec bpf.Record
	if err := tap.Read(&rec); err != nil {
		return fmt.Errorf("reading the packet from the ring: %w", err)
	}
	if !is(rec.Data) {
		return fmt.Errorf("%q was recorded of a packet of %q", rec.Data, capture.ProbePayload)
	}
	return nil
}
