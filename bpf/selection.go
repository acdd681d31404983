package bpf

import (
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// Selection is a program of the user's that chooses which socket of a reuseport group gets a packet.
// It is of one of two types: one that chooses by itself (BPF_PROG_TYPE_SK_REUSEPORT), or a socket
// filter, also a classic one, that returns the number of the socket.
//
// It is not loaded yet, and can be used for any number of groups, each of which gets maps of its
// own.
type Selection struct {
	verdict *Verdict
	// size is how many sockets the group has for which the maps were sized; 0 before.
	size int
}

// ReadSelection reads such a program from a BPF object, as compiled by clang. program is its name; it
// may be empty if the object has only one.
//
// The error is a *ChoiceError if another program would do. Whether the kernel accepts the
// program is only known when it is loaded.
func ReadSelection(path, program string) (*Selection, error) {
	verdict, err := readProgram(path, program, selectionPrograms)
	if err != nil {
		return nil, err
	}
	return &Selection{verdict: verdict}, nil
}

// ReadClassicSelection reads a classic filter that returns the number of a socket, as ReadClassic
// reads one.
func ReadClassicSelection(path string) (*Selection, error) {
	verdict, err := ReadClassic(path)
	if err != nil {
		return nil, err
	}
	return &Selection{verdict: verdict}, nil
}

// Name says where the program comes from: FILE or FILE:PROGRAM.
func (s *Selection) Name() string { return s.verdict.Name() }

// Filters tells whether the program is a socket filter, which sees packets from their payload on.
func (s *Selection) Filters() bool { return s.program().Type == ebpf.SocketFilter }

func (s *Selection) program() *ebpf.ProgramSpec { return s.verdict.spec.Programs[s.verdict.program] }

// arrays are the names of the maps that the program can choose sockets from by their index.
func (s *Selection) arrays() (names []string) {
	for name, m := range s.verdict.spec.Maps {
		if m.Type == ebpf.ReusePortSockArray {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// sized is the selection with room for so many sockets in those of its maps whose size the program that
// it was made for sets at run time. A map that is too small is an error.
func (s *Selection) sized(sockets int) (*Selection, error) {
	v := *s.verdict
	v.spec = v.spec.Copy()
	for _, name := range s.arrays() {
		m := v.spec.Maps[name]
		if m.MaxEntries == 0 {
			m.MaxEntries = uint32(sockets)
		}
		if m.MaxEntries < uint32(sockets) {
			return nil, &RefusedError{
				What:   "loading " + v.name,
				Reason: fmt.Sprintf("its map %s has room for %d sockets, and the group has %d", name, m.MaxEntries, sockets),
				Hint:   "give it more room in the source, as in __uint(max_entries, 1024), or open fewer sockets",
			}
		}
	}
	return &Selection{&v, sockets}, nil
}

// Tells tells whether the records of a Selector tell all that the program asks for: not if it can
// choose from a map without indexes, or leave the choice to another program by a tail call.
func (s *Selection) Tells() bool {
	for _, m := range s.verdict.spec.Maps {
		if m.Type == ebpf.ProgramArray {
			return false
		}
	}
	return s.keyed()
}

// keyed tells whether the sockets in all maps that the program can choose from have indexes.
func (s *Selection) keyed() bool {
	for _, m := range s.verdict.spec.Maps {
		if m.Type == ebpf.SockHash {
			return false
		}
	}
	return true
}

// follow has a program call a function of the wrapper in place of the helper that chooses a socket,
// and tells whether it calls that at all.
func follow(program asm.Instructions) (calls bool) {
	for i := range program {
		ins := &program[i]
		if !ins.IsBuiltinCall() || asm.BuiltinFunc(ins.Constant) != asm.FnSkSelectReuseport {
			continue
		}
		call := asm.Call.Label(chooseSymbol).WithMetadata(ins.Metadata)
		*ins = call.WithReference(chooseSymbol)
		calls = true
	}
	return calls
}

// chooseSymbol is the function in select.c that stands for the helper.
const chooseSymbol = "choose"
