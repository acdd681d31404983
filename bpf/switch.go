package bpf

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Switch is what Stop turns off: the one variable of a program that can change,
// in a map. Whoever holds a copy can turn it off as well, also when the
// process that loaded the program is no more.
type Switch struct{ file *os.File }

// copySwitch copies the descriptor of the map that holds a program's variables.
func copySwitch(variables *ebpf.Map) (Switch, error) {
	fd, err := unix.FcntlInt(uintptr(variables.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return Switch{}, fmt.Errorf("copying the descriptor of a switch: %w", err)
	}
	return Switch{os.NewFile(uintptr(fd), "switch")}, nil
}

// InheritSwitch takes a Switch that was passed to this process as a file.
func InheritSwitch(file *os.File) Switch { return Switch{file} }

// File is the switch as another process can inherit it.
func (s Switch) File() *os.File { return s.file }

// TurnOff does what Stop of the Tap or the Reads does, but for detaching.
func (s Switch) TurnOff() (err error) {
	fd, err := unix.FcntlInt(s.file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("turning a program off: %w", err)
	}
	variables, err := ebpf.NewMapFromFD(fd)
	if err != nil {
		return fmt.Errorf("turning a program off: %w", err)
	}
	defer func() { err = errors.Join(err, variables.Close()) }()
	if err := variables.Put(uint32(0), make([]byte, variables.ValueSize())); err != nil {
		return fmt.Errorf("turning a program off: %w", err)
	}
	return nil
}
