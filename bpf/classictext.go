package bpf

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ReadClassic reads a classic filter from a file, in one of the forms that
// parseClassic knows.
func ReadClassic(path string) (*Verdict, error) {
	content, err := readFilter(path)
	if err != nil {
		return nil, err
	}
	program, err := parseClassic(string(content))
	if err != nil {
		return nil, fmt.Errorf("reading the filter: %s: %w", path, err)
	}
	instructions, err := translate(program)
	if err != nil {
		return nil, fmt.Errorf("reading the filter: %s: %w", path, err)
	}
	return newVerdict(path, instructions), nil
}

// parseClassic reads the instructions of a classic filter as text, which is one of
//
//   - the output of tcpdump -ddd: the number of instructions, then each with its
//     code, the two jumps and k, all in decimal;
//   - the same without the number, or with commas instead of line breaks;
//   - the output of tcpdump -dd: instructions as in C, { 0x28, 0, 0, 0x0000000c },
func parseClassic(text string) ([]unix.SockFilter, error) {
	if strings.Contains(text, "{") {
		return parseInitializers(text)
	}
	lines := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == ',' })
	var program []classic
	count := -1
	for i, line := range lines {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0:
			continue
		case len(fields) == 1 && count < 0 && len(program) == 0:
			n, err := strconv.ParseUint(fields[0], 10, 16)
			if err != nil {
				return nil, fmt.Errorf("line %d: %q is not a number of instructions", i+1, fields[0])
			}
			count = int(n)
			continue
		}
		ins, err := parseInstruction(fields)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		program = append(program, ins)
	}
	if len(program) == 0 {
		return nil, errNoClassic
	}
	if count >= 0 && count != len(program) {
		return nil, fmt.Errorf("it has %d instructions and says %d", len(program), count)
	}
	return program, nil
}

// ClassicText is a classic filter as tcpdump -ddd prints it, without the number of instructions in
// the first line: a line for each, with its code, the two jumps and k in decimal. ReadClassic
// takes it.
func ClassicText(program []unix.SockFilter) []string {
	lines := make([]string, len(program))
	for i, ins := range program {
		lines[i] = fmt.Sprintf("%d %d %d %d", ins.Code, ins.Jt, ins.Jf, ins.K)
	}
	return lines
}

// errNoClassic is the error for a text without instructions.
var errNoClassic = errors.New("it has no instructions: write them with tcpdump -ddd")

// initializer is an instruction as tcpdump -dd prints it.
var initializer = regexp.MustCompile(`^\s*\{([^{}]*)\}\s*,?`)

func parseInitializers(text string) ([]unix.SockFilter, error) {
	var program []classic
	for rest := strings.TrimSpace(text); rest != ""; {
		m := initializer.FindStringSubmatch(rest)
		if m == nil {
			return nil, fmt.Errorf("instruction %d: %.40q is not like { 0x28, 0, 0, 0x0000000c },", len(program), rest)
		}
		ins, err := parseInstruction(strings.FieldsFunc(m[1], func(r rune) bool { return r == ',' }))
		if err != nil {
			return nil, fmt.Errorf("instruction %d: %w", len(program), err)
		}
		program = append(program, ins)
		rest = strings.TrimSpace(rest[len(m[0]):])
	}
	return program, nil
}

// parseInstruction reads code, jt, jf and k.
func parseInstruction(fields []string) (ins classic, err error) {
	if len(fields) != 4 {
		return ins, fmt.Errorf("%q is not an instruction, such as 40 0 0 12: write them with tcpdump -ddd", strings.Join(fields, " "))
	}
	var numbers [4]uint64
	for i, size := range []int{16, 8, 8, 32} {
		field := strings.TrimSpace(fields[i])
		if numbers[i], err = strconv.ParseUint(field, 0, size); err != nil {
			return ins, fmt.Errorf("%q is not a number of %d bits", field, size)
		}
	}
	return classic{Code: uint16(numbers[0]), Jt: uint8(numbers[1]), Jf: uint8(numbers[2]), K: uint32(numbers[3])}, nil
}
