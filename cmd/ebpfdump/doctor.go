package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/internal/doctor"
	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

func (a *app) doctorCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor [--json]",
		Short: "Tell what works on this machine, and what would mend the rest",
		Long: `Looks at the kernel, the privileges of the process and the tools on the PATH,
really loads the tap, has it record a packet, and tells for each command whether
it works here, or which step would mend it. Needs no privilege, leaves nothing
behind and sends nothing to anybody.

Answers are yes, no or ?, which is what cannot be found out. A line such as
"capture --isolate" is about a form of a command that needs more than the rest.

Exit status: 0 every command works, 4 some command does not.`,
		Example: `  ebpfdump doctor
  ebpfdump doctor --json | jq '.commands[] | select(.answer != "yes")'`,
		Args: noArguments,
		RunE: func(_ *cobra.Command, _ []string) error { return a.doctor(asJSON) },
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object, of a form that stays the same")
	return cmd
}

func (a *app) doctor(asJSON bool) error {
	ctx, cancel := untilSignal(context.Background())
	defer cancel()
	report := doctor.Diagnose(doctor.Examine(ctx), version())
	if err := a.writeReport(report, asJSON); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("examining the machine: %w", context.Cause(ctx))
	}
	return verdict(report)
}

func (a *app) writeReport(report doctor.Report, asJSON bool) error {
	if asJSON {
		return terminal.WriteJSON(a.stdout, report, "  ")
	}
	colour := a.showsColours()
	return report.Text(a.coloured(colour), colour, cmp.Or(a.stdout.Columns(), doctor.Columns))
}

// verdict is the error for the exit status, nil if every command works. The last command
// that does not work needs the most, so its step is the one to show.
func verdict(report doctor.Report) error {
	if report.Works {
		return nil
	}
	var names []string
	missing := &bpf.MissingError{Hint: "see the report"}
	for _, v := range report.Commands {
		some := "some of " + v.Command
		switch {
		case v.Answer == doctor.Yes, slices.Contains(names, v.Command), slices.Contains(names, some):
			continue
		case v.Form != "":
			names = append(names, some)
			continue
		}
		names = append(names, v.Command)
		if v.Mend != "" {
			missing.Hint = v.Mend
		}
	}
	missing.What = "not everything works here (" + strings.Join(names, ", ") + ")"
	return missing
}
