package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
)

const qemuName = "qemu-system-x86_64"

// machine is a virtual computer to boot.
type machine struct {
	kernel     string // path of a bzImage
	memory     int    // MB
	cpus       int
	parameters string // for the kernel, after vmrun's own
}

// guest is a running machine. Closing it ends QEMU.
type guest struct {
	cmd     *exec.Cmd
	report  *os.File
	console *os.File
	copied  sync.WaitGroup
}

// boot starts QEMU. The kernel's console and QEMU's own messages go to console; the end
// of the context kills QEMU.
func (m machine) boot(ctx context.Context, initramfs *os.File, console io.Writer) (g *guest, err error) {
	program, err := exec.LookPath(qemuName)
	if err != nil {
		return nil, fmt.Errorf("%s is not there: install qemu-system-x86", qemuName)
	}
	consoleR, consoleW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer consoleW.Close()
	reportR, reportW, err := os.Pipe()
	if err != nil {
		consoleR.Close()
		return nil, err
	}
	defer reportW.Close()
	g = &guest{cmd: exec.CommandContext(ctx, program, m.arguments()...), report: reportR, console: consoleR}
	g.cmd.Stderr = console
	g.cmd.ExtraFiles = []*os.File{consoleW, reportW, initramfs}
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	// The parent death signal is tied to the thread that starts the process.
	runtime.LockOSThread()
	if err := g.cmd.Start(); err != nil {
		runtime.UnlockOSThread()
		consoleR.Close()
		reportR.Close()
		return nil, fmt.Errorf("starting %s: %w", qemuName, err)
	}
	g.copied.Go(func() { io.Copy(console, consoleR) })
	return g, nil
}

// arguments returns QEMU's command line. Descriptors 3, 4 and 5 are inherited, see boot.
func (m machine) arguments() []string {
	// no_timer_check: on a busy host the emulated timer may be too late for the kernel's
	// check, which panics.
	return []string{
		"-M", "q35",
		// KVM is not used: even where /dev/kvm exists it may fail to boot these kernels.
		// With a thread for each emulated processor, the guest panics now and then while
		// it patches its own code.
		"-accel", "tcg,thread=single", "-cpu", "max", "-smp", strconv.Itoa(m.cpus),
		"-m", strconv.Itoa(m.memory),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-chardev", "file,id=console,path=/dev/fd/3", "-serial", "chardev:console",
		"-chardev", "file,id=report,path=/dev/fd/4", "-serial", "chardev:report",
		"-kernel", m.kernel, "-initrd", "/dev/fd/5",
		"-append", "console=ttyS0 panic=-1 quiet rdinit=" + initPath +
			" mitigations=off random.trust_cpu=on tsc=reliable no_timer_check " + m.parameters,
	}
}

// close kills QEMU if it still runs, and waits for the console's end.
func (g *guest) close() {
	defer runtime.UnlockOSThread()
	g.cmd.Process.Kill()
	g.cmd.Wait()
	g.copied.Wait()
	g.console.Close()
	g.report.Close()
}

// receiver handles the report of a guest.
type receiver struct {
	stdout, stderr io.Writer
	outs           []*out
}

var errNoStatus = errors.New("the guest ended without the program's exit status")

// receive reads the report up to the program's exit status.
func (r *receiver) receive(report io.Reader) (status int, err error) {
	frames := &reportReader{r: report}
	for {
		f, err := frames.next()
		if err == io.EOF {
			return 0, errNoStatus
		}
		if err != nil {
			return 0, err
		}
		switch f.kind {
		case frameStdout:
			_, err = r.stdout.Write(f.payload)
		case frameStderr:
			_, err = r.stderr.Write(f.payload)
		case frameOut, frameNoOut:
			err = r.out(f)
		case frameFailed:
			return 0, fmt.Errorf("init: %s", f.payload)
		case frameExit:
			if len(f.payload) != 1 {
				return 0, errReportBroken
			}
			return int(f.payload[0]), nil
		default:
			return 0, errReportBroken
		}
		if err != nil {
			return 0, err
		}
	}
}

func (r *receiver) out(f frame) error {
	if int(f.out) >= len(r.outs) {
		return errReportBroken
	}
	o := r.outs[f.out]
	if f.kind == frameNoOut {
		o.missing = string(f.payload)
		return nil
	}
	o.stream.Write(f.payload)
	return nil
}
