package convert

import (
	"bytes"
	"encoding/binary"
)

// ProcessInfo describes a process that packets name by its number.
type ProcessInfo struct {
	PID uint32
	// Name is what the kernel calls it, Path its program; empty if they are not known.
	Name, Path string
	// Arguments are those of its command line, each ended by a zero; empty if they are not known.
	Arguments []byte
	// Parent is its parent's number, and User who it runs as, if Known says that both are known.
	Parent, User uint32
	Known        bool
	// Start is when it began, in nanoseconds since the Unix epoch; 0 if that is not known.
	Start int64
}

// A process is described in a block that Wireshark defines until pcapng has one (Process
// Information Block): a custom block of its enterprise number, with the type and the length of the
// entry, the number of the process, and options. All but the enterprise number is little endian in
// any section. Wireshark up to 4.6 shows such a block as a row.
const (
	enterpriseWireshark = 32622
	entryProcess        = 3

	processName      = 2
	processPath      = 3
	processArguments = 4
	processParent    = 5
	processUser      = 6
	processStart     = 9
)

// maxArguments limits the command line in a file, in bytes.
const maxArguments = 4096

// appendProcess appends the block.
func appendProcess(b []byte, p *ProcessInfo) []byte {
	start := len(b)
	b = order.AppendUint32(beginBlock(b, blockCustom), enterpriseWireshark)
	le := binary.LittleEndian
	b = le.AppendUint32(b, entryProcess)
	length := len(b)
	b = le.AppendUint32(le.AppendUint32(b, 0), p.PID)
	options := len(b)
	for _, text := range []struct {
		code  uint16
		value string
	}{{processName, p.Name}, {processPath, p.Path}, {processArguments, string(p.Arguments[:min(len(p.Arguments), maxArguments)])}} {
		if text.value != "" {
			b = appendOption(b, text.code, text.value)
		}
	}
	if p.Known {
		b = appendOptionUint32(appendOptionUint32(b, processParent, p.Parent), processUser, p.User)
	}
	if p.Start > 0 {
		b = appendOptionUint64(b, processStart, uint64(p.Start))
	}
	if len(b) > options {
		b = appendEndOfOptions(b)
	}
	le.PutUint32(b[length:], uint32(len(b)-length-4))
	return endBlock(b, start)
}

// WriteProcess describes a process, of packets that follow or went before.
func (w *Writer) WriteProcess(p *ProcessInfo) error { return w.out.block(appendProcess(nil, p)) }

// WriteProcess describes a process, in a form that has room for it: in others nothing is.
func (f *File) WriteProcess(p *ProcessInfo) error {
	w, ok := f.copier.PacketWriter.(interface{ WriteProcess(*ProcessInfo) error })
	if !ok {
		return nil
	}
	return w.WriteProcess(p)
}

// processesMost is how many processes each file of a series describes: the newest ones.
const processesMost = 4096

// WriteProcess describes a process. Later files begin with all of those that are remembered.
func (s *Series) WriteProcess(p *ProcessInfo) error {
	copied := *p
	copied.Arguments = bytes.Clone(p.Arguments)
	if len(s.processes) >= processesMost {
		s.processes = append(s.processes[:0], s.processes[processesMost/2:]...)
	}
	s.processes = append(s.processes, copied)
	if s.file == nil {
		return nil
	}
	return s.file.WriteProcess(p)
}

// writeProcesses begins a file with those that are known.
func (s *Series) writeProcesses() error {
	for i := range s.processes {
		if err := s.file.WriteProcess(&s.processes[i]); err != nil {
			return err
		}
	}
	return nil
}
