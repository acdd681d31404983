package doctor

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture"
)

// The names of the trials.
const (
	TapLoads         = "tap loads"
	TapRecords       = "tap records"
	RawSocket        = "raw socket"
	PacketSocket     = "packet socket"
	NetworkNamespace = "network namespace"
	LowPort          = "port below 1024"
)

// trials has a row for each trial, but for those of the tap: those two share one tap.
var trials = []struct {
	name       string
	doing      string
	capability string
	bit        int
	try        func() error
}{
	{RawSocket, "opening a raw socket", "CAP_NET_RAW", unix.CAP_NET_RAW, func() error {
		return openSocket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_TCP)
	}},
	{PacketSocket, "opening a packet socket", "CAP_NET_RAW", unix.CAP_NET_RAW, func() error {
		return openSocket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	}},
	{NetworkNamespace, "making a network namespace", "CAP_SYS_ADMIN", unix.CAP_SYS_ADMIN, makeNamespace},
	{LowPort, "binding to a port below 1024", "CAP_NET_BIND_SERVICE", unix.CAP_NET_BIND_SERVICE, bindLowPort},
}

// capabilityOf is the capability that a trial needs.
func capabilityOf(name string) string {
	for _, t := range trials {
		if t.name == name {
			return t.capability
		}
	}
	if name == TapLoads {
		return "CAP_BPF"
	}
	return ""
}

// tryAll makes the trials. None leaves anything behind, or sends a packet to anybody.
func tryAll(p bpf.Privilege) []Trial {
	results := tryTap(p)
	for _, t := range trials {
		results = append(results, judgeTrial(t.name, t.doing, t.capability, t.bit, t.try(), p))
	}
	return results
}

// judgeTrial says what an error of a trial means.
func judgeTrial(name, doing, capability string, bit int, err error, p bpf.Privilege) Trial {
	t := Trial{Name: name, Finding: Finding{Answer: Yes}}
	refused := errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)
	switch {
	case err == nil:
	case refused && p.Has(bit) && !p.Nested:
		t.Answer = No
		t.Detail = doing + " is not permitted although " + capability + " is held"
		t.Mend = "look for a seccomp profile of the container, or a security module's rules"
	case refused:
		t.Answer = No
		t.Detail = doing + " needs " + capability
		t.Lacks, t.Mend = capability, p.Hint(capability)
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

// isAbsence tells whether an error says that the kernel was built without something.
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

// bindLowPort takes a port on the loopback address for a moment. Who has it
// already does not matter: the kernel asks for the privilege first.
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

// tryTap loads the tap as capture does, and has it record a packet.
func tryTap(p bpf.Privilege) []Trial {
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

// failed fills in what an error of the tap means.
func failed(t *Trial, err error, p bpf.Privilege) {
	t.Finding = Finding{No, err.Error()}
	var missing *bpf.MissingError
	if !errors.As(err, &missing) {
		return
	}
	t.Detail, t.Lacks, t.Mend = missing.What, missing.Capability, missing.Hint
	if t.Lacks != "" {
		t.Mend = p.Hint(t.Lacks)
	}
}

// recordPacket sends a packet through the tap. The two unix sockets need no
// network and no interface, and the filter has run when send returns.
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
	if err := tap.Flush(); err != nil {
		return fmt.Errorf("flushing the ring: %w", err)
	}
	var rec bpf.Record
	if err := tap.Read(&rec); err != nil {
		return fmt.Errorf("reading the packet from the ring: %w", err)
	}
	if !bytes.Equal(rec.Data, payload) {
		return fmt.Errorf("the tap recorded %q of a packet of %q", rec.Data, payload)
	}
	return nil
}
