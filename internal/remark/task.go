package remark

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/ebpfdump/ebpfdump/capture"
)

// Task is the task that a cpu was running when a filter printed a packet. A comment
// begins with it.
type Task struct {
	Name     string
	PID, CPU int
}

const (
	taskIs = "task "
	onCPU  = ", cpu "
)

// String returns a text such as "task nc-2834, cpu 1".
func (t Task) String() string {
	return fmt.Sprintf(taskIs+"%s-%d"+onCPU+"%d", strings.ToValidUTF8(t.Name, "\ufffd"), t.PID, t.CPU)
}

// TaskOf parses the Task at the start of a packet's comment. only says that the comment
// contains nothing else.
func TaskOf(p *capture.Packet) (t Task, only, ok bool) {
	first, _, more := strings.Cut(p.Comment, between)
	text, ok := strings.CutPrefix(first, taskIs)
	at := strings.LastIndex(text, onCPU)
	if !ok || at < 0 {
		return Task{}, false, false
	}
	name, number := text[:at], text[at+len(onCPU):]
	dash := strings.LastIndexByte(name, '-')
	if dash < 0 {
		return Task{}, false, false
	}
	t.Name = name[:dash]
	pid, err := strconv.Atoi(name[dash+1:])
	cpu, err2 := strconv.Atoi(number)
	if err != nil || err2 != nil || pid < 0 || cpu < 0 || strings.ContainsAny(name, "\r\n") {
		return Task{}, false, false
	}
	t.PID, t.CPU = pid, cpu
	return t, !more && !HasFacts(p), true
}

// Join joins two comments, either of which may be empty.
func Join(first, second string) string {
	if first == "" || second == "" {
		return first + second
	}
	return first + between + second
}
