// Package wireshark has what Wireshark shows captures of ebpfdump well with: a profile, and a
// post-dissector in Lua.
package wireshark

import (
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Name is that of the profile.
const Name = "ebpfdump"

//go:embed profile/preferences profile/colorfilters profile/dfilter_buttons profile/recent profile/ebpfdump.lua
var files embed.FS

// The names of the files of the profile, and of the post-dissector.
var (
	profile = []string{"preferences", "colorfilters", "dfilter_buttons"}
	lua     = "ebpfdump.lua"
	// How wide the columns are, which Wireshark writes anew whenever it ends.
	recent = "recent"
)

// ForeignError says that there is a file that is not ours.
type ForeignError struct{ Name string }

func (e *ForeignError) Error() string {
	return e.Name + " is none that ebpfdump has made, or has been changed since"
}

// InstallProfile puts the profile into the folder of somebody's configuration, and returns its own.
// What the user has changed in it is kept, with a *ForeignError, unless over is set.
func InstallProfile(configuration string, over bool) (folder string, err error) {
	folder = filepath.Join(configuration, "profiles", Name)
	if err := install(folder, over, profile...); err != nil {
		return folder, err
	}
	if _, there := isOurs(folder, recent); there && !over {
		return folder, nil
	}
	return folder, install(folder, over, recent)
}

// UninstallProfile removes the profile, with what Wireshark itself has written down of it. Other
// files that are not as ebpfdump has made them stay, with a *ForeignError. Where there is no profile,
// the error is fs.ErrNotExist.
func UninstallProfile(configuration string) (folder string, err error) {
	folder = filepath.Join(configuration, "profiles", Name)
	if _, err := os.Lstat(folder); err != nil {
		return folder, err
	}
	if err := uninstall(folder, profile...); err != nil {
		return folder, err
	}
	// A profile of which only the widths are left would still be in Wireshark's list.
	if info, err := os.Lstat(filepath.Join(folder, recent)); err == nil && info.Mode().IsRegular() {
		if err := os.Remove(filepath.Join(folder, recent)); err != nil {
			return folder, fmt.Errorf("removing for Wireshark: %w", err)
		}
	}
	_ = os.Remove(folder) // if nothing else is in it
	return folder, nil
}

// InstallLua puts the post-dissector into the folder of somebody's plugins, and UninstallLua removes
// it. Both return the file's name.
func InstallLua(plugins string, over bool) (string, error) {
	return filepath.Join(plugins, lua), install(plugins, over, lua)
}

// UninstallLua is the opposite of InstallLua. Where there is no such file, the error is fs.ErrNotExist.
func UninstallLua(plugins string) (string, error) {
	name := filepath.Join(plugins, lua)
	if _, err := os.Lstat(name); err != nil {
		return name, err
	}
	return name, uninstall(plugins, lua)
}

// HasLua tells whether the folder of somebody's plugins has the post-dissector, and its name.
func HasLua(plugins string) (name string, there bool) {
	_, there = isOurs(plugins, lua)
	return filepath.Join(plugins, lua), there
}

func install(folder string, over bool, names ...string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("making Wireshark's folder: %w", err)
	}
	for _, name := range names {
		if ours, there := isOurs(folder, name); there && !ours && !over {
			return &ForeignError{filepath.Join(folder, name)}
		}
	}
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(folder, name), content(name), 0o644); err != nil {
			return fmt.Errorf("writing for Wireshark: %w", err)
		}
	}
	return nil
}

func uninstall(folder string, names ...string) error {
	for _, name := range names {
		if ours, there := isOurs(folder, name); there && !ours {
			return &ForeignError{filepath.Join(folder, name)}
		}
	}
	for _, name := range names {
		if err := os.Remove(filepath.Join(folder, name)); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("removing for Wireshark: %w", err)
		}
	}
	return nil
}

// isOurs tells whether a file is as ebpfdump makes it, and whether there is one. A link is not ours.
func isOurs(folder, name string) (ours, there bool) {
	path := filepath.Join(folder, name)
	info, err := os.Lstat(path)
	if err != nil {
		return false, false
	}
	if info.Mode().Type() != 0 {
		return false, true
	}
	b, err := os.ReadFile(path)
	return err == nil && string(b) == string(content(name)), true
}

func content(name string) []byte {
	b, err := fs.ReadFile(files, "profile/"+name)
	if err != nil {
		panic(err) // it is in this program
	}
	return b
}
