package capture

// Values of a bpf.MissingError's Setting: the fields whose change avoids the need for what is
// missing.
const (
	SettingListen    = "Listen"    // of a Config
	SettingNamespace = "Namespace" // of a Config
	SettingViews     = "Views"     // of Options
)

// AddressError says that a socket cannot have the Listen or Address of its Config: it is in use
// (unix.EADDRINUSE), or not an address of this host (unix.EADDRNOTAVAIL).
type AddressError struct {
	// What is wrong, as a clause: "port 80 is in use on 127.0.0.1".
	What string
	// Hint is what to do about it: "choose another".
	Hint string
	// More continues the hint; it may be empty.
	More string
	// Err is the kernel's error.
	Err error
}

func (e *AddressError) Error() string { return e.What + ": " + e.Hint + e.More + ": " + e.Err.Error() }

func (e *AddressError) Unwrap() error { return e.Err }
