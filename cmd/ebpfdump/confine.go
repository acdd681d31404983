package main

import (
	"path/filepath"

	"github.com/ebpfdump/ebpfdump/internal/confine"
)

// confineToFiles is for commands that from here on only read and write what they
// have open. Outputs that are new may still be removed.
func confineToFiles(outputs ...*outputFile) error {
	var removable []string
	for _, output := range outputs {
		if output != nil && output.created {
			removable = append(removable, filepath.Dir(output.Name()))
		}
	}
	return confine.ToOpenFiles(removable...)
}
