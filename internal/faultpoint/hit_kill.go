//go:build faultpoints

package faultpoint

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// reached counts how often the chosen point was passed. It may be global
// because the process dies by it: there is one choice per process.
var reached atomic.Uint64

// Hit kills the process if name is the point that GPUVET_FAULTPOINT names.
func Hit(name string) {
	chosen, nth, numbered := strings.Cut(os.Getenv("GPUVET_FAULTPOINT"), ":")
	if name != chosen {
		return
	}
	n := uint64(1)
	if numbered {
		var err error
		if n, err = strconv.ParseUint(nth, 10, 64); err != nil {
			panic("GPUVET_FAULTPOINT: " + err.Error()) // a test's typing error must not look like survival
		}
	}
	if reached.Add(1) != n {
		return
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // the signal may reach another thread first; nothing may run after the point
}
