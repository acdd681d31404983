package main

import (
	"slices"
	"testing"

	"github.com/ebpfdump/ebpfdump/internal/doctor"
)

// A command without a row in doctor's table would have no verdict.
func TestDoctorKnowsEveryCommand(t *testing.T) {
	t.Parallel()
	for _, cmd := range newApp().rootCommand().Commands() {
		if cmd.Name() == "help" || cmd.Name() == "completion" || cmd.Name() == "manual" {
			continue // these need nothing
		}
		if !slices.Contains(doctor.Commands(), cmd.Name()) {
			t.Errorf("doctor has no verdict on %s", cmd.Name())
		}
	}
}
