package main

import (
	"errors"
	"fmt"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture"
)

// withFlags changes an error of a capture to name flags where the library names fields.
func withFlags(err error) error {
	var (
		missing *bpf.MissingError
		address *capture.AddressError
	)
	switch {
	case errors.As(err, &missing):
		switch missing.Setting {
		case capture.SettingListen:
			missing.Otherwise = "choose a port from 1024 on with --listen"
		case capture.SettingNamespace:
			missing.Otherwise = "probe one with --isolate"
		case capture.SettingViews:
			missing.Hint = "choose --view kernel"
		}
	case errors.As(err, &address):
		address.Hint = "choose another with --listen"
	case errors.Is(err, capture.ErrProbeUnseen):
		return fmt.Errorf("%w (try --isolate)", err)
	}
	return err
}
