// Package capture records what every observer of a socket sees of each packet: the bytes
// that the kernel shows a socket's filter, and those that userspace gets.
//
// # What there is
//
// A capture is of one of these:
//
//   - [Open] opens a socket of some [Kind] and reads it: what a filter would see there.
//   - [Attach] puts the tap on a socket that the program itself has and reads, such as a
//     *net.UDPConn or a *net.TCPListener.
//   - [Join] follows the sockets of a process that runs, and those of its children.
//   - [Start] does so for a command, from its first instruction. A program that uses it
//     calls [Reenter] before anything else.
//
// The first two are a [*Session], the others a [*Live]; what they share is [Capture]. Run
// hands each [Packet] to a [Sink], one after the other, in the order of their times, until
// its context ends; the Writer of package convert is a Sink that makes a pcapng file.
// Counts may be asked for meanwhile, Statistics at the end. Close gives all up.
//
// A packet comes once for each [View] that was asked for, and has the same ID in all of
// them. With a user view, the ID says which packet brought what a system call returned;
// of what is not known to come from one packet, which has the ID 0, [Receipt] says why.
//
// # Units
//
// Times are nanoseconds since the Unix epoch; [Session.ClockError] bounds their error.
// Lengths and sizes are bytes. Data is as it was in the packet, so multi-byte fields of
// headers are in network byte order; all numbers in Go types are plain numbers.
//
// # Losses
//
// Packets are lost only for want of room in the ring, counted, and told of by the Drops
// of the next packet. [Statistics] and [Account] balance to the packet.
//
// # Errors
//
// A [*bpf.MissingError] says which privilege or feature of the kernel is missing and which
// step mends that, an [*AddressError] why a socket cannot be bound. Where the step is a
// field of the options, their Setting or documentation names it. An error of the Sink ends
// Run, which returns it.
//
// # Kernels
//
// [Open] and [Attach] need Linux 5.8 and CAP_BPF, raw and packet sockets CAP_NET_RAW too.
// [Join] and [Start] need a kernel with BTF, CAP_PERFMON and CAP_NET_ADMIN, and CAP_SYS_PTRACE
// and CAP_DAC_READ_SEARCH for processes of others. Once a capture is open, its
// Capabilities are all that it needs to the end.
package capture
