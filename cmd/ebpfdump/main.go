// Command ebpfdump records what each layer sees of a socket's packets.
package main

import "os"

func main() {
	os.Exit(newApp().run(os.Args[1:]))
}
