package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/extcap"
	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

// extcapPrefix is what the names of our interfaces begin with.
const extcapPrefix = "ebpfdump-"

// The interfaces that have no kind of socket.
const (
	extcapProcess = "pid"
	extcapCommand = "command"
)

// extcapField is a field of Wireshark's dialog, and the flag of capture that it stands for.
type extcapField struct {
	extcap.Argument
	flag string
	// fits tells whether an interface has it: by the kind of socket, nil for the others, and the
	// rest of the interface's name.
	fits func(kind *capture.Kind, name string) bool
}

func ofKinds(kind *capture.Kind, _ string) bool { return kind != nil }

func ofProcesses(kind *capture.Kind, _ string) bool { return kind == nil }

func ofAll(*capture.Kind, string) bool { return true }

func extcapFields() []extcapField {
	views := []extcap.Value{}
	for name := range strings.SplitSeq(capture.ViewNames(), ", ") {
		if name == capture.ViewSelect.String() {
			continue // takes a reuseport group
		}
		views = append(views, extcap.Value{Value: name, Display: name, Default: name == "kernel" || name == "user"})
	}
	return []extcapField{
		{extcap.Argument{Name: "pid", Display: "Process", Type: extcap.String, Required: true, Placeholder: "number or name",
			Tooltip: "number or name of a process, or several with commas between them"}, "--pid",
			func(_ *capture.Kind, name string) bool { return name == extcapProcess }},
		{extcap.Argument{Name: "run", Display: "Command", Type: extcap.String, Required: true, Placeholder: "curl -s http://127.0.0.1/",
			Tooltip: "a command line of sh, which is run and followed"}, "", func(_ *capture.Kind, name string) bool { return name == extcapCommand }},
		{extcap.Argument{Name: "port", Display: "Port", Type: extcap.String, Placeholder: "all",
			Tooltip: "only sockets whose own or peer's port it is"}, "--port", ofProcesses},
		{extcap.Argument{Name: "unix-streams", Display: "Unix streams", Type: extcap.Check,
			Tooltip: "unix streams as well, which no filter sees (views user and sent)"}, "--unix-streams", ofProcesses},
		{extcap.Argument{Name: "decode-as", Display: "Decode unix streams as", Type: extcap.String, Placeholder: "http",
			Tooltip: "unix streams as well, and Wireshark takes what goes through them for this protocol"}, "--decode-as", ofProcesses},
		{extcap.Argument{Name: "process-info", Display: "Process information", Type: extcap.Check,
			Tooltip: "names, command lines and users of the processes, for Wireshark after 4.6"}, "--process-info", ofProcesses},
		{extcap.Argument{Name: "listen", Display: "Listen on", Type: extcap.String, Placeholder: "127.0.0.1:16962",
			Tooltip: "address and port of the socket; an interface, a path or groups for kinds without"}, "--listen", ofKinds},
		{extcap.Argument{Name: "join", Display: "Multicast groups", Type: extcap.String, Placeholder: "224.0.0.251@eth0",
			Tooltip: "groups to join, each with an interface behind @ or without"}, "--join",
			func(kind *capture.Kind, _ string) bool { return kind != nil && kind.CanJoin() }},
		{extcap.Argument{Name: "proto", Display: "Protocol", Type: extcap.String, Placeholder: "tcp",
			Tooltip: "IP protocol: tcp, udp, icmp or a number"}, "--proto",
			func(kind *capture.Kind, _ string) bool { return kind != nil && kind.TakesProtocol() }},
		{extcap.Argument{Name: "echo", Display: "Echo", Type: extcap.Check, Tooltip: "send back what was received"}, "--echo",
			func(kind *capture.Kind, _ string) bool { return kind != nil && kind.CanEcho() }},
		{extcap.Argument{Name: "probe", Display: "Probe", Type: extcap.Check, Tooltip: "send the reference traffic, and end when it has been seen"}, "--probe", ofKinds},
		{extcap.Argument{Name: "views", Display: "Views", Type: extcap.Selectors, Values: views,
			// Wireshark 4.0 checks none at first, whatever is said of them.
			Tooltip: "each is an interface of its own in the capture: kernel and user if none is chosen"}, "--view", ofAll},
		{extcap.Argument{Name: "filter", Display: "Socket filter", Type: extcap.File, Tooltip: "BPF object whose filter decides what the socket keeps"}, "--filter", ofKinds},
		{extcap.Argument{Name: "snaplen", Display: "Snaplen", Type: extcap.Unsigned, Default: fmt.Sprint(bpf.MaxSnaplen), Tooltip: "bytes that are kept of each packet"}, "--snaplen", ofAll},
		{extcap.Argument{Name: "buffer-size", Display: "Ring buffer", Type: extcap.String, Placeholder: "32M", Tooltip: "size of the ring buffer"}, "--buffer-size", ofAll},
	}
}

// extcapInterfaces are those that this kernel has, and lets have a filter.
func extcapInterfaces() []extcap.Interface {
	all := []extcap.Interface{
		{Name: extcapPrefix + extcapProcess, Display: "eBPF socket filter: sockets of a running process"},
		{Name: extcapPrefix + extcapCommand, Display: "eBPF socket filter: sockets of a command"},
	}
	for _, k := range capture.Kinds() {
		if k.InKernel() && !k.RefusesFilters() {
			all = append(all, extcap.Interface{Name: extcapPrefix + k.Name, Display: "eBPF socket filter: " + k.Summary})
		}
	}
	for i := range all {
		name := strings.TrimPrefix(all[i].Name, extcapPrefix)
		kind, _ := capture.KindByName(name)
		for _, f := range extcapFields() {
			if f.fits(kind, name) {
				all[i].Arguments = append(all[i].Arguments, f.Argument)
			}
		}
	}
	return all
}

// extcap answers a call of Wireshark, and returns the exit status.
func (a *app) extcap(args []string) int {
	call := extcap.ParseCall(args, func(name string) bool {
		for _, f := range extcapFields() {
			if f.Name == name {
				return f.Type == extcap.Check
			}
		}
		return false
	})
	if call.Interfaces {
		extcap.WriteInterfaces(a.stdout, version(), "https://github.com/ebpfdump/ebpfdump", extcapInterfaces())
		return exitDone
	}
	for _, i := range extcapInterfaces() {
		if i.Name != call.Interface {
			continue
		}
		switch {
		case call.DLTs:
			extcap.WriteDLT(a.stdout, 252, "WIRESHARK_UPPER_PDU", "as each interface of the capture says")
			return exitDone
		case call.Config:
			i.WriteConfig(a.stdout)
			return exitDone
		case call.Capture && call.Fifo != "":
			return a.extcapCapture(call)
		case call.Capture:
			a.stderr.Line("ebpfdump: a capture for Wireshark needs the fifo that it goes into: --fifo FILE")
			return exitUsage
		case call.Filter != "":
			// While somebody types it. What is printed is what is wrong with it.
			f := captureFlags{words: []string{call.Filter}}
			if kind, ok := capture.KindByName(strings.TrimPrefix(i.Name, extcapPrefix)); ok {
				f.sock = kind.Name
			}
			if _, err := f.parseExpression(); err != nil {
				fmt.Fprintln(a.stdout, terminal.Plain(err.Error()))
			}
			return exitDone
		}
		a.stderr.Line("ebpfdump: Wireshark asks for something that is not known here: %s", shellWords(args))
		return exitUsage
	}
	a.stderr.Line("ebpfdump: there is no interface %q: ebpfdump --extcap-interfaces lists them", call.Interface)
	return exitUsage
}

// extcapCapture captures into a fifo.
func (a *app) extcapCapture(call extcap.Call) int {
	// Wireshark waits until somebody opens its fifo, and for ever if nobody does: whatever fails, it
	// is opened, and closed at the end.
	if fifo, err := openFifo(call.Fifo); err == nil {
		defer fifo.Close()
	}
	a.quiet = true
	return a.run(extcapArguments(call))
}

// extcapArguments is the command line of capture that a call stands for.
func extcapArguments(call extcap.Call) []string {
	name := strings.TrimPrefix(call.Interface, extcapPrefix)
	args := []string{"capture", "-q", "-o", call.Fifo}
	kind, ok := capture.KindByName(name)
	if ok {
		args = append(args, "--sock", name)
	}
	for _, f := range extcapFields() {
		value := call.Values[f.Name]
		switch {
		case value == "" || f.flag == "" || !f.fits(kind, name):
		case f.Type == extcap.Check:
			args = append(args, f.flag+"="+value)
		default:
			args = append(args, f.flag, value)
		}
	}
	if name == extcapProcess && call.Values["pid"] == "" {
		args = append(args, "--pid", "") // which says what is missing
	}
	if call.Filter != "" {
		args = append(args, " "+call.Filter) // and no flag, whatever it is
	}
	if name == extcapCommand {
		return append(args, "--", "sh", "-c", call.Values["run"])
	}
	return args
}

// fifoPatience is how long a fifo may have no reader.
const fifoPatience = 5 * time.Second

// openFifo opens a fifo once somebody reads it.
func openFifo(name string) (*os.File, error) {
	ctx, cancel := context.WithTimeout(context.Background(), fifoPatience)
	defer cancel()
	for {
		fd, err := unix.Open(name, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err == nil {
			return os.NewFile(uintptr(fd), name), nil
		}
		if !errors.Is(err, unix.ENXIO) || ctx.Err() != nil {
			return nil, fmt.Errorf("opening %s: %w", name, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
