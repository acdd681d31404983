package main

import (
	"fmt"
	"strconv"
	"time"
)

// tool is somebody who captures.
type tool struct {
	name string
	// command is nil for nobody. pid is the receiver's, for those who join it.
	command func(b *bench, w *workload, pid int) []string
	// listening is what it says on stderr when it captures.
	listening string
	// quiet is how long it must have done nothing to be done: longer than it lets
	// the last packets wait.
	quiet time.Duration
	// receives tells that it is the receiver itself.
	receives bool
	// few is the part of the packets that it gets, since it takes so long for each.
	few int
	// ours tells that what this project aims at is asked of it.
	ours bool
}

const (
	nobody  = "nobody"
	tcpdump = "tcpdump"
	dumpcap = "dumpcap"
	printed = "2017"

	sockKernel = "sock, kernel"
	sockBoth   = "sock, both"
	pidKernel  = "pid, kernel"
	pidBoth    = "pid, both"
)

const (
	both = "kernel,user"
	// buffer is what each of them gets, in MiB.
	buffer = 32
	// mostMemory is what ebpfdump may take: two rings, of which it has the second one
	// for what a joined process gets, and 64 MiB.
	mostMemory = (2*buffer + 64) << 20
)

// tools is everybody, in the order of their turns.
var tools = []tool{
	{name: nobody, quiet: 200 * time.Millisecond},
	{
		name: tcpdump, listening: "listening on",
		// libpcap hands on a block that is not full after the second that tcpdump asks for.
		quiet: 1100 * time.Millisecond,
		command: func(b *bench, w *workload, _ int) []string {
			return []string{"tcpdump", "-i", "vb", "-Z", "root", "-B", strconv.Itoa(buffer << 10), "-w", b.output(), w.filter}
		},
	},
	{
		name: dumpcap, listening: "File:",
		quiet: 350 * time.Millisecond, // of which it waits 250
		command: func(b *bench, w *workload, _ int) []string {
			return []string{"dumpcap", "-q", "-i", "vb", "-B", strconv.Itoa(buffer), "-w", b.output(), "-f", w.filter}
		},
	},
	{
		name: printed, listening: "listening on", quiet: 200 * time.Millisecond, receives: true, few: 40,
		command: func(b *bench, _ *workload, _ int) []string {
			return []string{b.settings.record, b.settings.printing, "serve", fmt.Sprintf("%s:%d", receiverAddr, firstPort), b.output()}
		},
	},
	{name: sockKernel, listening: "listening on", quiet: 200 * time.Millisecond, receives: true, ours: true, command: opens("kernel")},
	{name: sockBoth, listening: "listening on", quiet: 200 * time.Millisecond, receives: true, ours: true, command: opens(both)},
	{name: pidKernel, listening: "listening on", quiet: 200 * time.Millisecond, ours: true, command: joins("kernel")},
	{name: pidBoth, listening: "listening on", quiet: 200 * time.Millisecond, ours: true, command: joins(both)},
}

func opens(views string) func(b *bench, w *workload, pid int) []string {
	return func(b *bench, _ *workload, _ int) []string {
		return []string{
			b.settings.ebpfdump, "capture", "--sock", "udp", "-l", fmt.Sprintf("%s:%d", receiverAddr, firstPort),
			"-B", strconv.Itoa(buffer) + "M", "--view", views, "-o", b.output(),
		}
	}
}

func joins(views string) func(b *bench, w *workload, pid int) []string {
	return func(b *bench, _ *workload, pid int) []string {
		return []string{
			b.settings.ebpfdump, "capture", "--pid", strconv.Itoa(pid),
			"-B", strconv.Itoa(buffer) + "M", "--view", views, "-o", b.output(),
		}
	}
}
