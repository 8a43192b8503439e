// Command app is the only program inside the test images. As the pause
// container and by default it waits for a signal; "fail" ends it at once, and "work"
// ends badly at a signal, as work does that is not done.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "fail" {
		os.Exit(1) //nolint:forbidigo // this is a main
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	<-end
	if len(os.Args) > 1 && os.Args[1] == "work" {
		os.Exit(1) //nolint:forbidigo // this is a main
	}
}
