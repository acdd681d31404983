package bpf

import (
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// attachClassic asks the kernel itself about a filter.
func attachClassic(socket int, program []classic) error {
	fprog := unix.SockFprog{Len: uint16(len(program))}
	if len(program) > 0 {
		fprog.Filter = &program[0]
	}
	return unix.SetsockoptSockFprog(socket, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &fprog)
}

func datagramSocket(tb testing.TB) int {
	tb.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { unix.Close(fd) })
	return fd
}

// agrees compares the checker with the kernel, and returns whether both take the program.
func agrees(t *testing.T, socket int, program []classic) (taken bool) {
	t.Helper()
	kernel, ours := attachClassic(socket, program), checkClassic(program)
	switch {
	case errors.Is(kernel, unix.ENOMEM):
		return ours == nil // it is asked for room only when it is in order
	case kernel != nil && !errors.Is(kernel, unix.EINVAL):
		t.Fatalf("%v: the kernel says %v", program, kernel)
	case (kernel == nil) != (ours == nil):
		t.Fatalf("%v: the kernel says %v, the checker %v", program, kernel, ours)
	}
	return kernel == nil
}

// The checker takes what SO_ATTACH_FILTER takes, and nothing else.
func TestCheckerAgainstKernel(t *testing.T) {
	t.Parallel()
	random := testutil.Random(t)
	socket := datagramSocket(t)
	programs := 100_000
	if os.Getenv("EBPFDUMP_OBJECTS") != "" {
		programs = 20_000 // on a machine that is emulated, each takes two milliseconds
	}
	taken, reasons := 0, make(map[string]int)
	for range programs {
		program := mutatedClassic(random)
		if agrees(t, socket, program) {
			taken++
		} else {
			_, reason, _ := strings.Cut(checkClassic(program).Error(), "): ")
			reasons[strings.SplitN(reason, " ", 2)[0]]++
		}
	}
	t.Logf("%d of %d taken; refused: %v", taken, programs, reasons)
	if taken < programs/5 || taken > programs*4/5 {
		t.Errorf("%d of %d are taken: the test shows little", taken, programs)
	}
	for _, word := range []string{"there", "divides", "shifts", "uses", "loads", "jumps", "it", "reads"} { // as the reasons begin
		if reasons[word] < programs/1000 {
			t.Errorf("%d programs are refused because one %q: the test shows little", reasons[word], word)
		}
	}
}

// Lengths that are at the limit.
func TestCheckerLengths(t *testing.T) {
	t.Parallel()
	socket := datagramSocket(t)
	for _, n := range []int{0, 1, 2, 300, unix.BPF_MAXINSNS - 1, unix.BPF_MAXINSNS, unix.BPF_MAXINSNS + 1, 65535} {
		program := make([]classic, n)
		for i := range program {
			program[i].Code = unix.BPF_RET
		}
		if got, want := agrees(t, socket, program), n > 0 && n <= unix.BPF_MAXINSNS; got != want {
			t.Errorf("%d instructions: taken %t", n, got)
		}
	}
}

// Every code there is, alone and with the parameters that make it good.
func TestCheckerCodes(t *testing.T) {
	t.Parallel()
	socket := datagramSocket(t)
	known := 0
	for code := range 1 << 16 {
		if agrees(t, socket, []classic{{Code: unix.BPF_ST, K: 1}, {Code: uint16(code), K: 1}, {Code: unix.BPF_RET}, {Code: unix.BPF_RET}}) {
			known++
		}
	}
	if known != len(classicCodes) {
		t.Errorf("%d codes are known, and the table has %d", known, len(classicCodes))
	}
	for number := range uint32(128) {
		for _, code := range []uint16{0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0xb1} {
			agrees(t, socket, []classic{{Code: code, K: extensions + number}, {Code: unix.BPF_RET}})
		}
	}
}

// mutatedClassic makes a filter that is in order, and then often changes a little of it.
func mutatedClassic(random *rand.Rand) []classic {
	codes := []uint16{
		0x00, 0x01, 0x80, 0x81, 0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0xb1,
		0x04, 0x0c, 0x14, 0x1c, 0x24, 0x2c, 0x34, 0x3c, 0x94, 0x9c, 0x44, 0x4c, 0x54, 0x5c, 0xa4, 0xac, 0x64, 0x6c, 0x74, 0x7c, 0x84,
		0x05, 0x15, 0x1d, 0x25, 0x2d, 0x35, 0x3d, 0x45, 0x4d, 0x07, 0x87, 0x06, 0x16,
		0x02, 0x03, 0x60, 0x61, 0x02, 0x03, 0x60, 0x61,
	}
	count := 2 + random.IntN(14)
	var program []classic
	for i := range random.UintN(4) {
		program = append(program, classic{Code: 0x02, K: uint32(i)}) // M[] that is written on every way
	}
	for len(program) < count-1 {
		ins := classic{Code: codes[random.IntN(len(codes))], K: 1 + random.Uint32N(15)}
		room := count - len(program) - 1
		switch ins.Code {
		case 0x05:
			ins.K = random.Uint32N(uint32(room))
		case 0x60, 0x61, 0x02, 0x03:
			ins.K = random.Uint32N(4)
		}
		if ins.Code&7 == unix.BPF_JMP && ins.Code != 0x05 {
			ins.Jt, ins.Jf = uint8(random.IntN(room)), uint8(random.IntN(room))
		}
		program = append(program, ins)
	}
	program = append(program, classic{Code: 0x06 | 0x10*uint16(random.IntN(2))})
	for range random.IntN(3) {
		mutate(random, program)
	}
	return program
}

// mutate changes one instruction of a filter.
func mutate(random *rand.Rand, program []classic) {
	n := uint32(len(program))
	edges := []uint32{
		0, 1, 14, 15, 16, 31, 32, 33, n - 2, n - 1, n, n + 1, 255, 256, 1 << 16, 1<<31 - 1, 1 << 31,
		^uint32(0), -n, extensions - 1, extensions, extensions + 12, extensions + 13, extensions + 52, extensions + 64, ^uint32(0x1fffff),
	}
	ins := &program[random.IntN(len(program))]
	switch random.IntN(10) {
	case 0:
		ins.Code ^= 1 << random.UintN(16)
	case 1, 2:
		ins.Jt, ins.Jf = uint8(edges[random.IntN(12)]), uint8(edges[random.IntN(12)])
	case 3, 4, 5: // another one, of which little is good
		ins.Code = []uint16{0x05, 0x34, 0x94, 0x64, 0x74, 0x60, 0x61, 0x02, 0x03, 0x20, 0x28, 0x30}[random.IntN(12)]
		ins.K = edges[random.IntN(len(edges))]
	default:
		ins.K = edges[random.IntN(len(edges))]
	}
}
