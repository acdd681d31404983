package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/ebpfdump/ebpfdump/internal/extcap"
	"github.com/ebpfdump/ebpfdump/internal/terminal"
	"github.com/ebpfdump/ebpfdump/internal/wireshark"
)

// wiresharkFlags are the flags of wireshark profile.
type wiresharkFlags struct {
	folder, plugins string
	lua, over       bool
}

func (a *app) wiresharkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "wireshark profile install|uninstall",
		Short: "Give Wireshark a profile for such captures",
		Args:  noArguments,
		RunE: func(*cobra.Command, []string) error {
			return usagef("say what to do: ebpfdump wireshark profile install, or uninstall")
		},
	}
	var f wiresharkFlags
	profile := &cobra.Command{
		Use:   "profile install|uninstall",
		Short: "Columns for view and packet id, colours, filter buttons",
		Long: `Puts a profile into the configuration of this user's Wireshark: columns for the
view, the packet's id, the payload and the comment; a colour for each view;
buttons for what userspace got, what was dropped, before what packets are
missing, and the selected packet in all views. Choose it with

  wireshark -C ebpfdump FILE        tshark -C ebpfdump -r FILE

With --lua a post-dissector as well, which links a packet with its other views
(ebpfdump.other_view), and says how long after the filter it was read
(ebpfdump.since_filter).`,
		Args: noArguments,
		RunE: cmd.RunE,
	}
	add := func(name, short string, run func(f wiresharkFlags) error) {
		sub := &cobra.Command{Use: name, Short: short, Args: noArguments, RunE: func(*cobra.Command, []string) error { return run(f) }}
		sub.Flags().StringVar(&f.folder, "folder", "", "the `FOLDER` of the configuration (default what tshark -G folders says)")
		sub.Flags().StringVar(&f.plugins, "plugins", "", "the `FOLDER` of Lua plugins (default likewise)")
		sub.Flags().BoolVar(&f.lua, "lua", false, "the post-dissector as well")
		if name == "install" {
			sub.Flags().BoolVar(&f.over, "force", false, "also over files that were changed")
		}
		profile.AddCommand(sub)
	}
	add("install", "put it there", a.installProfile)
	add("uninstall", "remove it", a.uninstallProfile)
	cmd.AddCommand(profile)
	return cmd
}

// places are the folders of Wireshark that are needed.
func (f *wiresharkFlags) places() error {
	if f.folder != "" && (!f.lua || f.plugins != "") {
		return nil
	}
	text, err := tsharkFolders()
	if err != nil {
		return err
	}
	folders := extcap.ParseFolders(text)
	if f.folder == "" {
		f.folder = folders.Configuration
	}
	if f.plugins == "" {
		f.plugins = folders.Lua
	}
	switch {
	case f.folder == "":
		return errors.New("this Wireshark does not say where its configuration is (tshark -G folders): give --folder")
	case f.lua && f.plugins == "":
		return errors.New("this Wireshark does not say where its Lua plugins are (tshark -G folders): give --plugins")
	}
	return nil
}

// changed says what to do about files of somebody else.
func changed(err error) error {
	if foreign := (*wireshark.ForeignError)(nil); errors.As(err, &foreign) {
		return fmt.Errorf("%s: remove it, or install with --force", terminal.Plain(err.Error()))
	}
	return err
}

func (a *app) installProfile(f wiresharkFlags) error {
	if err := f.places(); err != nil {
		return err
	}
	name, err := wireshark.InstallProfile(f.folder, f.over)
	if err != nil {
		return changed(err)
	}
	a.stdout.Line("%s is there: wireshark -C %s", terminal.Plain(name), wireshark.Name)
	if !f.lua {
		return nil
	}
	if name, err = wireshark.InstallLua(f.plugins, f.over); err != nil {
		return changed(err)
	}
	a.stdout.Line("%s is there", terminal.Plain(name))
	return nil
}

func (a *app) uninstallProfile(f wiresharkFlags) error {
	if err := f.places(); err != nil {
		return err
	}
	if err := a.removed(wireshark.UninstallProfile(f.folder)); err != nil {
		return err
	}
	if f.lua {
		return a.removed(wireshark.UninstallLua(f.plugins))
	}
	if name, there := wireshark.HasLua(f.plugins); f.plugins != "" && there {
		a.stdout.Line("%s stays: uninstall --lua removes it as well", terminal.Plain(name))
	}
	return nil
}

// removed says what has become of a name that was to be removed. That it was not there is no failure: it is as it should be.
func (a *app) removed(name string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		a.stdout.Line("%s is not there", terminal.Plain(name))
	case err != nil:
		return changed(err)
	default:
		a.stdout.Line("%s is removed", terminal.Plain(name))
	}
	return nil
}
