package bpf

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// kconfigSection has the variables that stand for options of the kernel's configuration
// (__kconfig), in an object's types only.
const kconfigSection = ".kconfig"

// strengthen makes the symbols of weak options ordinary ones, which package ebpf reads, and returns
// their names. They are 0 where the kernel has no such option.
func strengthen(content []byte) (weak map[string]bool) {
	types, err := btf.LoadSpecFromReader(bytes.NewReader(content))
	if err != nil {
		return nil
	}
	var section *btf.Datasec
	if err := types.TypeByName(kconfigSection, &section); err != nil {
		return nil
	}
	options := make(map[string]bool)
	for _, v := range section.Vars {
		options[v.Type.TypeName()] = true
	}
	file, err := elf.NewFile(bytes.NewReader(content))
	if err != nil || file.Class != elf.ELFCLASS64 {
		return nil
	}
	symbols, err := file.Symbols()
	table := file.SectionByType(elf.SHT_SYMTAB)
	if err != nil || table == nil {
		return nil
	}
	weak = make(map[string]bool)
	for i, symbol := range symbols { // the table begins with one that is left out
		info := table.Offset + uint64(i+1)*elf.Sym64Size + 4
		if elf.ST_BIND(symbol.Info) != elf.STB_WEAK || symbol.Section != elf.SHN_UNDEF || !options[symbol.Name] || info >= uint64(len(content)) {
			continue
		}
		content[info] = elf.ST_INFO(elf.STB_GLOBAL, elf.ST_TYPE(symbol.Info))
		weak[symbol.Name] = true
	}
	return weak
}

// leaveWeakOut removes weak options that this kernel has not, so that they stay 0.
func leaveWeakOut(spec *ebpf.CollectionSpec, weak map[string]bool) error {
	if len(weak) == 0 {
		return nil
	}
	var section *btf.Datasec
	if err := spec.Types.TypeByName(kconfigSection, &section); err != nil {
		return err
	}
	has, err := kernelOptions(weak)
	if err != nil {
		return err
	}
	section.Vars = slices.DeleteFunc(section.Vars, func(v btf.VarSecinfo) bool {
		name := v.Type.TypeName()
		return weak[name] && !has[name]
	})
	return nil
}

// kernelOptions tells which of some options the kernel has.
func kernelOptions(names map[string]bool) (has map[string]bool, err error) {
	// What package ebpf knows of any kernel.
	has = map[string]bool{"LINUX_KERNEL_VERSION": true, "LINUX_HAS_SYSCALL_WRAPPER": true}
	if !slices.ContainsFunc(sortedNames(names), func(name string) bool { return !has[name] }) {
		return has, nil
	}
	file, err := openKconfig()
	if err != nil {
		return nil, err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if name, _, ok := strings.Cut(lines.Text(), "="); ok && names[name] {
			has[name] = true
		}
	}
	return has, lines.Err()
}

// openKconfig opens the kernel's configuration, where package ebpf looks for it as well.
func openKconfig() (io.ReadCloser, error) {
	plain, err := os.Open("/boot/config-" + release())
	if err == nil {
		return plain, nil
	}
	packed, perr := os.Open("/proc/config.gz")
	if perr != nil {
		return nil, &MissingError{
			What: "the filter asks for options of the kernel's configuration, and neither /boot/config-" + release() + " nor /proc/config.gz is there to tell them",
			Hint: "put the configuration there, or use a kernel with CONFIG_IKCONFIG_PROC", Err: errors.Join(err, perr),
		}
	}
	unpacked, err := gzip.NewReader(packed)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reading /proc/config.gz: %w", err), packed.Close())
	}
	return struct {
		io.Reader
		io.Closer
	}{unpacked, packed}, nil
}

var noOption = regexp.MustCompile(`config option "(\w+)" does not exist on this kernel`)

// missingOption is the error for an option that the kernel has not; nil for another error.
func (v *Verdict) missingOption(err error) error {
	m := noOption.FindStringSubmatch(err.Error())
	if m == nil {
		return nil
	}
	return &MissingError{
		What: fmt.Sprintf("loading %s needs %s, an option that Linux %s is built without", v.name, m[1], release()),
		Hint: "declare it __weak in the source, then it is 0 there", Err: err,
	}
}

func sortedNames(names map[string]bool) (sorted []string) {
	for name := range names {
		sorted = append(sorted, name)
	}
	slices.Sort(sorted)
	return sorted
}
