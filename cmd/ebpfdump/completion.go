package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

// completeSelection has the shell offer what list shows, for the flags that choose sockets.
func completeSelection(cmd *cobra.Command, f *liveFlags) {
	sockets := func(offer func(s *capture.Socket, yield func(value, about string))) cobra.CompletionFunc {
		return func(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
			return among(typed, func(yield func(value, about string)) {
				config := capture.InventoryConfig{Cgroup: f.cgroup}
				pids, err := f.processes()
				if err != nil {
					return
				}
				if config.PIDs = pids; config.Cgroup != "" {
					config.PIDs = nil
				}
				all, err := capture.TakeInventory(config)
				if err != nil {
					return
				}
				for i := range all.Sockets {
					offer(&all.Sockets[i], yield)
				}
			}), cobra.ShellCompDirectiveNoFileComp
		}
	}
	for name, complete := range map[string]cobra.CompletionFunc{
		"pid": func(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
			return among(typed, func(yield func(value, about string)) {
				all, err := capture.TakeInventory(capture.InventoryConfig{})
				if err != nil {
					return
				}
				for _, s := range all.Sockets {
					for _, o := range s.Owners {
						yield(strconv.Itoa(o.PID), o.Name)
					}
				}
			}), cobra.ShellCompDirectiveNoFileComp
		},
		"fd": sockets(func(s *capture.Socket, yield func(value, about string)) {
			for _, o := range s.Owners {
				for _, fd := range o.Descriptors {
					if len(f.pids) > 0 {
						yield(strconv.Itoa(fd), s.Kind+" "+socketAddress(s))
					}
				}
			}
		}),
		"port": sockets(func(s *capture.Socket, yield func(value, about string)) {
			for _, a := range []capture.Address{s.Local, s.Peer} {
				if a.Port != 0 {
					yield(strconv.Itoa(int(a.Port)), fmt.Sprintf("%s %s, %s", s.Kind, socketAddress(s), s.Owners[0].Name))
				}
			}
		}),
		"sock": func(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
			return among(typed, func(yield func(value, about string)) {
				for _, k := range capture.Kinds() {
					yield(k.Name, k.Summary)
				}
			}), cobra.ShellCompDirectiveNoFileComp
		},
		"cgroup": func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
	} {
		if err := cmd.RegisterFlagCompletionFunc(name, complete); err != nil {
			panic(err) // there is no such flag
		}
	}
}

// viewWords are a few words on each view.
var viewWords = map[string]string{
	"kernel": "what the filter gets", "user": "what receiving calls return", "net": "the same from the network header on",
	"link": "the same from the link header on", "sent": "what sending calls take", "cgroup": "packets of both directions at the cgroup hooks",
	"wire": "frames of both directions on the interfaces",
}

// completeViews has the shell offer the views.
func completeViews(cmd *cobra.Command) {
	err := cmd.RegisterFlagCompletionFunc("view", func(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		return among(typed, func(yield func(value, about string)) {
			for name := range strings.SplitSeq(capture.ViewNames(), ", ") {
				yield(name, viewWords[name])
			}
		}), cobra.ShellCompDirectiveNoFileComp
	})
	if err != nil {
		panic(err) // there is no such flag
	}
}

// among completes the last one of several values with commas between them. Each value is offered
// once, with what is said of it first.
func among(typed string, offers func(yield func(value, about string))) []string {
	before := typed[:strings.LastIndexByte(typed, ',')+1]
	seen := make(map[string]bool)
	var all []string
	offers(func(value, about string) {
		if !seen[value] && strings.HasPrefix(before+value, typed) {
			seen[value] = true
			all = append(all, cobra.CompletionWithDesc(before+value, terminal.Plain(about)))
		}
	})
	return all
}
