package extcap

import (
	"bufio"
	"cmp"
	"strings"
)

// Folders are where a Wireshark looks for programs that capture for it.
type Folders struct {
	// Global is that of all users, and Personal that of this one; empty where there is none,
	// as before Wireshark 4.2.
	Global, Personal string
	// Configuration is this user's, in which his profiles are, and Lua the folder of his plugins.
	Configuration, Lua string
}

// ParseFolders parses what tshark -G folders says. The line about all users has had two names.
func ParseFolders(text string) (f Folders) {
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		name, folder, _ := strings.Cut(lines.Text(), ":")
		folder = strings.TrimSpace(folder)
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "extcap path", "global extcap path":
			f.Global = cmp.Or(f.Global, folder)
		case "personal extcap path":
			f.Personal = folder
		case "personal configuration":
			f.Configuration = folder
		case "personal lua plugins":
			f.Lua = folder
		}
	}
	return f
}
