package bpf

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// classicText is a filter that passes datagrams whose payload begins with 0,
// and keeps 100 bytes, in all the forms that tcpdump writes.
var classicText = map[string]string{
	"-ddd":         "4\n48 0 0 8\n21 0 1 48\n6 0 0 100\n6 0 0 0\n",
	"commas":       "4,48 0 0 8,21 0 1 48,6 0 0 100,6 0 0 0,",
	"one a line":   "48 0 0 8\n21 0 1 48\n\n6 0 0 100\n  6 0 0 0",
	"-dd":          "{ 0x30, 0, 0, 0x00000008 },\n{ 0x15, 0, 1, 0x00000030 },\n{ 0x6, 0, 0, 0x00000064 },\n{ 0x6, 0, 0, 0x00000000 },\n",
	"-dd in a row": "{ 0x30, 0, 0, 0x8 },{ 0x15, 0, 1, 0x30 }, { 0x6, 0, 0, 0x64 },{ 0x6, 0, 0, 0 }",
}

func TestClassicForms(t *testing.T) {
	t.Parallel()
	requirePrivilege(t)
	for form, text := range classicText {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "filter.bpf")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			v, err := ReadClassic(path)
			if err != nil {
				t.Fatal(err)
			}
			verdicts, received := decided(t, v, "0123", "1230", "")
			if verdicts[0] != 100 || verdicts[1] != 0 || verdicts[2] != 0 || received[0] != "0123" || received[2] != "(dropped)" {
				t.Errorf("verdicts %v, received %q", verdicts, received)
			}
		})
	}
}

func TestClassicRefuses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ text, want string }{
		"empty":              {"", "it has no instructions: write them with tcpdump -ddd"},
		"only a number":      {"3\n", "it has no instructions"},
		"too few":            {"3\n6 0 0 0\n", "it has 1 instructions and says 3"},
		"tcpdump -d":         {"(000) ldh      [12]\n", `line 1: "(000) ldh [12]" is not an instruction, such as 40 0 0 12: write them with tcpdump -ddd`},
		"a word":             {"6 0 0 x\n", `line 1: "x" is not a number of 32 bits`},
		"too large":          {"6 0 300 0\n", `"300" is not a number of 8 bits`},
		"no number":          {"-1\n6 0 0 0\n", `line 1: "-1" is not a number of instructions`},
		"half an initial":    {"{ 0x6, 0, 0", "instruction 0: "},
		"initial, 3 fields":  {"{ 0x6, 0, 0 },", "instruction 0: "},
		"off the end":        {"0 0 0 1\n", "instruction 0 (0x0 0 0 0x1): it is the last one and does not return (ret)"},
		"jumps too far":      {"5 0 0 7\n6 0 0 0\n", "jumps to instruction 8, and the last one is 1"},
		"branches too far":   {"21 1 9 0\n6 0 0 0\n6 0 0 0\n", "jumps to instruction 10, and the last one is 2"},
		"jumps backwards":    {"0 0 0 7\n5 0 0 4294967294\n6 0 0 0\n", "instruction 1 (0x5 0 0 0xfffffffe): jumps backwards, to instruction 0: classic filters only jump forward"},
		"jumps to itself":    {"5 0 0 -1\n", `"-1" is not a number of 32 bits`},
		"far backwards":      {"5 0 0 4294967200\n6 0 0 0\n", "jumps backwards, to before the first instruction"},
		"unwritten memory":   {"96 0 0 3\n22 0 0 0\n", "instruction 0 (0x60 0 0 0x3): reads M[3], which nothing has written on some way to it"},
		"written on one way": {"21 0 1 0\n2 0 0 3\n96 0 0 3\n22 0 0 0\n", "instruction 2 (0x60 0 0 0x3): reads M[3]"},
		"behind the end":     {"6 0 0 0\n7 0 0 1\n52 0 0 0\n6 0 0 0\n", "instruction 2 (0x34 0 0 0x0): divides by zero"},
		"in order":           {"7 0 0 0\n6 0 0 0", ""},
		"no extension":       {"32 0 0 4294963201\n22 0 0 0", "loads extension 1, and Linux has none of that number"},
		"unknown jump":       {"85 0 0 0\n6 0 0 0", "there is no such instruction"},
		"large code":         {"1030 0 0 0\n", "there is no such instruction"},
		"memory":             {"96 0 0 16\n22 0 0 0", "uses M[16], and the last one is M[15]"},
		"by zero":            {"52 0 0 0\n22 0 0 0", "divides by zero"},
		"shift":              {"100 0 0 32\n22 0 0 0", "shifts by 32 bits"},
		"netlink attribute":  {"32 0 0 4294963212\n22 0 0 0", "loads extension 12 (netlink attribute), which Linux takes on a socket and eBPF has no counterpart for"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			program, err := parseClassic(test.text)
			if err == nil {
				_, err = translate(program)
			}
			if test.want == "" && err == nil {
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
}

// twins are two sockets that get the very same packets from a sender, down to the
// checksums: they are members of a group.
func twins(tb testing.TB) (receivers [2]int, sender int) {
	tb.Helper()
	loopback, group := [4]byte{127, 0, 0, 1}, &unix.SockaddrInet4{Addr: [4]byte{239, 16, 9, 62}}
	open := func() int {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	for i := range receivers {
		fd := open()
		if err := errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
			unix.Bind(fd, group),
			unix.SetsockoptIPMreq(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreq{Multiaddr: group.Addr, Interface: loopback}),
		); err != nil {
			tb.Fatal(err)
		}
		bound, err := unix.Getsockname(fd)
		if err != nil {
			tb.Fatal(err)
		}
		receivers[i], group.Port = fd, bound.(*unix.SockaddrInet4).Port
	}
	sender = open()
	if err := errors.Join(
		unix.SetsockoptInet4Addr(sender, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, loopback),
		unix.Connect(sender, group),
	); err != nil {
		tb.Fatal(err)
	}
	return receivers, sender
}

// The kernel itself is the judge: the same filter on two sockets, once as it is
// and once translated, must do the same with the same packets.
func TestClassicAgainstKernel(t *testing.T) {
	t.Parallel()
	requirePrivilege(t)
	random := testutil.Random(t)
	taken, kept := 0, 0
	for range 150 {
		program := randomClassic(random)
		receivers, sender := twins(t)
		barrier := testutil.NewBarrier(t)
		kernelErr := attachClassic(receivers[0], program)
		instructions, err := translate(program)
		if (kernelErr == nil) != (err == nil) {
			t.Fatalf("%v: the kernel says %v, and we %v", program, kernelErr, err)
		}
		if kernelErr != nil {
			continue
		}
		taken++
		tap, err := open(Options{RingSize: MinRingSize, WakeupBytes: MinRingSize, Verdict: newVerdict("random", instructions)})
		if err != nil {
			t.Fatalf("%v: %v", program, err)
		}
		if err := tap.Attach(receivers[1]); err != nil {
			t.Fatal(err)
		}
		for size := range 12 {
			payload := make([]byte, size*3)
			for i := range payload {
				payload[i] = byte(random.UintN(256)) >> random.UintN(8)
			}
			barrier.Send(t, sender, payload)
			want, got := passed(receivers[0]), passed(receivers[1])
			if want > 0 {
				kept++
			}
			if want != got {
				t.Fatalf("%v keeps %d bytes of %x, and translated %d", program, want, payload, got)
			}
		}
		tap.Close()
	}
	if taken < 20 || kept < 20 {
		t.Errorf("the kernel took only %d of the filters, which kept %d packets: the test shows little", taken, kept)
	}
}

// passed is how many bytes of a datagram came through, -1 if it was dropped.
func passed(receiver int) int {
	n, _, err := unix.Recvfrom(receiver, make([]byte, 64), unix.MSG_DONTWAIT)
	if err != nil {
		return -1
	}
	return n
}

// randomClassic makes a filter of instructions that mostly exist.
func randomClassic(random *rand.Rand) []classic {
	codes := []uint16{
		0x00, 0x01, 0x80, 0x81, 0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0xb1, 0x60, 0x61, 0x02, 0x03,
		0x04, 0x0c, 0x14, 0x1c, 0x24, 0x2c, 0x34, 0x3c, 0x94, 0x9c, 0x44, 0x4c, 0x54, 0x5c, 0xa4, 0xac, 0x64, 0x74, 0x84,
		0x05, 0x15, 0x1d, 0x25, 0x2d, 0x35, 0x3d, 0x45, 0x4d, 0x07, 0x87,
	}
	n := 2 + random.IntN(14)
	program := make([]classic, 0, n+17)
	for i := range uint32(memoryWords) {
		program = append(program, classic{Code: 0x02, K: i})
	}
	for range n {
		ins := classic{Code: codes[random.IntN(len(codes))], K: random.Uint32N(16)}
		switch ins.Code {
		case 0x20, 0x28, 0x30, 0x40, 0x48, 0x50:
			if random.IntN(6) == 0 {
				ins.K = []uint32{extensions, extensions + 4, extensions + 8, extensions + 40, extensions + 48, 0xfff00009, 0xfff0000c}[random.IntN(7)]
			}
		case 0x05:
			ins.K &= 3
		case 0x00, 0x01, 0x15, 0x25, 0x35, 0x45:
			if random.IntN(2) == 0 {
				ins.K = random.Uint32()
			}
		}
		ins.Jt, ins.Jf = uint8(random.UintN(3)), uint8(random.UintN(3))
		if ins.Code&7 != unix.BPF_JMP || ins.Code == 0x05 {
			ins.Jt, ins.Jf = 0, 0
		}
		program = append(program, ins)
	}
	for range 4 {
		program = append(program, classic{Code: 0x16})
	}
	return program
}

// A filter of tcpdump, for packets from the IPv4 header on, on such packets.
func TestClassicOfTcpdump(t *testing.T) {
	t.Parallel()
	requirePrivilege(t)
	text := "8\n48 0 0 9\n21 0 5 17\n40 0 0 6\n69 3 0 8191\n177 0 0 0\n72 0 0 2\n21 1 0 16962\n6 0 0 0\n"
	if path, err := exec.LookPath("tcpdump"); err == nil {
		out, err := exec.Command(path, "-y", "RAW", "-ddd", "ip and udp dst port 16962").Output()
		if err != nil {
			t.Fatal(err)
		}
		text = string(out)
	} else {
		text = strings.Replace(text, "8\n", "9\n", 1) + "6 0 0 262144\n"
	}
	program, err := parseClassic(text)
	if err != nil {
		t.Fatal(err)
	}
	if _, want, _ := strings.Cut(text, "\n"); strings.Join(ClassicText(program), "\n")+"\n" != want {
		t.Errorf("it is printed as\n%q\nwant\n%q", ClassicText(program), want)
	}
	instructions, err := translate(program)
	if err != nil {
		t.Fatal(err)
	}
	runner, err := OpenRunner(newVerdict("tcpdump", instructions))
	if err != nil {
		t.Fatal(err)
	}
	defer runner.Close()
	packet := make([]byte, 40)
	packet[0], packet[9] = 0x45, unix.IPPROTO_UDP
	for port, want := range map[uint16]int32{16962: 262144, 16963: 0} {
		binary.BigEndian.PutUint16(packet[22:], port)
		if got, _, err := runner.Run(packet, Context{Protocol: unix.ETH_P_IP}); err != nil || got != want {
			t.Errorf("port %d: %d, %v, want %d", port, got, err, want)
		}
	}
}

func FuzzParseClassic(f *testing.F) {
	for _, text := range classicText {
		f.Add(text)
	}
	f.Add("2\n132 0 0 0\n6 0 0 1")
	f.Fuzz(func(t *testing.T, text string) {
		program, err := parseClassic(text)
		if err != nil {
			return
		}
		if len(program) == 0 {
			t.Error("no instructions and no error")
		}
		instructions, err := translate(program)
		if err == nil && instructions[len(instructions)-1].OpCode.JumpOp() == asm.InvalidJumpOp {
			t.Errorf("%v does not end: %v", program, instructions)
		}
	})
}
