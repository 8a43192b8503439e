// Command writer writes the spec of the claim that is its second argument, with
// the GPU that is its third, in the folder that is its first, for tests that kill
// it at a fault point.
package main

import (
	"fmt"
	"os"

	"gpuvet.dev/dra/cdi"
)

func main() {
	if err := write(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func write(folder, claim, uuid string) error {
	specs, err := cdi.New(cdi.Options{Mode: cdi.None, Dir: folder})
	if err != nil {
		return err
	}
	_, err = specs.Write(claim, []cdi.Device{{Name: "gpu-0000-3b-00-0", UUID: uuid}}, "")
	return err
}
