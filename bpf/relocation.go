package bpf

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// What loaders replace an instruction by that cannot work on this kernel: a call of a helper
// with such a number, or a load of it into the frame pointer. It does no harm unless the
// verifier reaches it.
const (
	poisonedRelocation = btf.COREBadRelocationSentinel // of cilium/ebpf and libbpf
	poisonedKfunc      = 0xdedc0de                     // of cilium/ebpf
)

var (
	poisonedCall = regexp.MustCompile(`^\(85\) call (?:unknown|\w*)#(\d+)`)
	poisonedLoad = regexp.MustCompile(`^\(18\) r10 = 0x([0-9a-f]+)`)
)

// poison is the number by which a loader has marked the instruction; 0 if it has not.
func (c culprit) poison() uint64 {
	if m := poisonedCall.FindStringSubmatch(c.line); m != nil {
		n, _ := strconv.ParseUint(m[1], 10, 64)
		return n
	}
	if m := poisonedLoad.FindStringSubmatch(c.line); m != nil {
		n, _ := strconv.ParseUint(m[1], 16, 64)
		return n
	}
	return 0
}

// poisoned is the error for a poisoned instruction that the verifier has reached; nil for
// all others.
func (v *Verdict) poisoned(c culprit, err error) error {
	var what, hint string
	switch number := c.poison(); {
	case number == poisonedRelocation:
		relo := btf.CORERelocationMetadata(c.instruction())
		if relo == nil {
			what = "something of the kernel's types for a CO-RE relocation"
			hint = "compile the filter for this kernel"
			break
		}
		what, hint = v.describeRelocation(relo)
	case number == poisonedKfunc:
		name := c.instruction().Reference()
		what = "the kernel function " + name + " (kfunc)"
		hint = "check its name, or ask with bpf_ksym_exists before the call"
	default:
		return nil
	}
	return &MissingError{
		What: fmt.Sprintf("loading %s needs %s, which Linux %s lacks%s", v.name, what, release(), c.where()),
		Hint: hint,
		Err:  err,
	}
}

// relocationText parses how package btf prints a relocation.
var relocationText = regexp.MustCompile(`^CORERelocation\((\w+), .*\[([\d:]+)\], local_id=(\d+)\)$`)

// describeRelocation names what a relocation looks for, and what to do if it is missing.
func (v *Verdict) describeRelocation(relo *btf.CORERelocation) (what, hint string) {
	const guard = "correct it for this kernel, or ask with %s before the access"
	m := relocationText.FindStringSubmatch(relo.String())
	if m == nil || v.spec.Types == nil {
		return "what its relocation " + relo.String() + " looks for", fmt.Sprintf(guard, "bpf_core_field_exists")
	}
	id, _ := strconv.ParseUint(m[3], 10, 32)
	local, err := v.spec.Types.TypeByID(btf.TypeID(id))
	if err != nil {
		return "what its relocation " + relo.String() + " looks for", fmt.Sprintf(guard, "bpf_core_field_exists")
	}
	local = btf.UnderlyingType(local)
	name := typeWords(local)
	switch kind := m[1]; {
	case strings.HasPrefix(kind, "type") || kind == "target_type_id":
		return "the type " + name, fmt.Sprintf(guard, "bpf_core_type_exists")
	case strings.HasPrefix(kind, "enumval"):
		return fmt.Sprintf("the value %s of %s", enumValue(local, m[2]), name), fmt.Sprintf(guard, "bpf_core_enum_value_exists")
	}
	field := fieldPath(local, m[2])
	what = fmt.Sprintf("the field %s of %s", field, name)
	if kernel, err := btf.LoadKernelSpec(); err == nil {
		if _, err := kernel.AnyTypesByName(essentialName(local.TypeName())); err != nil {
			what = fmt.Sprintf("%s with its field %s", name, field)
		}
	}
	return what, fmt.Sprintf(guard, "bpf_core_field_exists")
}

// essentialName is a type's name without its flavour (___...), which CO-RE ignores.
func essentialName(name string) string {
	essential, _, _ := strings.Cut(name, "___")
	return essential
}

// typeWords is a type's name in C: struct sk_buff.
func typeWords(t btf.Type) string {
	switch t.(type) {
	case *btf.Struct:
		return "struct " + t.TypeName()
	case *btf.Union:
		return "union " + t.TypeName()
	case *btf.Enum:
		return "enum " + t.TypeName()
	}
	return t.TypeName()
}

// indexes are the steps of an accessor, such as 0:3:1.
func indexes(accessor string) []int {
	var all []int
	for field := range strings.SplitSeq(accessor, ":") {
		n, _ := strconv.Atoi(field)
		all = append(all, n)
	}
	return all
}

// fieldPath is the field that an accessor leads to, as written in C. The first step is an
// index into an array of the type itself.
func fieldPath(t btf.Type, accessor string) string {
	var path strings.Builder
	for _, i := range indexes(accessor)[1:] {
		var members []btf.Member
		switch composite := btf.UnderlyingType(t).(type) {
		case *btf.Struct:
			members = composite.Members
		case *btf.Union:
			members = composite.Members
		case *btf.Array:
			fmt.Fprintf(&path, "[%d]", i)
			t = composite.Type
			continue
		}
		if i >= len(members) {
			break
		}
		if name := members[i].Name; name != "" { // without one it is an anonymous struct or union
			if path.Len() > 0 {
				path.WriteByte('.')
			}
			path.WriteString(name)
		}
		t = members[i].Type
	}
	if path.Len() == 0 {
		return accessor
	}
	return path.String()
}

// enumValue is the name of the value that an accessor leads to.
func enumValue(t btf.Type, accessor string) string {
	if enum, ok := t.(*btf.Enum); ok {
		if i := indexes(accessor)[0]; i < len(enum.Values) {
			return enum.Values[i].Name
		}
	}
	return accessor
}
