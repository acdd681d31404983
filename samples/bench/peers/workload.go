package main

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// limits are how much is measured.
type limits struct {
	rounds      int
	sending     time.Duration
	stream      int // MiB
	connections int
}

// workload is what is sent and received.
type workload struct {
	name, title string
	// unit is what a cost is the cost of.
	unit    string
	tools   []string
	senders int
	mtu     int
	// filter is for tcpdump and dumpcap: what the receiver gets, since ebpfdump
	// records that.
	filter string
	// send is the sender's role and its arguments; count is how many units.
	send    func(count int) []string
	receive []string
	// count is how many units each sender sends; zero to find it out.
	count int
	// size and sockets are where this workload stands in a plot, if it does.
	size, sockets int
	// costs is what the project aims at: the most of each tool for tcpdump's 1.
	costs map[string]float64
	// whole tells that it also aims at every packet.
	whole bool
	// possible says why this machine cannot, if it cannot.
	possible func() error
}

const (
	ethernet = 1500
	// anySize lets each datagram be one packet: neither fragments, of which a filter
	// for a port finds the first alone, nor different packets for different tools.
	anySize = 65535
)

func workloads(l limits) []workload {
	var all []workload
	for _, size := range []int{64, 512, 1400, 9000, 60000} {
		w := udp(size)
		w.name, w.title = fmt.Sprintf("udp-%d", size), fmt.Sprintf("Datagrams of %s bytes, as fast as one process sends", grouped(size))
		w.size = size
		if size <= 1400 {
			w.costs = map[string]float64{sockKernel: 1, sockBoth: 1.15, pidKernel: 1.05, pidBoth: 1.25}
			w.whole = true
		}
		all = append(all, w)
	}
	two := udp(64)
	two.name, two.title = "two-senders", "Datagrams of 64 bytes, as fast as two processes send"
	two.senders = 2
	all = append(all, two, stream(l.stream), connections(l.connections))
	for _, n := range []int{1, 10, 100, 1000, 10000} {
		all = append(all, many(n))
	}
	return all
}

func udp(size int) workload {
	w := workload{
		unit: "datagram", tools: []string{nobody, tcpdump, dumpcap, printed, sockKernel, sockBoth, pidKernel, pidBoth},
		senders: 1, mtu: ethernet, filter: fmt.Sprintf("udp dst port %d", firstPort),
		send:    func(count int) []string { return []string{"send-udp", strconv.Itoa(count), strconv.Itoa(size), "1"} },
		receive: []string{"receive-udp", "1"},
	}
	if size > ethernet {
		w.mtu = anySize
	}
	return w
}

// joined are those who capture what another process receives.
var joined = []string{nobody, tcpdump, dumpcap, pidKernel, pidBoth}

func stream(mebibytes int) workload {
	return workload{
		name: "stream", title: fmt.Sprintf("A TCP stream of %s MiB, read by 64 KiB", grouped(mebibytes)),
		unit: "64 KiB", tools: joined, senders: 1, mtu: ethernet, filter: fmt.Sprintf("tcp dst port %d", firstPort),
		send:    func(count int) []string { return []string{"send-stream", strconv.Itoa(count)} },
		receive: []string{"receive-stream"},
		count:   mebibytes << 20 / piece,
	}
}

func connections(n int) workload {
	return workload{
		name: "connections", title: grouped(n) + " short TCP connections: connect, one exchange of 64 bytes, close",
		unit: "connection", tools: joined, senders: 1, mtu: ethernet, filter: fmt.Sprintf("tcp dst port %d", firstPort),
		send:    func(count int) []string { return []string{"connect", strconv.Itoa(count)} },
		receive: []string{"answer"},
		count:   n,
	}
}

func many(sockets int) workload {
	w := workload{
		name:  fmt.Sprintf("sockets-%d", sockets),
		title: fmt.Sprintf("Datagrams of 64 bytes to %s sockets of one process, in turn", grouped(sockets)),
		unit:  "datagram", tools: []string{nobody, tcpdump, pidKernel, pidBoth},
		senders: 1, mtu: ethernet, filter: fmt.Sprintf("udp dst portrange %d-%d", firstPort, firstPort+sockets-1),
		send: func(count int) []string {
			return []string{"send-udp", strconv.Itoa(count), "64", strconv.Itoa(sockets)}
		},
		receive: []string{"receive-udp", strconv.Itoa(sockets)},
		sockets: sockets,
	}
	w.possible = func() error { return canOpen(sockets + spareDescriptors) }
	if sockets == 1 {
		w.title = "Datagrams of 64 bytes to one socket of one process"
	}
	return w
}

// spareDescriptors is for the rest of a process that has many sockets.
const spareDescriptors = 100

// canOpen tells whether a process may have so many descriptors. It sets the
// limit and sets it back, since only the kernel knows.
func canOpen(descriptors int) error {
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		return err
	}
	wanted := unix.Rlimit{Cur: uint64(descriptors), Max: max(uint64(descriptors), before.Max)}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &wanted); err != nil {
		return fmt.Errorf("this machine allows a process %d descriptors and not %d (ulimit -Hn, sysctl fs.nr_open)", before.Max, descriptors)
	}
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &before)
}

// by are the tools that take part, in the order of their turns.
func (w *workload) by() []tool {
	return slices.DeleteFunc(slices.Clone(tools), func(t tool) bool { return !slices.Contains(w.tools, t.name) })
}

// grouped writes a number with its thousands apart.
func grouped(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
