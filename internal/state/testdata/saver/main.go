// Command saver saves its second argument in the state folder that is its
// first, for tests that kill it at a fault point.
package main

import (
	"fmt"
	"os"

	"gpuvet.dev/internal/state"
)

func main() {
	if err := save(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func save(folder, payload string) error {
	dir, err := state.Open(folder)
	if err != nil {
		return err
	}
	if _, _, err := dir.Load(); err != nil {
		return err
	}
	if err := dir.Save([]byte(payload)); err != nil {
		return err
	}
	return dir.Close()
}
