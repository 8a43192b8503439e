//go:build cgo

package worker_test

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"gpuvet.dev/nvml/wire"
)

// status is what a process uses.
type status struct{ anonymous, threads, files int } // kB, and counts

func (c *conversation) status() status {
	c.t.Helper()
	folder := "/proc/" + strconv.Itoa(c.cmd.Process.Pid)
	text, err := os.ReadFile(folder + "/status")
	if err != nil {
		c.t.Fatal(err)
	}
	open, err := os.ReadDir(folder + "/fd")
	if err != nil {
		c.t.Fatal(err)
	}
	s := status{files: len(open)}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		n, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
		switch name {
		case "RssAnon":
			s.anonymous = n
		case "Threads":
			s.threads = n
		}
	}
	return s
}

// Eight GPUs are read once a second for months.
func TestWorkerStaysSmall(t *testing.T) {
	m := running(t, node(t, 8))
	c := opened(t, m)
	round := func() {
		for _, pci := range m.addresses {
			c.ask(wire.AskReadings, pci)
		}
		c.ask(wire.AskHealth, m.addresses[0])
		c.ask(wire.AskDescribe, m.addresses[0])
		c.ask(wire.AskList, "")
	}
	const rounds = 1250 // 10,000 readings
	var early status
	for i := range rounds {
		round()
		if i == rounds/10 {
			early = c.status()
		}
	}
	late := c.status()
	t.Logf("after %d readings %+v, after %d readings %+v", rounds/10*8, early, rounds*8, late)
	if late.files != early.files || late.threads > early.threads+2 || late.anonymous > early.anonymous+1024 {
		t.Errorf("it grows: %+v, then %+v", early, late)
	}
	if late.anonymous > 8<<10 {
		t.Errorf("RssAnon is %d kB, the budget is 8 MiB", late.anonymous)
	}
}
