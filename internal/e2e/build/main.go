// Command build makes everything the end-to-end tests need, ahead of them, so
// that a cold build of Kubernetes does not eat the time limit of a test run.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"gpuvet.dev/internal/e2e/parts"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	set, err := parts.Build(ctx, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stdout, set.Dir)
}
