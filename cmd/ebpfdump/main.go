// Command ebpfdump records what each layer sees of a socket's packets.
package main

import (
	"os"

	"github.com/ebpfdump/ebpfdump/capture"
)

func main() {
	capture.Reenter()
	os.Exit(newApp().run(os.Args[1:]))
}
