// Package capture records what every observer of a socket sees of each packet: the bytes
// that the kernel shows a socket's filter, and those that userspace gets.
//
// # Captures
//
// There are four kinds of capture:
//
//   - [Open] opens a socket of some [Kind] and reads it: what a filter would see there.
//   - [Attach] attaches the tap to a socket that the program itself reads, such as a
//     *net.UDPConn or a *net.TCPListener.
//   - [Join] follows the sockets of running processes and their descendants.
//   - [Start] does so for a command, from its first instruction. A program that uses it
//     calls [Reenter] before anything else.
//
// The first two return a [*Session], the others a [*Live]; both are a [Capture]. Run hands
// each [Packet] to a [Sink], one at a time, ordered by time, until its context ends; the
// Writer of package convert is a Sink that writes a pcapng file. Counts may be called
// meanwhile, Statistics at the end. Close releases everything.
//
// A packet comes once for each [View] that was asked for, and has the same ID in all of
// them. In the user view, the ID is that of the packet that brought what a system call
// returned; if it is not known, the ID is 0, and [Receipt] says why.
//
// [TakeInventory] captures nothing: it lists the sockets of processes, and what is on each.
//
// # Units
//
// Times are nanoseconds since the Unix epoch; [Session.ClockError] bounds their error.
// Lengths and sizes are bytes. Data is as it was in the packet, so multi-byte fields of
// headers are in network byte order; all numbers in Go types are plain numbers.
//
// # Losses
//
// Packets are lost only if the ring has no room for them. They are counted, and the Drops of
// the next packet reports them. [Statistics] and [Account] balance to the packet.
//
// # Errors
//
// A [*bpf.MissingError] says which privilege or feature of the kernel is missing and what to
// do about it, an [*AddressError] why a socket cannot be bound. Where a field of the options
// helps, the error's Setting or its documentation names it. An error of the Sink ends Run,
// which returns it.
//
// # Kernels
//
// [Open] and [Attach] need Linux 5.8 and CAP_BPF, raw and packet sockets CAP_NET_RAW too.
// [Join] and [Start] need a kernel with BTF, CAP_PERFMON and CAP_NET_ADMIN, and CAP_SYS_PTRACE
// and CAP_DAC_READ_SEARCH for processes of others. [TakeInventory] needs nothing for a program's own
// user, and says what it lacks for more. Once a capture is open, its
// Capabilities are all that it needs until the end.
package capture
