package main

import (
	"github.com/ebpfdump/ebpfdump/internal/confine"
	"github.com/ebpfdump/ebpfdump/internal/outfile"
)

// confineToFiles confines a command that from now on only uses its open files. A new
// output may still be removed.
func confineToFiles(output *outfile.File) error {
	if folder, isNew := output.New(); isNew {
		return confine.ToOpenFiles(folder)
	}
	return confine.ToOpenFiles()
}
