//go:build cgo

package worker_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gpuvet.dev/nvml/fake"
	"gpuvet.dev/nvml/wire"
)

func TestQuestionsAreAnsweredInOrder(t *testing.T) {
	m := running(t, node(t, 8))
	c := talk(t, m.env, m.args...)
	c.send(wire.AskOpen, "")
	for range 10 {
		c.send(wire.AskList, "")
		for _, pci := range m.addresses {
			c.send(wire.AskDescribe, pci)
		}
	}
	if a := c.answer(); a.Error != nil {
		t.Fatal(a.Error.Err())
	}
	for range 10 {
		if a := c.answer(); a.List == nil || !cmp.Equal(a.List.GPUs, m.addresses) {
			t.Fatalf("list: %+v, want %v", a, m.addresses)
		}
		for _, pci := range m.addresses {
			if a := c.answer(); a.GPU == nil || a.GPU.PCI != pci {
				t.Fatalf("describe %s: %+v", pci, a)
			}
		}
	}
}

func TestWhatCannotBeAskedIsToldAndHarmsNothing(t *testing.T) {
	m := running(t, node(t, 1))
	c := talk(t, m.env, m.args...)
	refused := func(line, want string) {
		t.Helper()
		c.write(line)
		if a := c.answer(); a.Error == nil || a.Error.Kind != wire.KindOther || !strings.Contains(a.Error.Text, want) {
			t.Errorf("%.80s: %+v, want an error with %q", line, a, want)
		}
	}
	refused(`{"ask":"list"}`, "expected open before it")
	refused(`{"ask":"events"}`, "expected open before it")
	c.ask(wire.AskOpen, "")
	refused(`{"ask":"open"}`, "open already")
	refused(`{"ask":"temperature"}`, `expected one of ["open" "list"`)
	refused(`{"ask":"readings"}`, `expected a PCI address such as 0000:3b:00.0`)
	refused(`{"ask":"readings","gpu":"GPU-1"}`, `"GPU-1"`)
	const example = `expected a question such as {"ask":"open"}`
	refused(`open`, `read request: open: `+example)
	refused(``, `read request: empty line: `+example)
	refused(`[]`, `read request: []: `+example)
	refused(`{"ask":"list"`, `read request: {"ask":"list": `+example)
	refused(`{"ask":"list"} {"ask":"list"}`, `read request: {"ask":"list"} {"ask":"list"}: `+example)
	refused(`{"ask":"list","pci":1}`, `read request: unknown key "pci": `+example)
	refused(`{"ask":1}`, `read request: "ask": expected a string`)
	refused(`{"ask":"list"}`+strings.Repeat(" ", wire.MaxLine), `read request: line of more than 1048576 bytes`)
	refused(strings.Repeat("x", wire.MaxLine/2), strings.Repeat("x", 40)+`...: `+example)
	c.ask(wire.AskReadings, m.addresses[0])
}

func TestNothingIsAskedOfADriverThatIsNotThere(t *testing.T) {
	s := node(t, 1)
	s.Driver.Absent = true
	m := running(t, s)
	c := talk(t, m.env, m.args...)
	for _, ask := range []wire.Ask{wire.AskOpen, wire.AskList, wire.AskEvents, wire.AskOpen} {
		if e := c.refused(ask, ""); e.Kind != wire.KindNoDriver || e.Text != "nvmlInit_v2: driver is not loaded" {
			t.Errorf("%s: %+v, want no driver, in words", ask, e)
		}
	}
}

func TestLibraryThatIsNoneIsNoDriver(t *testing.T) {
	for _, path := range []string{filepath.Join(t.TempDir(), "libnvidia-ml.so.1"), "libm.so.6", workerPath} {
		c := talk(t, nil, "--library", path)
		if e := c.refused(wire.AskOpen, ""); e.Kind != wire.KindNoDriver || !strings.Contains(e.Text, filepath.Base(path)) {
			t.Errorf("open %s: %+v, want no driver, with the path", path, e)
		}
	}
}

// Only the end of the process ends a call that is stuck in the driver.
func TestEndOfInputEndsAWorkerThatHangs(t *testing.T) {
	m := running(t, node(t, 2), fake.Step{GPU: 0, Do: fake.Hang(time.Hour)})
	c := opened(t, m)
	c.send(wire.AskReadings, m.addresses[0])
	c.send(wire.AskReadings, m.addresses[1])
	c.in.Close()
	if code := c.end(patience); code != 0 {
		t.Errorf("exit code %d: %s", code, c.errs.String())
	}
}

func TestEndOfInputEndsAWorkerThatWaitsForEvents(t *testing.T) {
	m := running(t, node(t, 1))
	c := opened(t, m)
	c.ask(wire.AskWatch, m.addresses[0])
	c.send(wire.AskEvents, "")
	c.answer()
	c.in.Close()
	if code := c.end(patience); code != 0 {
		t.Errorf("exit code %d: %s", code, c.errs.String())
	}
}

func TestWhatWasAskedBeforeTheEndIsAnswered(t *testing.T) {
	m := running(t, node(t, 1))
	c := talk(t, m.env, m.args...)
	c.send(wire.AskOpen, "")
	c.send(wire.AskReadings, m.addresses[0])
	c.in.Close()
	c.answer()
	if a := c.answer(); a.Readings == nil {
		t.Errorf("%+v, want readings", a)
	}
	if code := c.end(patience); code != 0 {
		t.Errorf("exit code %d: %s", code, c.errs.String())
	}
}

func TestMoreQuestionsThanCanWaitAreRefused(t *testing.T) {
	m := running(t, node(t, 1), fake.Step{Do: fake.Hang(time.Hour)})
	c := opened(t, m)
	c.send(wire.AskReadings, m.addresses[0])
	_, _ = fmt.Fprint(c.in, strings.Repeat("{}\n", 5000)) // it may end before it has read all
	if code := c.end(patience); code != 1 || !strings.Contains(c.errs.String(), "read request: 1024 wait already") {
		t.Errorf("exit code %d, %s", code, c.errs.String())
	}
}

func TestLastLineNeedsNoEnd(t *testing.T) {
	m := running(t, node(t, 1))
	c := talk(t, m.env, m.args...)
	_, _ = fmt.Fprint(c.in, `{"ask":"open"}`)
	c.in.Close()
	if a := c.answer(); a.Error != nil {
		t.Error(a.Error.Err())
	}
}
