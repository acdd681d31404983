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

// runAs finds the user that was asked for, or else the one who called sudo; nil
// for whoever we are.
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

// passedOn are the variables that another user's command gets as they are, besides
// those that begin with LC_: what sudo passes on (env_reset) about the terminal, the
// language, the time and the display.
var passedOn = []string{
	"TERM", "COLORTERM", "PATH", "LANG", "LANGUAGE", "LINGUAS", "TZ", "DISPLAY", "XAUTHORITY", "XAUTHORIZATION", "KRB5CCNAME",
	"COLORS", "LS_COLORS", "HOSTNAME", "PS1", "PS2",
}

// environment is what a command of the user gets of env, which is root's. What
// sudo says of its caller (SUDO_UID and others) is not for somebody who is that caller.
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

// loginShell is the user's shell (passwd(5)), empty if it is not known there.
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
