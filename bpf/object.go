package bpf

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
)

// ChoiceError says that a file is readable, but the program asked for is not in it, or is no
// socket filter.
type ChoiceError struct{ reason string }

func (e *ChoiceError) Error() string { return e.reason }

// maxObject is the most bytes of a file with a filter. A BPF object has some kilobytes, and a
// few megabytes with the debugging information of a whole kernel.
const maxObject = 64 << 20

// ReadVerdict reads a socket filter from a BPF object, as compiled by clang. program is the
// filter's name; it may be empty if the object has only one. One that is named may be in any section
// that stands for no other type of program.
//
// The error is a *ChoiceError if another program would do. Whether the kernel accepts the
// filter is only known when it is loaded.
func ReadVerdict(path, program string) (*Verdict, error) {
	return readProgram(path, program, filterPrograms)
}

// purpose is what a program is read for.
type purpose struct {
	types   []ebpf.ProgramType
	name    string // of a program of these types
	several string // of more than one
	// takes says who takes only these, section how to make one.
	takes, section string
	// untyped says that a program of no known type is one of these if it is named: its section is a
	// name that its own loader looks for, such as "filter".
	untyped bool
}

var (
	filterPrograms = purpose{
		[]ebpf.ProgramType{ebpf.SocketFilter}, "socket filter", "socket filters",
		"a socket takes only a socket filter", `put SEC("socket") before the filter's function`, true,
	}
	selectionPrograms = purpose{
		[]ebpf.ProgramType{ebpf.SkReuseport, ebpf.SocketFilter}, "program that chooses a socket", "programs that choose a socket",
		"a reuseport group takes only programs of type SkReuseport and socket filters", `put SEC("sk_reuseport") before the program's function`, false,
	}
)

func (p *purpose) fits(program *ebpf.ProgramSpec) bool { return slices.Contains(p.types, program.Type) }

func readProgram(path, program string, wanted purpose) (*Verdict, error) {
	content, err := readFilter(path)
	if err != nil {
		return nil, err
	}
	if err := checkObject(path, content); err != nil {
		return nil, err
	}
	weak := strengthen(content)
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(content))
	if err != nil && strings.Contains(err.Error(), "missing BTF") {
		return nil, fmt.Errorf("reading the filter: %s has maps without their types: %s", path, howToCompile)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the filter: %s: %w", path, err)
	}
	if program == "" {
		if program, err = onlyProgram(path, spec, wanted); err != nil {
			return nil, err
		}
	}
	if err := checkProgram(path, program, spec, wanted); err != nil {
		return nil, err
	}
	if err := leaveWeakOut(spec, weak); err != nil {
		return nil, fmt.Errorf("reading the filter: %s: %w", path, err)
	}
	for name, p := range needed(spec, program).Programs { // with what it calls
		if p.Type == ebpf.UnspecifiedProgram {
			spec.Programs[name].Type = spec.Programs[program].Type
		}
	}
	return &Verdict{name: path + ":" + program, program: program, object: spec, spec: needed(spec, program)}, nil
}

// readFilter reads a file with a filter, up to maxObject bytes.
func readFilter(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the filter: %w", err)
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxObject+1))
	if err != nil {
		return nil, fmt.Errorf("reading the filter: %w", err)
	}
	if len(content) > maxObject {
		return nil, fmt.Errorf("reading the filter: %s has more than %d bytes", path, maxObject)
	}
	return content, nil
}

// howToCompile is the next step for a file that is no BPF object.
const howToCompile = "compile its source with clang -O2 -g -target bpf -idirafter /usr/include/$(uname -m)-linux-gnu -c"

// checkObject refuses files that are no BPF objects of this machine's byte order.
func checkObject(path string, content []byte) error {
	if !bytes.HasPrefix(content, []byte(elf.ELFMAG)) {
		return fmt.Errorf("reading the filter: %s is no ELF object: %s", path, howToCompile)
	}
	file, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return fmt.Errorf("reading the filter: %s is a damaged ELF object: %w", path, err)
	}
	if file.Machine != elf.EM_BPF && file.Machine != elf.EM_NONE {
		return fmt.Errorf("reading the filter: %s is made for %v and not for BPF: %s", path, file.Machine, howToCompile)
	}
	if file.ByteOrder.Uint16([]byte{1, 0}) != binary.NativeEndian.Uint16([]byte{1, 0}) {
		return fmt.Errorf("reading the filter: %s has the byte order of other machines: %s", path, howToCompile)
	}
	return nil
}

// onlyProgram is the name of the object's program for a purpose, if there is just one.
func onlyProgram(path string, spec *ebpf.CollectionSpec, wanted purpose) (string, error) {
	var fitting []string
	for name, p := range spec.Programs {
		if wanted.fits(p) {
			fitting = append(fitting, name)
		}
	}
	slices.Sort(fitting)
	switch {
	case len(fitting) == 1:
		return fitting[0], nil
	case len(fitting) > 1:
		return "", &ChoiceError{fmt.Sprintf("%s has several %s, %s: say which one, such as %s:%s",
			path, wanted.several, strings.Join(fitting, ", "), path, fitting[0])}
	}
	section := wanted.section
	for _, name := range slices.Sorted(maps.Keys(spec.Programs)) {
		if wanted.untyped && spec.Programs[name].Type == ebpf.UnspecifiedProgram {
			section = fmt.Sprintf("name the one that is meant, such as %s:%s, or %s", path, name, section)
			break
		}
		if spec.Programs[name].Type == ebpf.SkReuseport {
			section = "a program of this type chooses a socket of a reuseport group, and is no filter"
		}
	}
	return "", &ChoiceError{fmt.Sprintf("%s has no %s, but %s: %s", path, wanted.name, programs(spec), section)}
}

func checkProgram(path, program string, spec *ebpf.CollectionSpec, wanted purpose) error {
	p := spec.Programs[program]
	if p == nil {
		return &ChoiceError{fmt.Sprintf("%s has no program %s, but %s", path, program, programs(spec))}
	}
	if p.Type == ebpf.UnspecifiedProgram && wanted.untyped {
		p.Type = wanted.types[0]
	}
	if !wanted.fits(p) {
		return &ChoiceError{fmt.Sprintf("%s:%s is %s, and %s: %s", path, program, typeName(p), wanted.takes, wanted.section)}
	}
	return nil
}

// programs lists the programs of an object.
func programs(spec *ebpf.CollectionSpec) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(spec.Programs)) {
		all = append(all, fmt.Sprintf("%s (%s)", name, typeName(spec.Programs[name])))
	}
	if len(all) == 0 {
		return "no program at all"
	}
	return strings.Join(all, ", ")
}

// typeName is a program's type, or its section if that is of no known type.
func typeName(p *ebpf.ProgramSpec) string {
	switch p.Type {
	case ebpf.SocketFilter:
		return "a socket filter"
	case ebpf.UnspecifiedProgram:
		return fmt.Sprintf("of no known type, section %q", p.SectionName)
	}
	return "of type " + p.Type.String()
}
