package capture

// Values of a bpf.MissingError's Setting: the fields whose change does without what
// is missing.
const (
	SettingListen    = "Listen"    // of a Config
	SettingNamespace = "Namespace" // of a Config
	SettingViews     = "Views"     // of Options
)

// AddressError says that a socket cannot have the Listen or Address of its Config:
// somebody else has it (unix.EADDRINUSE), or it is none of this host's (unix.EADDRNOTAVAIL).
type AddressError struct {
	// What is wrong, as a clause: "port 80 is in use on 127.0.0.1".
	What string
	// Hint is the step that mends it: "choose another".
	Hint string
	// More goes on behind the step; it may be empty.
	More string
	// Err is what the kernel said.
	Err error
}

func (e *AddressError) Error() string { return e.What + ": " + e.Hint + e.More + ": " + e.Err.Error() }

func (e *AddressError) Unwrap() error { return e.Err }
