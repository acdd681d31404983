package main

import (
	"fmt"
	"os"
	"os/user"
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

// environment is env with the user's own name and home.
func (a *account) environment(env []string) []string {
	own := map[string]string{"HOME": a.HomeDir, "USER": a.Username, "LOGNAME": a.Username}
	var all []string
	for _, entry := range env {
		name, _, _ := strings.Cut(entry, "=")
		if _, ok := own[name]; !ok {
			all = append(all, entry)
		}
	}
	for name, value := range own {
		all = append(all, name+"="+value)
	}
	return all
}
