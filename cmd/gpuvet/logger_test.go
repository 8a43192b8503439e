package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"go.uber.org/zap"
)

func TestTextLogTellsATransitionInOneLine(t *testing.T) {
	var text bytes.Buffer
	index := 3
	newLogger(&text, "text").Named("detector").Info("condition raised",
		zap.Uint64("seq", 60), zap.Intp("gpu", &index), zap.String("pci", "0000:5d:00.0"), zap.String("uuid", "GPU-1"),
		zap.String("reason", "GPULost"), zap.String("cause", "Xid 79"), zap.String("effect", "NoSchedule"), zap.String("action", "reboot-node"))
	const want = `condition raised gpu=3 pci=0000:5d:00.0 reason=GPULost cause="Xid 79" effect=NoSchedule action=reboot-node` + "\n"
	if got := text.String(); len(got) < 9 || got[9:] != want {
		t.Errorf("got  %swant HH:MM:SS %s", got, want)
	}
}

func TestTextLogLeavesOutWhatHasNoValue(t *testing.T) {
	var text bytes.Buffer
	var none *int
	newLogger(&text, "text").With(zap.String("node", "a")).Warn("close", zap.Intp("gpu", none), zap.String("missing", ""), zap.Strings("kept", nil), zap.Error(nil))
	if got, want := text.String()[9:], "WARN close node=a\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTextLogKeepsToItsLine(t *testing.T) {
	var text bytes.Buffer
	newLogger(&text, "text").Error("kernel log\x1b[2J", zap.String("process", "a\nb\x1b"), zap.Strings("kept", []string{"x", "y"}), zap.Error(errors.New("open \"x\":\nno")))
	got := text.String()
	if strings.Count(got, "\n") != 1 || strings.ContainsRune(got, '\x1b') {
		t.Errorf("got %q", got)
	}
	if want := `ERROR kernel log\x1b[2J process="a\nb\x1b" kept=x,y: open "x":\nno` + "\n"; got[9:] != want {
		t.Errorf("got %q, want %q", got[9:], want)
	}
}

func TestLogOfNoTerminalIsJSON(t *testing.T) {
	var text bytes.Buffer
	newLogger(&text, "auto").Info("ready", zap.Int("gpus", 8))
	var line struct {
		Msg  string
		GPUs int
	}
	if err := json.Unmarshal(text.Bytes(), &line); err != nil || line.Msg != "ready" || line.GPUs != 8 {
		t.Errorf("%v: %s", err, &text)
	}
}
