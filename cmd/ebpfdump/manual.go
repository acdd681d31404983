package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ebpfdump/ebpfdump/internal/manual"
)

// manualCommand writes pages for man(1), of which installing and packing make files: nobody else types it.
func (a *app) manualCommand() *cobra.Command {
	var names bool
	cmd := &cobra.Command{
		Use:    "manual [COMMAND]",
		Short:  "Write a manual page, as man -l reads it",
		Hidden: true,
		Args:   cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			of, unknown, err := root.Find(args)
			if err != nil || len(unknown) > 0 {
				return noCommand(root, args)
			}
			if names {
				for _, page := range append([]*cobra.Command{root}, root.Commands()...) {
					if page == root || page.IsAvailableCommand() {
						a.stdout.Line("%s", manual.Name(page))
					}
				}
				return nil
			}
			b := thisBuild()
			if err := manual.Write(a.stdout, of, manual.Edition{Version: b.version, Date: b.date}); err != nil {
				return fmt.Errorf("writing the page: %w", err)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&names, "names", false, "write the names of all pages")
	return cmd
}
