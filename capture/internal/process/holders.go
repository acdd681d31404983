package process

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// initialPIDs is the inode of the machine's first pid namespace, whose /proc shows all processes.
const initialPIDs = 0xeffffffc

// MapHolder is a process that has a BPF map open, and by which descriptor.
type MapHolder struct{ PID, fd int }

// Has tells whether the process still has the map of that number.
func (h MapHolder) Has(id uint32) bool {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(h.PID), "fdinfo", strconv.Itoa(h.fd)))
	found, ok := mapID(text)
	return err == nil && ok && found == id
}

// MapHolders tells which process has which BPF map open, by the map's number. all is false if there may be
// others, of processes that could not be looked into.
func MapHolders() (holders map[uint32]MapHolder, all bool) {
	all = true
	if name, err := os.Readlink("/proc/self/ns/pid"); err != nil || name != "pid:["+strconv.Itoa(initialPIDs)+"]" {
		all = false
	}
	holders = make(map[uint32]MapHolder)
	for _, pid := range append(All(), os.Getpid()) {
		folder := filepath.Join("/proc", strconv.Itoa(pid))
		files, err := os.ReadDir(filepath.Join(folder, "fd"))
		if err != nil {
			all = all && os.IsNotExist(err) // it has ended
			continue
		}
		for _, f := range files {
			if to, err := os.Readlink(filepath.Join(folder, "fd", f.Name())); err != nil || !strings.HasSuffix(to, "bpf-map") {
				continue
			}
			text, err := os.ReadFile(filepath.Join(folder, "fdinfo", f.Name()))
			if err != nil {
				all = all && os.IsNotExist(err)
				continue
			}
			id, ok := mapID(text)
			if fd, err := strconv.Atoi(f.Name()); ok && err == nil {
				holders[id] = MapHolder{pid, fd}
			}
		}
	}
	return holders, all
}

// mapID finds the number of a map in what fdinfo says of it.
func mapID(text []byte) (uint32, bool) {
	for line := range bytes.Lines(text) {
		if value, ok := bytes.CutPrefix(line, []byte("map_id:")); ok {
			id, err := strconv.ParseUint(string(bytes.TrimSpace(value)), 10, 32)
			return uint32(id), err == nil
		}
	}
	return 0, false
}
