package main

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

const (
	initPath   = "/init"
	jobPath    = "/vmrun.json"
	reportPath = "/dev/ttyS1"
)

// job is the host's request to init, stored in the initramfs.
type job struct {
	Args []string
	Env  []string
	Dir  string
	// Outs are the paths that the host wants, indexed by the number in their frames.
	Outs []string
}

// mounts are the file systems in the guest. The root is a tmpfs already, so /tmp needs
// none, which would hide programs there.
var mounts = []struct{ kind, target string }{
	{"proc", "/proc"},
	{"sysfs", "/sys"},
	{"bpf", "/sys/fs/bpf"},
	{"cgroup2", "/sys/fs/cgroup"},
	{"tracefs", "/sys/kernel/tracing"},
	{"tmpfs", "/dev/shm"},
}

// inGuest tells whether this process is init in a guest. Being process 1 is not enough,
// since vmrun may be that in a container.
func inGuest() bool {
	return os.Getpid() == 1 && os.Args[0] == initPath
}

// guestMain is init: it does the job, reports the result, and reboots, which ends QEMU.
func guestMain() {
	defer syscall.Reboot(syscall.LINUX_REBOOT_CMD_RESTART)
	if err := os.MkdirAll("/dev", 0o755); err != nil {
		fmt.Fprintf(os.Stderr, "vmrun: making /dev: %v\n", err)
		return
	}
	if err := syscall.Mount("devtmpfs", "/dev", "devtmpfs", 0, ""); err != nil {
		fmt.Fprintf(os.Stderr, "vmrun: mounting /dev: %v\n", err)
		return
	}
	port, err := openReport()
	if err != nil {
		fmt.Fprintf(os.Stderr, "vmrun: opening the report: %v\n", err)
		return
	}
	report := &reportWriter{w: port}
	if err := doJob(report); err != nil {
		report.send(frame{kind: frameFailed, payload: []byte(err.Error())})
	}
	drain(port)
}

func doJob(report *reportWriter) error {
	var j job
	content, err := os.ReadFile(jobPath)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(content, &j); err != nil {
		return fmt.Errorf("reading %s: %w", jobPath, err)
	}
	if err := prepareGuest(); err != nil {
		return err
	}
	status, err := runProgram(j, report)
	if err != nil {
		return err
	}
	for i, name := range j.Outs {
		if err := sendOut(name, report.stream(frameOut, byte(i))); err != nil {
			report.send(frame{frameNoOut, byte(i), []byte(err.Error())})
		}
	}
	return report.send(frame{kind: frameExit, payload: []byte{status}})
}

func prepareGuest() error {
	for _, m := range mounts {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return fmt.Errorf("mounting %s: %w", m.target, err)
		}
		if err := syscall.Mount(m.kind, m.target, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mounting %s: %w", m.target, err)
		}
	}
	return bringUp("lo")
}

// bringUp sets an interface up. The kernel adds the addresses of lo itself.
func bringUp(name string) error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bringing %s up: %w", name, err)
	}
	defer syscall.Close(fd)
	// struct ifreq
	request := struct {
		name  [syscall.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}{flags: syscall.IFF_UP | syscall.IFF_RUNNING}
	copy(request.name[:], name)
	if err := ioctl(fd, syscall.SIOCSIFFLAGS, unsafe.Pointer(&request)); err != nil {
		return fmt.Errorf("bringing %s up: %w", name, err)
	}
	return nil
}

// runProgram runs the job's program to its end. The status of a program killed by a
// signal is 128 plus the signal number, as in a shell.
func runProgram(j job, report *reportWriter) (status byte, err error) {
	stderr := report.stream(frameStderr, 0)
	cmd := &exec.Cmd{
		Path:   j.Args[0],
		Args:   j.Args,
		Env:    j.Env,
		Dir:    j.Dir,
		Stdout: report.stream(frameStdout, 0),
		Stderr: stderr,
		// A surviving child of the program may hold the pipes open.
		WaitDelay:   time.Second,
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		return 0, err
	}
	if killed := outOfMemory(); killed > 0 {
		fmt.Fprintf(stderr, "vmrun: the guest ran out of memory, and its kernel killed %d of its processes: -memory gives it more\n", killed)
	}
	wait := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if wait.Signaled() {
		fmt.Fprintf(stderr, "vmrun: %s: %v\n", filepath.Base(j.Args[0]), cmd.ProcessState)
		return byte(128 + wait.Signal()), nil
	}
	return byte(wait.ExitStatus()), nil
}

// outOfMemory is how many processes the kernel has killed because there was no memory left.
func outOfMemory() (killed int) {
	counters, _ := os.ReadFile("/proc/vmstat")
	for line := range strings.Lines(string(counters)) {
		if count, ok := strings.CutPrefix(line, "oom_kill "); ok {
			killed, _ = strconv.Atoi(strings.TrimSpace(count))
		}
	}
	return killed
}

// sendOut writes a file or a folder as a tar stream, compressed because the port is slow.
// The only member of a file is ".".
func sendOut(name string, w io.Writer) error {
	// The level is a constant that is known to be valid.
	z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed)
	t := tar.NewWriter(z)
	err := filepath.WalkDir(name, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.IsDir() && !d.Type().IsRegular() {
			return nil
		}
		rel, err := filepath.Rel(name, p)
		if err != nil {
			return err
		}
		return tarFile(t, p, rel, d)
	})
	if err != nil {
		return err
	}
	if err := t.Close(); err != nil {
		return err
	}
	return z.Close()
}

func tarFile(t *tar.Writer, p, member string, d os.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	header, err := tar.FileInfoHeader(info, "")
	if err != nil {
		return err
	}
	header.Name = member
	if err := t.WriteHeader(header); err != nil || d.IsDir() {
		return err
	}
	f, err := os.Open(p)
	if err != nil {
		return err
	}
	defer f.Close()
	// A surviving child may still be writing to the file, so copy only the size in the
	// header.
	_, err = io.CopyN(t, f, header.Size)
	return err
}

// openReport opens the serial port for the report in raw mode.
func openReport() (*os.File, error) {
	fd, err := syscall.Open(reportPath, syscall.O_RDWR|syscall.O_NOCTTY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	raw := syscall.Termios{Cflag: syscall.CS8 | syscall.CREAD | syscall.CLOCAL | syscall.B115200}
	raw.Cc[syscall.VMIN] = 1
	if err := ioctl(fd, syscall.TCSETS, unsafe.Pointer(&raw)); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), reportPath), nil
}

// drain waits until the port has sent everything, like tcdrain(3).
func drain(port *os.File) {
	const tcsbrk = 0x5409
	syscall.Syscall(syscall.SYS_IOCTL, port.Fd(), tcsbrk, 1)
}

func ioctl(fd int, request uintptr, argument unsafe.Pointer) error {
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), request, uintptr(argument))
	if errno != 0 {
		return errno
	}
	return nil
}
