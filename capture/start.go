package capture

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

// supervisorInterval is how soon the supervisor notices that a capture is over,
// in milliseconds.
const supervisorInterval = 50

// Start is Join for a command, which runs when Run does. The tap is on each of
// its sockets before the first packet can come: the command is held at bind,
// listen and connect, and at sendto with an address, until the tap is on; and
// raw and UDP sockets have it from the beginning, since they are made for the
// command. Needs Linux 5.9.
//
// Where a part of the command has a cgroup, a user namespace or a security label
// of its own, it makes its sockets itself: then raw ones, and those that have
// neither an address nor a peer when they send with sendmsg or sendmmsg, get
// the tap some milliseconds after they were made.
func Start(config JoinConfig, command Command) (_ *Live, err error) {
	if err := command.User.permitted(); err != nil {
		return nil, err
	}
	l, err := newLive(config)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.leave(), l.Close())
		}
	}()
	if l.command, err = startLauncher(command); err != nil {
		return nil, err
	}
	root, err := openProcess(l.command.cmd.Process.Pid)
	if err != nil {
		return nil, err
	}
	root.command = terminal.Plain(command.Args[0])
	if l.keeper, err = startKeeper(l.tap, l.reads, l.command.held); err != nil {
		root.close()
		return nil, err
	}
	if err := l.adopt(root); err != nil {
		return nil, err
	}
	l.joined = true
	return l, l.watch(root)
}

// supervise puts the tap on sockets at the moment at which they become able to
// get packets, until the context ends; the keeper then goes on without a tap.
func (l *Live) supervise(ctx context.Context) {
	listener := int(l.command.held.Fd())
	for ctx.Err() == nil {
		n, ok, err := receiveCall(listener, supervisorInterval)
		if err != nil {
			return // the command has ended, and whatever it started
		}
		if !ok {
			continue
		}
		l.keeper.tell(keepNotification, n.id)
		// It may have been killed meanwhile.
		if value, answered := l.held(&n); answered {
			_ = answerCall(listener, n.id, value)
		} else {
			_ = continueCall(listener, n.id)
		}
	}
}

// held deals with the socket of a thread that is held. If it has done the call in
// the thread's place, it returns what the call is to return.
func (l *Live) held(n *notification) (value int64, answered bool) {
	pid, err := threadGroup(int(n.tid))
	if err != nil {
		return 0, false // killed
	}
	l.scans.Lock()
	known := l.child(pid)
	l.scans.Unlock()
	if known == nil {
		return 0, false
	}
	if n.nr == unix.SYS_SOCKET {
		value, err = l.makeSocket(known, n)
		if value < 0 {
			return 0, false
		}
	} else {
		err = l.glance(hint{pid, int(n.arguments[0])})
	}
	if err != nil {
		l.refuse(err.Error())
	}
	if n.nr == unix.SYS_LISTEN {
		l.aboutToListen(known, int(n.arguments[0]))
	}
	return value, n.nr == unix.SYS_SOCKET
}

// aboutToListen gives a socket its place as a listener before it is one.
func (l *Live) aboutToListen(p *watched, fd int) {
	l.scans.Lock()
	defer l.scans.Unlock()
	m := l.inodes[p.seen[fd]]
	if m == nil || m.listening {
		return
	}
	info := m.foreign
	info.listening = true
	l.settle(m, info)
}

// Signal sends a signal to the command.
func (l *Live) Signal(s os.Signal) { _ = l.command.cmd.Process.Signal(s) }

// Status is how the command ended, after Run: nil if it is not known, because
// the capture ended first.
func (l *Live) Status() *os.ProcessState {
	if l.command == nil || !l.root.exited() {
		return nil
	}
	<-l.command.ended
	return l.command.cmd.ProcessState
}

// begin lets the command begin.
func (l *Live) begin() error {
	if l.command == nil {
		return nil
	}
	err := l.command.release()
	if err != nil {
		<-l.command.ended
	}
	return err
}

// part parts from a command that has not ended: it goes on by itself.
func (l *Live) part() {
	if l.command != nil && !l.root.exited() {
		l.config.Notice(fmt.Sprintf("%s goes on, and is not captured any more", l.root))
	}
}
