package bpf

import (
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
)

// functionPrefixes are what the kernel puts before the name of a system call to name its
// function, on each architecture.
var functionPrefixes = map[string]string{
	"amd64":   "__x64_sys_",
	"arm64":   "__arm64_sys_",
	"riscv64": "__riscv_sys_",
}

// setSession puts the number of bpf_session_is_return into a program for the functions of
// system calls. The library could do that too, but it would read all of the kernel's types
// first, and take the argument amiss that the function has from Linux 7.0 on.
func setSession(spec *ebpf.CollectionSpec, program string) error {
	const name = "bpf_session_is_return"
	id, err := kernelFunction(name)
	if err != nil {
		return err
	}
	code := spec.Programs[program].Instructions
	for i := range code {
		if ins := &code[i]; ins.IsKfuncCall() && ins.Reference() == name {
			*ins = asm.Instruction{OpCode: ins.OpCode, Src: asm.PseudoKfuncCall, Constant: int64(id)}.WithSource(ins.Source())
		}
	}
	return nil
}

// kernelFunction is the number of a function in the kernel's types.
func kernelFunction(name string) (btf.TypeID, error) {
	kernel, release, err := allKernelTypes()
	if err != nil {
		return 0, err
	}
	defer release()
	id, ok := kernel.functions(name)[name]
	if !ok {
		return 0, fmt.Errorf("this kernel has no function %s: %w", name, errors.ErrUnsupported)
	}
	return btf.TypeID(id), nil
}

// attachProbes loads the program for the functions of system calls, and attaches it; and at the
// end of all calls, the one for those that have begun before.
func (c *Calls) attachProbes() error {
	if err := c.objects.variables[callsVarProbed].Set(uint32(1)); err != nil {
		return fmt.Errorf("setting up the programs: %w", err)
	}
	if err := c.objects.load([]string{callsProgCalled}); err != nil {
		return err
	}
	all := link.KprobeMultiOptions{Session: true}
	for _, s := range syscalls {
		function := functionPrefixes[runtime.GOARCH] + s.name
		if s.optional {
			if _, err := kernelFunction(function); err != nil {
				continue
			}
		}
		all.Symbols = append(all.Symbols, function)
		all.Cookies = append(all.Cookies, uint64(s.call))
	}
	if err := c.attachTo([]attachment{{"sys_exit", callsProgReturned}}); err != nil {
		return err
	}
	probes, err := link.KprobeMulti(c.objects.programs[callsProgCalled], all)
	if err != nil {
		return err
	}
	c.links = append(c.links, probes)
	c.probes.link = probes
	return nil
}

// probes are those at the functions of system calls. Somebody may ask for their count while
// they are detached.
type probes struct {
	mu   sync.Mutex
	link link.Link // nil when they are detached
	last uint64
}

// missed counts the calls at which the kernel could not run the probes.
func (p *probes) missed() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.link != nil {
		if info, err := p.link.Info(); err == nil && info.KprobeMulti() != nil {
			p.last = info.KprobeMulti().Missed
		}
	}
	return p.last
}

// release keeps the count before the link is closed.
func (p *probes) release() {
	p.missed()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.link = nil
}
