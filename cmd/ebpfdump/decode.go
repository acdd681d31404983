package main

import (
	"slices"

	"github.com/spf13/pflag"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert"
	"github.com/ebpfdump/ebpfdump/internal/decoding"
)

// decodeFlags say what Wireshark is to make of what has no port.
type decodeFlags struct {
	as      string
	streams bool
	process bool
}

func (f *decodeFlags) register(flags *pflag.FlagSet) {
	flags.BoolVar(&f.streams, "unix-streams", false, "with --pid, --cgroup or a command: unix streams as well, which no filter sees (views user and sent)")
	flags.StringVar(&f.as, "decode-as", "", "unix streams as well, and what goes through them is the protocol that Wireshark calls `NAME`,\nsuch as http or dbus (without it Wireshark tries to find out)")
	flags.BoolVar(&f.process, "process-info", false, "with --pid, --cgroup or a command: put name, program, command line, user and parent of the processes into the pcapng,\nwhich Wireshark after 4.6 shows; earlier ones have a row for each")
}

// check refuses what would have no effect.
func (f *decodeFlags) check(o *capture.Options, sock, output string, form *convert.Format) error {
	shown := slices.Contains(o.Views, capture.ViewUser) || slices.Contains(o.Views, capture.ViewSent)
	if f.process && (output == "" || form.Name != convert.Pcapng().Name) {
		return usagef("--process-info puts blocks into a pcapng file: give -o FILE.pcapng")
	}
	kind, own := capture.KindByName(sock)
	switch {
	case f.as != "" && decoding.Check(f.as) != nil:
		return usagef("--decode-as: %w", decoding.Check(f.as))
	case f.as != "" && own && !kind.Counted():
		return usagef("--decode-as is for unix streams (--sock unix-stream, --pid, --cgroup or a command): of others Wireshark knows the protocol by the port")
	case (f.as != "" || f.streams) && !shown:
		return usagef("what goes through unix streams is in the views user and sent: choose one of them with --view")
	}
	return nil
}
