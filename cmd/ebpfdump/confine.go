package main

import (
	"github.com/ebpfdump/ebpfdump/internal/confine"
	"github.com/ebpfdump/ebpfdump/internal/outfile"
)

// confineToFiles is for commands that from here on only read and write what they
// have open. An output that is new may still be removed.
func confineToFiles(output *outfile.File) error {
	if folder, isNew := output.New(); isNew {
		return confine.ToOpenFiles(folder)
	}
	return confine.ToOpenFiles()
}
