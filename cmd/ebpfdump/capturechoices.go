package main

import (
	"fmt"
	"net"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

// captureChoices lists what there is to capture, as the users of tcpdump -D and dumpcap -D expect it of
// -D: the kinds of socket, or the sockets of processes.
func (a *app) captureChoices(cmd *cobra.Command, f captureFlags) error {
	if len(f.live.command) > 0 {
		return usagef("-D lists and captures nothing: a command has no sockets yet")
	}
	if cmd.Flags().Changed("pid") || cmd.Flags().Changed("cgroup") {
		sockets := listFlags{live: f.live}
		if f.sock != "" {
			sockets.kinds = strings.Split(f.sock, ",")
		}
		return a.list(cmd, sockets)
	}
	if f.live.wanted(cmd) {
		return usagef("-D lists the kinds of socket: sockets of which process? Give --pid PID or --cgroup PATH as well")
	}
	const wordColumn, most, least = 15, 80, 40
	room := most - wordColumn
	if columns := a.stdout.Columns(); columns > 0 {
		room = min(max(columns, least), most) - wordColumn
	}
	for _, kind := range capture.Kinds() {
		text := kind.Summary
		switch {
		case !kind.InKernel():
			text += " [not in this kernel]"
		case kind.Family() == unix.AF_PACKET:
			text += " [-l " + strings.Join(deviceNames(), ", ") + "]"
		}
		lines := terminal.Wrap(text, room, room)
		text = strings.Join(lines, "\n"+strings.Repeat(" ", wordColumn))
		if _, err := fmt.Fprintf(a.stdout, "%-*s%s\n", wordColumn, kind.Name, text); err != nil {
			return fmt.Errorf("writing the list: %w", err)
		}
	}
	return nil
}

// deviceNames are the network interfaces of the machine.
func deviceNames() []string {
	devices, _ := net.Interfaces()
	var names []string
	for _, d := range devices {
		names = append(names, terminal.Plain(d.Name))
	}
	return names
}
