package main

import (
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/ebpfdump/ebpfdump/capture"
)

// account is the user that a command runs as.
type account struct {
	*user.User
	ids *capture.User
}

// runAs returns the user given with --user, or else the one who invoked sudo; nil for the
// current user.
func runAs(name string) (*account, error) {
	found, err := findUser(name)
	if found == nil || err != nil {
		return nil, err
	}
	groups, err := found.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("finding the groups of %s: %w", found.Username, err)
	}
	a := &account{User: found, ids: &capture.User{}}
	if a.ids.UID, err = strconv.Atoi(found.Uid); err != nil {
		return nil, fmt.Errorf("finding user %s: %w", found.Username, err)
	}
	if a.ids.GID, err = strconv.Atoi(found.Gid); err != nil {
		return nil, fmt.Errorf("finding user %s: %w", found.Username, err)
	}
	for _, group := range groups {
		if id, err := strconv.Atoi(group); err == nil {
			a.ids.Groups = append(a.ids.Groups, id)
		}
	}
	return a, nil
}

func findUser(name string) (*user.User, error) {
	if name != "" {
		found, err := user.Lookup(name)
		if err != nil {
			return nil, usagef("--user %s: there is no such user", name)
		}
		return found, nil
	}
	uid := os.Getenv("SUDO_UID")
	if uid == "" || os.Geteuid() != 0 {
		return nil, nil
	}
	found, err := user.LookupId(uid)
	if err != nil {
		return nil, fmt.Errorf("finding the user who called sudo: %w", err)
	}
	return found, nil
}

// passedOn are the variables that another user's command inherits, besides LC_*: those
// that sudo keeps with env_reset, about the terminal, the language, the time and the
// display.
var passedOn = []string{
	"TERM", "COLORTERM", "PATH", "LANG", "LANGUAGE", "LINGUAS", "TZ", "DISPLAY", "XAUTHORITY", "XAUTHORIZATION", "KRB5CCNAME",
	"COLORS", "LS_COLORS", "HOSTNAME", "PS1", "PS2",
}

// environment returns what a command of the user inherits from root's env. SUDO_UID and
// the like are not passed on: they name the invoking user, who is the one that the
// command runs as.
func (a *account) environment(env []string) []string {
	var all []string
	for _, entry := range env {
		name, _, _ := strings.Cut(entry, "=")
		if slices.Contains(passedOn, name) || strings.HasPrefix(name, "LC_") {
			all = append(all, entry)
		}
	}
	all = append(all, "HOME="+a.HomeDir, "USER="+a.Username, "LOGNAME="+a.Username)
	if shell := loginShell("/etc/passwd", a.Username); shell != "" {
		all = append(all, "SHELL="+shell)
	}
	return all
}

// loginShell is the user's shell in passwd(5), empty if the user is not listed.
func loginShell(passwd, name string) string {
	text, err := os.ReadFile(passwd)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(fields) == 7 && fields[0] == name {
			if fields[6] == "" {
				return "/bin/sh"
			}
			return fields[6]
		}
	}
	return ""
}
