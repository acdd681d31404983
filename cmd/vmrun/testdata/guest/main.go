// The program that the tests run in a guest: it looks around and does what its first argument says.
package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"
)

func main() {
	switch os.Args[1] {
	case "look":
		look()
	case "exit":
		status, _ := strconv.Atoi(os.Args[2])
		os.Exit(status)
	case "abort":
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "panic":
		os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0)
	case "sleep":
		fmt.Println("sleeping")
		time.Sleep(time.Hour)
	case "fill":
		fill()
	case "write":
		write(os.Args[2])
	}
}

// fill takes memory until there is none left.
func fill() {
	for {
		memory, err := syscall.Mmap(-1, 0, 16<<20, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON|syscall.MAP_POPULATE)
		must(err)
		memory[0] = 1
	}
}

// look prints one line on each thing that a program may expect of a guest.
func look() {
	var uname syscall.Utsname
	must(syscall.Uname(&uname))
	var release []byte
	for _, c := range uname.Release {
		if c == 0 {
			break
		}
		release = append(release, byte(c))
	}
	fmt.Println("release", string(release))
	dir, err := os.Getwd()
	must(err)
	fmt.Println("folder", dir)
	fmt.Println("variable", os.Getenv("EBPFDUMP_COLOUR"), os.Getenv("SHAPE"))
	content, err := os.ReadFile("testdata/guest/main.go")
	must(err)
	fmt.Printf("testdata %x\n", sha256.Sum256(content))
	fmt.Println("network", network("udp4", "127.0.0.1:0"), network("udp6", "[::1]:0"))
	for _, p := range []string{"/tmp", "/dev/shm", "/proc", "/sys", "/dev", "/sys/fs/bpf", "/sys/fs/cgroup", "/sys/kernel/tracing"} {
		var s syscall.Statfs_t
		must(syscall.Statfs(p, &s))
		fmt.Printf("mount %s %#x\n", p, uint32(s.Type))
	}
	fmt.Fprintln(os.Stderr, "on stderr")
}

// network sends a datagram to itself.
func network(kind, address string) error {
	c, err := net.ListenPacket(kind, address)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.WriteTo([]byte("hello"), c.LocalAddr()); err != nil {
		return err
	}
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, _, err = c.ReadFrom(make([]byte, 10))
	return err
}

// write makes a folder with a file of 2 MB, and prints all byte values.
func write(dir string) {
	must(os.MkdirAll(dir+"/below", 0o755))
	pattern := make([]byte, 256)
	for i := range pattern {
		pattern[i] = byte(i)
	}
	must(os.WriteFile(dir+"/below/pattern", bytes.Repeat(pattern, 8<<10), 0o640))
	must(os.WriteFile(dir+"/empty", nil, 0o644))
	os.Stdout.Write(pattern)
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
