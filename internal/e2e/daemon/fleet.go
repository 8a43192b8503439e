package daemon

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Fleet is the GPUs of one scripted node, in PCI order. The kernel log is one
// for the machine and keeps what other tests write to it, so the addresses are
// drawn at random: those lines are about GPUs that this fleet does not have.
type Fleet []GPU

// GPU is how one scripted GPU is called.
type GPU struct {
	PCI     string // such as 3f2a:01:00.0
	UUID    string
	Profile string // of package fake; empty: h100
	Memory  string // such as 24Gi; empty: that of the profile
}

// NewFleet makes up to eight GPUs.
func NewFleet(count int) Fleet {
	place := randomBytes(4)
	// The first bit keeps away from domain 0, where real GPUs are.
	domain, bus, slot := []byte{place[0] | 0x80, place[1]}, place[2]&^7, place[3]&0x1f
	fleet := make(Fleet, count)
	for i := range fleet {
		id := hex.EncodeToString(randomBytes(16))
		fleet[i] = GPU{
			PCI:  fmt.Sprintf("%x:%02x:%02x.0", domain, int(bus)+i, slot),
			UUID: fmt.Sprintf("GPU-%s-%s-%s-%s-%s", id[:8], id[8:12], id[12:16], id[16:20], id[20:]),
		}
	}
	return fleet
}

// Scenario writes a scenario file with these GPUs and returns its path.
// Timeline holds steps as a scenario file has them, a line each.
func (f Fleet) Scenario(t testing.TB, timeline ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "scenario.yaml")
	f.write(t, path, timeline)
	return path
}

func (f Fleet) write(t testing.TB, path string, timeline []string) {
	t.Helper()
	var file strings.Builder
	file.WriteString("gpus:\n")
	for _, gpu := range f {
		memory := ""
		if gpu.Memory != "" {
			memory = ", memory: " + gpu.Memory
		}
		fmt.Fprintf(&file, "- {profile: %s, uuid: %s, pci: %q%s}\n", cmp.Or(gpu.Profile, "h100"), gpu.UUID, gpu.PCI, memory)
	}
	if len(timeline) > 0 {
		file.WriteString("timeline:\n")
	}
	for _, step := range timeline {
		fmt.Fprintf(&file, "- %s\n", step)
	}
	if err := os.WriteFile(path, []byte(file.String()), 0o644); err != nil {
		t.Fatalf("write scenario: %v", err)
	}
}

// Device is its name in the node's resource pool.
func (g GPU) Device() string {
	return "gpu-" + strings.NewReplacer(":", "-", ".", "-").Replace(g.PCI)
}

// Xid is the kernel line by which the driver reports an error of the GPU.
func (g GPU) Xid(code int, text string) string {
	// The driver leaves out the function.
	return fmt.Sprintf("NVRM: Xid (PCI:%s): %d, %s", strings.TrimSuffix(g.PCI, ".0"), code, text)
}

// KernelLog writes a line to the kernel log of the machine. The kernel marks it
// as written by a program; the daemon under test is told to take it all the
// same.
func KernelLog(t testing.TB, line string) {
	t.Helper()
	log, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	if err != nil {
		t.Fatalf("open kernel log: %v", err)
	}
	defer log.Close()
	// One write is one record. <4> is a warning of facility kern, as the driver's
	// lines are; the kernel makes facility user of it.
	if _, err := log.WriteString("<4>" + line + "\n"); err != nil {
		t.Fatalf("write to kernel log: %v", err)
	}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}
