package bpf

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// SetupError says that a map or a variable of a filter cannot be set up as it was asked for.
type SetupError struct{ reason string }

func (e *SetupError) Error() string { return e.reason }

func setupErrorf(format string, args ...any) error {
	return &SetupError{fmt.Sprintf(format, args...)}
}

// SetMapSize sets how many entries a map has room for.
func (v *Verdict) SetMapSize(name string, entries uint32) error {
	m, err := v.setUpMap(name)
	if err != nil {
		return err
	}
	if entries == 0 {
		return setupErrorf("a map has room for at least one entry")
	}
	m.MaxEntries = entries
	v.spec = needed(v.object, v.program)
	return nil
}

// SetVariable gives a global variable its value before the filter is loaded: a number, the name of an
// enumerator, text for an array of char, an address, hex= and bytes, or JSON. Numbers are in native
// byte order, addresses in that of the network.
func (v *Verdict) SetVariable(name, value string) error {
	variable := v.object.Variables[name]
	if variable == nil {
		return setupErrorf("%s has no global variable %s, but %s", v.name, name, listed(slices.Sorted(maps.Keys(v.object.Variables))))
	}
	var t btf.Type
	if variable.Type != nil {
		t = variable.Type.Type
	}
	encoded, err := encodeValue(t, int(variable.Size()), parseValue(value))
	if err != nil {
		return err
	}
	variable.Value = encoded
	v.spec = needed(v.object, v.program)
	return nil
}

// PutEntry puts an entry into a map before the filter is loaded. Key and value are as those of
// SetVariable; the key of a prefix map may be an address with its length (10.0.0.0/8), and the value
// of a tail-call table is the name of a program of the same object.
func (v *Verdict) PutEntry(name, key, value string) error {
	return v.put(name, []entry{{parseValue(key), parseValue(value)}})
}

// maxMapFile is the most bytes of a file with the entries of a map.
const maxMapFile = 64 << 20

// PutEntries puts the entries of a JSON file into a map: an object of keys and values, a list of
// objects with key and value, as bpftool map dump -j prints it, or for an array the list of its
// values.
func (v *Verdict) PutEntries(name string, file io.Reader) error {
	m, err := v.setUpMap(name)
	if err != nil {
		return err
	}
	content, err := io.ReadAll(io.LimitReader(file, maxMapFile+1))
	if err != nil {
		return err
	}
	if len(content) > maxMapFile {
		return setupErrorf("it has more than %d bytes", maxMapFile)
	}
	entries, err := entriesOf(content, isArray(m.Type))
	if err != nil {
		return err
	}
	return v.put(name, entries)
}

// EmptyTables lists the tables for tail calls in which there is nothing: the filter goes on behind
// such a call, as if it had failed.
func (v *Verdict) EmptyTables() (names []string) {
	for name, m := range v.spec.Maps {
		if m.Type == ebpf.ProgramArray && len(m.Contents) == 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (v *Verdict) setUpMap(name string) (*ebpf.MapSpec, error) {
	if m := v.object.Maps[name]; m != nil && !strings.HasPrefix(name, ".") {
		return m, nil
	}
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(v.object.Maps)), func(n string) bool { return strings.HasPrefix(n, ".") })
	return nil, setupErrorf("%s has no map %s, but %s", v.name, name, listed(names))
}

func listed(names []string) string {
	if len(names) == 0 {
		return "none at all"
	}
	return strings.Join(names, ", ")
}

// entry is an entry of a map, as JSON has it.
type entry struct{ key, value any }

func (v *Verdict) put(name string, entries []entry) error {
	m, err := v.setUpMap(name)
	if err != nil {
		return err
	}
	var contents []ebpf.MapKV
	for _, e := range entries {
		kv, err := v.encodeEntry(m, e)
		if err != nil {
			return err
		}
		contents = append(contents, kv)
	}
	contents = slices.Concat(m.Contents, contents)
	if !isArray(m.Type) && m.Type != ebpf.LRUHash && m.Type != ebpf.LRUCPUHash && len(contents) > int(m.MaxEntries) {
		return setupErrorf("the map %s has room for %d entries, and %d are to be in it", name, m.MaxEntries, len(contents))
	}
	m.Contents = contents
	v.spec = needed(v.object, v.program)
	return nil
}

func isArray(t ebpf.MapType) bool {
	return t == ebpf.Array || t == ebpf.PerCPUArray || t == ebpf.ProgramArray
}

func (v *Verdict) encodeEntry(m *ebpf.MapSpec, e entry) (kv ebpf.MapKV, err error) {
	switch m.Type {
	case ebpf.Hash, ebpf.LRUHash, ebpf.PerCPUHash, ebpf.LRUCPUHash, ebpf.LPMTrie, ebpf.Array, ebpf.PerCPUArray, ebpf.ProgramArray:
	default:
		return kv, setupErrorf("a map of type %v takes no entries beforehand", m.Type)
	}
	keyType := m.Key
	if isArray(m.Type) {
		keyType = nil
	}
	key, err := encodeValue(keyType, int(m.KeySize), e.key)
	if err != nil {
		return kv, fmt.Errorf("the key: %w", err)
	}
	kv.Key = key
	if isArray(m.Type) {
		index := hostOrder(key)
		given := fmt.Sprint(e.key)
		if !strings.HasPrefix(given, "-") { // which is another number in its bytes
			given = strconv.FormatUint(index, 10)
		}
		switch {
		case index < uint64(m.MaxEntries):
		case m.MaxEntries == 0:
			return kv, setupErrorf("the index %s: the map %s has room for 0 entries", given, m.Name)
		default:
			return kv, setupErrorf("the index %s: the map %s ends at %d: give a whole number from 0 to %[3]d, of %s", given, m.Name, m.MaxEntries-1, bytesWord(len(key)))
		}
	}
	if m.Type == ebpf.ProgramArray {
		kv.Value, err = v.tailCalled(e.value)
		return kv, err
	}
	value, err := encodeValue(m.Value, int(m.ValueSize), e.value)
	if err != nil {
		return kv, fmt.Errorf("the value: %w", err)
	}
	kv.Value = value
	if m.Type == ebpf.PerCPUHash || m.Type == ebpf.LRUCPUHash || m.Type == ebpf.PerCPUArray {
		cpus, err := ebpf.PossibleCPU()
		if err != nil {
			return kv, err
		}
		kv.Value = slices.Repeat([][]byte{value}, cpus)
	}
	return kv, nil
}

// tailCalled is the program that a tail call is to go to.
func (v *Verdict) tailCalled(value any) (name string, err error) {
	name, _ = value.(string)
	p := v.object.Programs[name]
	switch {
	case p == nil:
		return "", setupErrorf("a tail call goes to a program of the same object, and %v is none of %s", value, programs(v.object))
	case name == v.program:
		return "", setupErrorf("a tail call cannot go to %s, the filter itself", name)
	case p.Type == ebpf.UnspecifiedProgram:
		p.Type = v.object.Programs[v.program].Type
	}
	return name, nil
}

// entriesOf reads the entries of a map from JSON.
func entriesOf(content []byte, array bool) (entries []entry, err error) {
	decoded, err := decodeJSON(string(content))
	if err != nil {
		return nil, setupErrorf("%v", err)
	}
	switch all := decoded.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(all)) {
			entries = append(entries, entry{parseValue(key), all[key]})
		}
		return entries, nil
	case []any:
		for i, element := range all {
			object, ok := element.(map[string]any)
			_, hasKey := object["key"]
			value, hasValue := object["value"]
			switch {
			case ok && hasKey && hasValue:
				entries = append(entries, entry{object["key"], value})
			case array:
				entries = append(entries, entry{json.Number(strconv.Itoa(i)), element})
			default:
				return nil, setupErrorf("element %d is no object with key and value", i)
			}
		}
		return entries, nil
	}
	return nil, setupErrorf("it is neither an object of keys and values nor a list of entries")
}

func decodeJSON(text string) (decoded any, err error) {
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&decoded); err != nil {
		return nil, fmt.Errorf("it is no JSON: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more behind the JSON")
	}
	return decoded, nil
}
