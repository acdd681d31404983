// Package bpf attaches eBPF programs to sockets and reads what they record. To it, a socket
// is a file descriptor and a packet is bytes; package capture, which most programs want,
// knows what they mean.
//
// # Types
//
// A [Tap] is a socket filter that keeps what its [Verdict] says, everything unless told
// otherwise, and copies each packet into a ring buffer: [Open] loads it, [Tap.Attach]
// attaches it to a socket, [Tap.Read] reads a [Record] for each packet. Readers that cannot
// afford a copy read the ring in place, between [Tap.Begin] and [Tap.End].
//
// A [Verdict] is the user's filter, which the tap calls: [ReadVerdict] reads one from an
// object file, [ReadClassic] from the output of tcpdump -ddd, [Keep] makes one that returns
// a number. A [Runner] runs it on packets that no socket receives.
//
// A [Hook] and [Calls] follow sockets of other processes without being attached to them: the
// hook records the packets that arrive, Calls what receiving system calls return, as an
// [Event] for each piece. [OpenFollowing] opens both, and the Tap whose ring the hook uses.
//
// A [Wire] records the frames of sockets on the interfaces of the machine, where no packet says
// whose it is: it asks [Flows], the register of their addresses.
//
// [Drops] tell which packets of marked sockets the kernel has freed, and why.
//
// An [Inspector] tells what others have put on a socket: eBPF programs and sockmaps.
//
// A [Feature] is for programs that ask what a kernel can do. Those that load programs of
// their own beside the tap have [Diagnose] and [AttachFilter].
//
// # Units
//
// Times are nanoseconds of CLOCK_BOOTTIME, lengths and sizes are bytes, sockets are
// identified by their cookie (SO_COOKIE). Numbers are in native byte order, except those
// that the kernel itself keeps in network byte order, whose fields say so.
//
// # Losses
//
// Nothing is lost without being counted: [Counters] of a tap are Seen = Recorded +
// Unwanted + RingFull + LoadFailed, and [CallCounters] likewise. Each record says how many its cpu
// had lost before it.
//
// # Errors
//
// A [*MissingError] says which privilege or kernel feature is missing and what to do about
// it, a [*RefusedError] why the verifier refuses the user's filter. Both wrap the kernel's
// error, for errors.Is.
//
// # Kernels
//
// A Tap needs Linux 5.8 and CAP_BPF, a Wire also CAP_PERFMON and CAP_NET_RAW; a Hook and Calls also need BTF, CAP_PERFMON and
// CAP_NET_ADMIN, and Calls support amd64, arm64 and riscv64. Drops need Linux 5.17 with BTF, CAP_BPF and CAP_PERFMON. A Selector
// needs what a Tap needs, and CAP_PERFMON to record what a program sees that chooses by itself. An Inspector needs Linux 5.10
// with BTF, CAP_BPF and CAP_PERFMON. The tests run on 5.10 and newer kernels.
package bpf

//go:generate go tool bpf2go -target bpfel -type record -type counters tap tap.c
//go:generate go tool bpf2go -target bpfel -type mark -type mptcp_listener hook hook.c
//go:generate go tool bpf2go -target bpfel -type event -type controls -type event_counters -type begun_call calls calls.c
//go:generate go tool bpf2go -target bpfel sends sends.c
//go:generate go tool bpf2go -target bpfel -type choice selector select.c
//go:generate go tool bpf2go -target bpfel uring uring.c
//go:generate go tool bpf2go -target bpfel drop drop.c
//go:generate go tool bpf2go -target bpfel -type found_program inspect inspect.c
//go:generate go tool bpf2go -target bpfel -type flow -type local -type owner wire wire.c
//go:generate go tool bpf2go -target bpfel flows flows.c
