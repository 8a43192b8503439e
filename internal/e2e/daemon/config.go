package daemon

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Config is what the configuration file of a daemon says beside what every test needs.
type Config struct {
	// DRA is the section dra, such as "{cdi: minimal}". Empty: no GPU is offered to
	// Kubernetes, and faults fence the node.
	DRA  string
	Rows []string // further rows of the policy, such as "{reason: GPULost, effect: NoExecute}"
}

// rows have a lost GPU end with a new loading of the driver, and at once: the tests
// write the kernel's line, and NVML answers on. Answering well for half a minute, which
// ends it otherwise, is for the detector's own tests.
var rows = []string{"{reason: GPULost, clear: reset, settle: 0s}", "{reason: ResetRequired, settle: 0s}"}

// configBeside is the path of the configuration that goes with a scenario.
func configBeside(scenario string) string {
	return filepath.Join(filepath.Dir(scenario), "gpuvet.yaml")
}

// write replaces the file, so that nobody reads half of it.
func (c Config) write(t testing.TB, path string) {
	t.Helper()
	text := fmt.Sprintf("apiVersion: gpuvet.dev/v1alpha1\nkind: Config\npolicy: {rows: [%s]}\ndra: %s\n",
		strings.Join(append(c.Rows, rows...), ", "), cmp.Or(c.DRA, "{enabled: false}"))
	err := os.WriteFile(path+".new", []byte(text), 0o644)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		t.Fatalf("write configuration: %v", err)
	}
}
