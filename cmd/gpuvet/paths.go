package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// The daemon's places: the system's for root, the user's own otherwise.

func defaultStateDir() string {
	if os.Geteuid() == 0 {
		return "/var/lib/gpuvet"
	}
	if dir := os.Getenv("XDG_STATE_HOME"); dir != "" {
		return filepath.Join(dir, "gpuvet")
	}
	if home, err := os.UserHomeDir(); err == nil {
		return filepath.Join(home, ".local", "state", "gpuvet")
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("gpuvet-%d", os.Geteuid()))
}

func defaultSocket() string {
	if os.Geteuid() == 0 {
		return "/run/gpuvet/gpuvet.sock"
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "gpuvet", "gpuvet.sock")
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("gpuvet-%d", os.Geteuid()), "gpuvet.sock")
}
