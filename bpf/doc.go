// Package bpf holds the tap: an eBPF socket filter that keeps every packet and
// copies it into a ring buffer, and the Go face to load, attach and read it.
//
// It knows sockets only as file descriptors and packets only as bytes. What
// they mean is the business of package capture.
package bpf

//go:generate go tool bpf2go -target bpfel -type record -type counters tap tap.c
//go:generate go tool bpf2go -target bpfel -type mark -type mptcp_listener hook hook.c
//go:generate go tool bpf2go -target bpfel -type event -type event_counters -type begun_call calls calls.c
//go:generate go tool bpf2go -target bpfel uring uring.c
