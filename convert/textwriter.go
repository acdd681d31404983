package convert

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert/internal/text"
	"github.com/ebpfdump/ebpfdump/internal/remark"
	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

// textWriter writes server text for the user view and trace text for the other views,
// with all bytes of every packet.
type textWriter struct {
	packetForm
	boot   int64 // in nanoseconds since the epoch
	prefix []byte
}

func createText(w io.Writer, o WriteOptions) (PacketWriter, error) {
	t := &textWriter{packetForm: packetForm{output{w: w, buf: make([]byte, 0, bufferSize), whole: wholeTexts}}}
	if !o.BootTime.IsZero() {
		t.boot = o.BootTime.UnixNano()
	}
	return t, nil
}

// fitsText tells why text has no room for a packet: it is what filters and servers print of what
// they get.
func fitsText(p *capture.Packet) Reason {
	if p.Interface.View == capture.ViewSent {
		return ReasonNotReceived
	}
	return 0
}

// wholeTexts returns the size and the number of the packets in b that end within the
// first n bytes. Each ends with an empty line, or one that ends with a space.
func wholeTexts(b []byte, n int) (size, packets int) {
	for end := wholeLines(b, n); end > 0; end = wholeLines(b, end-1) {
		if end > 1 && b[end-2] != '\n' && b[end-2] != ' ' {
			continue
		}
		packets++
		size = max(size, end)
	}
	return size, packets
}

// WritePacket writes the lines of one packet.
func (w *textWriter) WritePacket(p *capture.Packet) error {
	if p.Interface == nil {
		return errors.New("writing packet: no interface")
	}
	head := text.KernelHead
	w.prefix = w.prefix[:0]
	switch p.Interface.View {
	case capture.ViewUser:
		head = text.UserHead
	case capture.ViewSent:
		return fmt.Errorf("writing packet of %s: text is for what was received", p.Interface.Name())
	case 0:
		return fmt.Errorf("writing packet of interface %q: text is for the views of sockets", p.Interface.Name())
	default:
		w.prefix = w.appendPrefix(w.prefix, p)
	}
	data := p.Data[:min(len(p.Data), snaplen)]
	const digits = 20
	line := len(w.prefix) + len(text.ByteHead) + digits + len("]=0xff\n")
	// The text of a large packet does not fit into the buffer, and is written in parts.
	if err := w.out.reserve(line + len(text.HeadEnd) + len(head)); err != nil {
		return err
	}
	b := append(append(w.out.buf, w.prefix...), head...)
	b = strconv.AppendInt(b, int64(originalLength(p)), 10)
	w.out.buf = append(append(b, text.HeadEnd...), '\n')
	for i, c := range data {
		if err := w.out.reserve(line); err != nil {
			return err
		}
		b := append(append(w.out.buf, w.prefix...), text.ByteHead...)
		b = append(strconv.AppendInt(b, int64(i), 10), "]=0x"...)
		w.out.buf = append(strconv.AppendUint(b, uint64(c), 16), '\n')
	}
	if err := w.out.reserve(line); err != nil {
		return err
	}
	w.out.buf = append(append(w.out.buf, w.prefix...), '\n')
	w.out.packets++
	return nil
}

// appendPrefix appends the prefix of a trace line as Linux 5.13 and later print it. Task,
// pid and cpu are taken from the comment if the packet came from trace text.
func (w *textWriter) appendPrefix(b []byte, p *capture.Packet) []byte {
	task, _, ok := remark.TaskOf(p)
	if !ok {
		task = remark.Task{Name: "<...>", PID: int(p.PID)}
	}
	since := time.Duration(max(p.Time-w.boot, 0))
	seconds, micros := since/time.Second, since%time.Second/time.Microsecond
	return fmt.Appendf(b, "%16s-%-7d [%03d] ..... %5d.%06d: bpf_trace_printk: ", terminal.Plain(task.Name), task.PID, task.CPU, seconds, micros)
}

// textKeeps tells whether the text contains everything that a packet's comment says.
func textKeeps(p *capture.Packet) bool {
	_, only, ok := remark.TaskOf(p)
	return ok && only && p.Interface.View != capture.ViewUser
}
