package capture

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
)

// keeper is a small process that outlives this one, should it be killed: it then
// stops the tap, takes it off what can be reached, puts back the filters that
// were replaced, and lets a command that was held at a system call go on.
type keeper struct {
	mu   sync.Mutex
	pipe *os.File
}

// What the keeper is told: a word for what, and a number.
const (
	keepProcess      = iota + 1 // its sockets have the tap
	keepSocket                  // an inode: the tap is on it, or will be in a moment
	keepFilter                  // a number of instructions, which follow: the filter that the last socket had
	keepGone                    // an inode: the socket is no more
	keepPort                    // connections to it have inherited the tap
	keepNotification            // the system call that a process is held at now
	keepDone                    // the tap is off: nothing to do but for notifications
)

const keepSize = 16

// Descriptors of the keeper. The second switch is the tap's if nobody follows
// system calls. Behind them come the listener, if there is one, and links.
const (
	keeperPipe = iota + 3 // exec.Cmd.ExtraFiles begin with 3
	keeperTapSwitch
	keeperReadsSwitch
	keeperListener
)

// startKeeper starts a keeper. listener is the command's seccomp listener, or
// nil; reads, which may be nil too, is detached by the keeper's end, so that
// nobody waits for it.
func startKeeper(tap *bpf.Tap, reads *bpf.Reads, listener *os.File) (_ *keeper, err error) {
	var files []*os.File
	defer func() {
		for _, f := range files {
			f.Close()
		}
		if err != nil {
			err = fmt.Errorf("starting the keeper: %w", err)
		}
	}()
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	files = append(files, r)
	defer func() {
		if err != nil {
			w.Close()
		}
	}()
	switches := []interface{ Switch() (bpf.Switch, error) }{tap, tap}
	if reads != nil {
		switches[1] = reads
	}
	for _, s := range switches {
		off, err := s.Switch()
		if err != nil {
			return nil, err
		}
		files = append(files, off.File())
	}
	before := len(files)
	if reads != nil {
		links, err := reads.Links()
		files = append(files, links...)
		if err != nil {
			return nil, err
		}
	}
	inherited, links := files, "no listener"
	if listener != nil {
		inherited = slices.Insert(slices.Clone(files), before, listener)
		links = strconv.Itoa(len(files) - before)
	}
	last := keeperPipe + len(inherited) - 1
	cmd := again(keeperName, inherited, links, strconv.Itoa(last))
	// Out of reach of the terminal's signals, which are meant for the capture.
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go cmd.Wait()
	return &keeper{pipe: w}, nil
}

// tell says what the keeper will have to know. It is without consequence on a
// nil keeper, and when the keeper is gone.
func (k *keeper) tell(what, number uint64) { k.write(keepMessage(nil, what, number)) }

// tellSocket says that a socket is to have the tap in place of a classic filter,
// which may be empty.
func (k *keeper) tellSocket(inode uint64, classic []unix.SockFilter) {
	k.write(socketMessage(inode, classic))
}

func socketMessage(inode uint64, classic []unix.SockFilter) []byte {
	message := keepMessage(nil, keepSocket, inode)
	message = keepMessage(message, keepFilter, uint64(len(classic)))
	for _, i := range classic {
		message = binary.NativeEndian.AppendUint16(message, i.Code)
		message = append(message, i.Jt, i.Jf)
		message = binary.NativeEndian.AppendUint32(message, i.K)
	}
	return message
}

func keepMessage(to []byte, what, number uint64) []byte {
	to = binary.NativeEndian.AppendUint64(to, what)
	return binary.NativeEndian.AppendUint64(to, number)
}

func (k *keeper) write(message []byte) {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	_, _ = k.pipe.Write(message)
}

func (k *keeper) close() {
	if k != nil {
		k.pipe.Close()
	}
}

// keep is the keeper's own work.
func keep() {
	if last, err := strconv.Atoi(os.Args[2]); err == nil {
		closeStrays(last)
	}
	known := newKeepsake()
	_ = known.read(bufio.NewReader(os.NewFile(keeperPipe, "pipe"))) // to its end, whatever that is
	if !known.done {
		for fd := keeperTapSwitch; fd <= keeperReadsSwitch; fd++ {
			_ = bpf.InheritSwitch(os.NewFile(uintptr(fd), "switch")).TurnOff()
		}
		for _, pid := range known.processes {
			known.clean(pid)
		}
	}
	links, err := strconv.Atoi(os.Args[1])
	if err != nil {
		return // there is no listener
	}
	go func() { // which takes a while, and the command must not wait
		for fd := keeperListener + 1; fd <= keeperListener+links; fd++ {
			unix.Close(fd)
		}
	}()
	keepGoing(keeperListener, known.held)
}

// closeStrays closes the descriptors behind the last one that is ours: whoever
// called ebpfdump may wait for the end of a pipe. What is left is the runtime's.
func closeStrays(last int) {
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, entry := range entries {
		fd, err := strconv.Atoi(entry.Name())
		if err != nil || fd <= last {
			continue
		}
		target, err := os.Readlink("/proc/self/fd/" + entry.Name())
		if err == nil && !strings.HasPrefix(target, "anon_inode:[event") {
			unix.Close(fd)
		}
	}
}

// keepsake is what a keeper has been told.
type keepsake struct {
	processes []int
	sockets   map[uint64][]unix.SockFilter // inodes of what has the tap, and the filters that it replaced
	ports     map[uint16]bool              // of listeners
	held      uint64
	done      bool
}

func newKeepsake() *keepsake {
	return &keepsake{sockets: make(map[uint64][]unix.SockFilter), ports: make(map[uint16]bool)}
}

// errFilter means that no socket has a filter like that.
var errFilter = errors.New("a filter of too many instructions")

// read takes what the keeper is told, until nobody is there to tell it more.
func (k *keepsake) read(pipe io.Reader) error {
	var message [keepSize]byte
	var inode uint64
	for {
		if _, err := io.ReadFull(pipe, message[:]); err != nil {
			return err
		}
		number := binary.NativeEndian.Uint64(message[8:])
		switch binary.NativeEndian.Uint64(message[:]) {
		case keepProcess:
			k.processes = append(k.processes, int(number))
		case keepSocket:
			inode = number
		case keepFilter:
			if number > unix.BPF_MAXINSNS {
				return errFilter
			}
			filter := make([]unix.SockFilter, number)
			if err := binary.Read(pipe, binary.NativeEndian, filter); err != nil {
				return err
			}
			k.sockets[inode] = filter
		case keepGone:
			delete(k.sockets, number)
		case keepPort:
			k.ports[uint16(number)] = true
		case keepNotification:
			k.held = number
		case keepDone:
			k.done = true
		}
	}
}

// keepGoing lets a command go on that is held by a listener, until it and all
// that it started have ended. held is what it was held at last.
func keepGoing(listener int, held uint64) {
	_ = continueCall(listener, held)
	for {
		n, ok, err := receiveCall(listener, -1)
		if err != nil {
			return
		}
		if ok {
			_ = continueCall(listener, n.id)
		}
	}
}

// have tells whether a socket has the tap, as far as is known.
func (k *keepsake) have(fd int, inode uint64) bool {
	if filter, err := getFilter(fd); err != nil || !filter.extended {
		return false
	}
	if _, ok := k.sockets[inode]; ok {
		return true
	}
	info, err := inspect(fd)
	return err == nil && info.typ == unix.SOCK_STREAM && k.ports[info.local.Port()]
}

// clean takes the tap off the sockets of a process.
func (k *keepsake) clean(pid int) {
	p, err := openProcess(pid)
	if err != nil {
		return
	}
	defer p.close()
	_ = p.eachSocket(func(fd int, inode uint64) error {
		if !k.have(fd, inode) {
			return nil
		}
		return restoreFilter(fd, k.sockets[inode])
	})
}

// errNobody means that no process is left that the listener listens to.
var errNobody = errors.New("nobody is left to listen to")

// threadGroup is the process that a thread belongs to.
func threadGroup(tid int) (int, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(tid) + "/status")
	if err != nil {
		return 0, err
	}
	group, err := statusNumber(text, "Tgid:", 0, 10)
	return int(group), err
}
