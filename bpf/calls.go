//go:build amd64 || arm64 || riscv64

package bpf

import (
	"maps"

	"golang.org/x/sys/unix"
)

// registers says where the system calls' numbers and arguments are, and which
// number is which call.
func registers() (number, size uint32, arguments [6]uint32, calls map[string]int32, ok bool) {
	calls = map[string]int32{
		readsVarNrRead:         unix.SYS_READ,
		readsVarNrReadv:        unix.SYS_READV,
		readsVarNrRecvfrom:     unix.SYS_RECVFROM,
		readsVarNrRecvmsg:      unix.SYS_RECVMSG,
		readsVarNrRecvmmsg:     unix.SYS_RECVMMSG,
		readsVarNrSplice:       unix.SYS_SPLICE,
		readsVarNrAccept:       unix.SYS_ACCEPT,
		readsVarNrAccept4:      unix.SYS_ACCEPT4,
		readsVarNrClose:        unix.SYS_CLOSE,
		readsVarNrSocket:       unix.SYS_SOCKET,
		readsVarNrBind:         unix.SYS_BIND,
		readsVarNrListen:       unix.SYS_LISTEN,
		readsVarNrConnect:      unix.SYS_CONNECT,
		readsVarNrClone:        unix.SYS_CLONE,
		readsVarNrClone3:       unix.SYS_CLONE3,
		readsVarNrExecve:       unix.SYS_EXECVE,
		readsVarNrExecveat:     unix.SYS_EXECVEAT,
		readsVarNrIoUringSetup: unix.SYS_IO_URING_SETUP,
	}
	calls[readsVarNrDup], calls[readsVarNrDup3], calls[readsVarNrFcntl] = unix.SYS_DUP, unix.SYS_DUP3, unix.SYS_FCNTL
	calls[readsVarNrOpenat] = unix.SYS_OPENAT
	maps.Copy(calls, oldCalls)
	return registerNumber, registersSize, registerArguments, calls, true
}
