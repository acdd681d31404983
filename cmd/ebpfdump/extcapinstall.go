package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/extcap"
	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

func (a *app) extcapCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "extcap install|uninstall|status",
		Short: "Have Wireshark list sockets and processes among its interfaces",
		Long: `Puts a link to this program where Wireshark looks for programs that capture for
it. It then lists an interface "eBPF socket filter" for each kind of socket, for
a running process and for a command, with a dialog for what else there is to
choose, and tshark -i ebpfdump-udp does without a dialog.

Wireshark starts this program with the rights of its own user. Whoever is not
root needs the capabilities in the program's file, as with dumpcap:

  sudo setcap cap_bpf,cap_perfmon,cap_net_admin,cap_net_raw+ep \
      ` + "`which ebpfdump`",
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			return usagef("say what to do: ebpfdump extcap install, uninstall or status")
		},
	}
	var folder string
	add := func(name, short string, run func(link string, given bool) error) {
		sub := &cobra.Command{Use: name, Short: short, Args: noArguments, RunE: func(*cobra.Command, []string) error {
			in, err := a.extcapFolder(folder)
			if err != nil {
				return err
			}
			return run(filepath.Join(in, "ebpfdump"), folder != "")
		}}
		sub.Flags().StringVar(&folder, "folder", "", "the `FOLDER` where Wireshark looks (default what tshark -G folders says)")
		cmd.AddCommand(sub)
	}
	add("install", "put the link there", a.extcapInstall)
	add("uninstall", "remove it", a.extcapUninstall)
	add("status", "tell whether it is there", a.extcapStatus)
	return cmd
}

// extcapFolder is where Wireshark looks: for a user that is not root in a folder of his own, where
// this Wireshark has one.
func (a *app) extcapFolder(given string) (string, error) {
	if given != "" {
		return given, nil
	}
	text, err := tsharkFolders()
	if err != nil {
		return "", err
	}
	f := extcap.ParseFolders(text)
	switch {
	case os.Geteuid() != 0 && f.Personal != "":
		return f.Personal, nil
	case f.Global != "":
		return f.Global, nil
	}
	return "", errors.New("this Wireshark does not say where it looks (tshark -G folders): give --folder")
}

// tsharkFolders is what tshark says of its folders.
func tsharkFolders() (string, error) {
	text, err := exec.Command("tshark", "-G", "folders").Output()
	if errors.Is(err, exec.ErrNotFound) {
		return "", errors.New("there is no tshark here to ask where Wireshark looks: install Wireshark, or give --folder")
	}
	if err != nil {
		return "", fmt.Errorf("asking tshark -G folders where Wireshark looks: %w", err)
	}
	return string(text), nil
}

// extcapLink is where the link points to, and whether there is one: what is no link is somebody
// else's.
func extcapLink(link string) (to string, there bool, err error) {
	to, err = os.Readlink(link)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return "", false, nil
	}
	if err != nil {
		return "", true, fmt.Errorf("%s is no link that ebpfdump has made: remove it, or give --folder", terminal.Plain(link))
	}
	return to, true, nil
}

func (a *app) extcapInstall(link string, given bool) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program's file: %w", err)
	}
	to, there, err := extcapLink(link)
	if err != nil {
		return err
	}
	if there && to == self {
		return a.extcapStatus(link, given)
	}
	if given {
		if info, err := os.Stat(filepath.Dir(link)); err != nil || !info.IsDir() {
			return fmt.Errorf("--folder %s: there is no such folder", terminal.Plain(filepath.Dir(link)))
		}
	} else if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return fmt.Errorf("making Wireshark's folder: %w", err)
	}
	if there {
		if err := os.Remove(link); err != nil {
			return fmt.Errorf("replacing the link to %s: %w", terminal.Plain(to), err)
		}
	}
	if err := os.Symlink(self, link); err != nil {
		return fmt.Errorf("putting the link into Wireshark's folder: %w", err)
	}
	return a.extcapStatus(link, given)
}

func (a *app) extcapUninstall(link string, _ bool) error {
	_, there, err := extcapLink(link)
	if err != nil {
		return err
	}
	if !there {
		a.stdout.Line("%s: there is nothing to remove", terminal.Plain(link))
		return nil
	}
	if err := os.Remove(link); err != nil {
		return fmt.Errorf("removing the link from Wireshark's folder: %w", err)
	}
	a.stdout.Line("%s is removed", terminal.Plain(link))
	return nil
}

func (a *app) extcapStatus(link string, given bool) error {
	to, there, err := extcapLink(link)
	if err != nil {
		return err
	}
	self, _ := os.Executable()
	switch {
	case !there:
		return fmt.Errorf("%s is not there: ebpfdump extcap install puts it there", terminal.Plain(link))
	case to != self:
		a.stdout.Line("%s is another ebpfdump, %s: ebpfdump extcap install has it be this one", terminal.Plain(link), terminal.Plain(to))
	case given:
		a.stdout.Line("%s is this program: tshark -D lists its interfaces if it looks in that folder", terminal.Plain(link))
	default:
		a.stdout.Line("%s is this program: tshark -D lists its interfaces", terminal.Plain(link))
	}
	if _, err := os.Stat(to); there && err != nil {
		a.stdout.Line("it leads nowhere: the program's file is gone")
	}
	return nil
}
