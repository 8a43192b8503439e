package client_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/wire"
)

// scriptDir names, in the environment, the folder that says how the scripted
// worker behaves. This test binary is that worker where it is set.
const scriptDir = "GPUVET_TEST_SCRIPT"

func TestMain(m *testing.M) {
	if dir := os.Getenv(scriptDir); dir != "" {
		os.Exit(script(dir).work())
	}
	os.Exit(m.Run())
}

// script is a folder of small files, each of which has the worker do something:
//
//	gpus, load          what the driver lists: addresses, one a line; its load
//	uuid-GPU            what a GPU says of itself
//	hang-ASK[-GPU]      a call does not return while this is there
//	die-ASK[-GPU]       a call ends the process with exit 127
//	fail-ASK[-GPU]      a call fails with the kind of error written here
//	say-ASK[-GPU]       what is written instead of the answer, as it is
//	tell                events: one line of JSON each, told as it is appended
//	quiet               no heartbeats
//	deaf                the end of the input and all signals but one are ignored
//	mute                there is no greeting
//	protocol            the version that is spoken
//	chatter             is written as fast as it is taken, without being asked
//
// It writes what it is asked to the file asked, one line each: the process, the
// question, the GPU. They are for scripts and tests alike.
type script string

func (s script) path(parts ...string) string {
	return filepath.Join(string(s), strings.Join(parts, "-"))
}

func (s script) text(parts ...string) (string, bool) {
	b, err := os.ReadFile(s.path(parts...))
	return string(b), err == nil
}

func (s script) there(parts ...string) bool {
	_, err := os.Stat(s.path(parts...))
	return err == nil
}

func (s script) put(t testing.TB, text string, parts ...string) {
	t.Helper()
	// A file is there whole or not at all.
	part := s.path(parts...) + ".part"
	if err := os.WriteFile(part, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(part, s.path(parts...)); err != nil {
		t.Fatal(err)
	}
}

func (s script) take(t testing.TB, parts ...string) {
	t.Helper()
	if err := os.Remove(s.path(parts...)); err != nil {
		t.Fatal(err)
	}
}

// asked gives what all workers were asked, as "ask GPU".
func (s script) asked(t testing.TB) (lines []string) {
	t.Helper()
	text, _ := s.text("asked")
	for line := range strings.Lines(text) {
		_, what, _ := strings.Cut(strings.TrimSpace(line), " ")
		lines = append(lines, strings.TrimSpace(what))
	}
	return lines
}

// pids gives the workers that were asked anything, in the order of their first
// question.
func (s script) pids(t testing.TB) (pids []int) {
	t.Helper()
	text, _ := s.text("asked")
	for line := range strings.Lines(text) {
		first, _, _ := strings.Cut(line, " ")
		pid, err := strconv.Atoi(first)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(pids, pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func (s script) work() int {
	deaf := s.there("deaf")
	requests := make(chan wire.Request)
	go func() {
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			var r wire.Request
			if err := json.Unmarshal(in.Bytes(), &r); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(3)
			}
			requests <- r
		}
		if !deaf {
			os.Exit(0)
		}
	}()
	hello := wire.Hello{Protocol: wire.Protocol, Version: "v9"}
	if p, ok := s.text("protocol"); ok {
		hello.Protocol, _ = strconv.Atoi(p)
	}
	for s.there("mute") {
		time.Sleep(10 * time.Millisecond)
	}
	write(hello)
	log, err := os.OpenFile(s.path("asked"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 3
	}
	for r := range requests {
		fmt.Fprintf(log, "%d %s %s\n", os.Getpid(), r.Ask, r.GPU)
		if r.Ask == wire.AskEvents {
			s.events()
		}
		s.answer(r)
	}
	return 0
}

func write(v any) {
	if err := json.NewEncoder(os.Stdout).Encode(v); err != nil {
		os.Exit(4)
	}
}

func (s script) answer(r wire.Request) {
	key := []string{string(r.Ask)}
	if r.GPU != "" {
		key = append(key, r.GPU)
	}
	does := func(what string) bool { return s.there(append([]string{what}, key...)...) }
	for does("hang") {
		time.Sleep(2 * time.Millisecond)
	}
	if does("die") {
		fmt.Fprintln(os.Stderr, "gpuvet-nvml: symbol lookup error: undefined symbol: nvmlDeviceGetX")
		os.Exit(127)
	}
	if text, ok := s.text(append([]string{"say"}, key...)...); ok {
		_, _ = os.Stdout.WriteString(text)
		return
	}
	if kind, ok := s.text(append([]string{"fail"}, key...)...); ok {
		if kind == "renewed once" {
			_ = os.Remove(s.path(append([]string{"fail"}, key...)...))
			kind = "renewed"
		}
		write(wire.Answer{Error: &wire.Error{Kind: wire.Kind(kind), Text: "nvmlX: " + kind}})
		return
	}
	if text, ok := s.text("chatter"); ok {
		for {
			if _, err := os.Stdout.WriteString(text); err != nil {
				os.Exit(5)
			}
		}
	}
	var a wire.Answer
	switch now := time.Now(); {
	case r.Ask == wire.AskList:
		gpus, _ := s.text("gpus")
		load, _ := s.text("load")
		a.List = &wire.List{Driver: "570.195.03", CUDA: "12.8", Load: load, GPUs: strings.Fields(gpus)}
	case r.GPU != "" && !s.has(r.GPU):
		a.Error = &wire.Error{Kind: wire.KindNotFound, Text: "get the handle"}
	case r.Ask == wire.AskDescribe:
		uuid, _ := s.text("uuid", r.GPU)
		a.GPU = &nvml.GPU{PCI: r.GPU, UUID: uuid, Name: "NVIDIA H100 80GB HBM3", MemoryBytes: 80 << 30}
		if n, ok := strings.CutPrefix(uuid, "GPU-"); ok {
			a.GPU.MIG = nvml.Some(true)
			a.GPU.Instances = []nvml.Instance{{UUID: "MIG-" + n, Profile: "7g.80gb", MemoryBytes: 79 << 30}}
		}
	case r.Ask == wire.AskReadings:
		a.Readings = &nvml.Readings{Time: now, Power: nvml.Some(120.0), Clocks: map[string]float64{"sm": 1.98e9}}
	case r.Ask == wire.AskHealth:
		a.Health = &nvml.Health{Time: now, ECC: []nvml.ECCCount{{Location: "dram"}}}
	}
	write(a)
}

func (s script) has(pci string) bool {
	gpus, _ := s.text("gpus")
	return slices.Contains(strings.Fields(gpus), pci)
}

// heartbeat of the scripted worker.
const heartbeat = 20 * time.Millisecond

// events tells each line of the file tell that is new, from the moment that it
// is called.
func (s script) events() {
	told, _ := s.text("tell")
	done := len(told)
	for beat := time.Now(); ; time.Sleep(time.Millisecond) {
		s.breakStream()
		text, _ := s.text("tell")
		for line := range strings.Lines(text[done:]) {
			done += len(line)
			_, _ = os.Stdout.WriteString(line)
		}
		if time.Since(beat) > heartbeat && !s.there("quiet") {
			write(wire.Answer{})
			beat = time.Now()
		}
	}
}

func (s script) breakStream() {
	if s.there("die", "events") {
		os.Exit(127)
	}
	if kind, ok := s.text("fail", "events"); ok {
		write(wire.Answer{Error: &wire.Error{Kind: wire.Kind(kind), Text: "wait: " + kind}})
		for {
			time.Sleep(time.Hour)
		}
	}
}

// tell has the workers that listen tell an event.
func (s script) tell(t testing.TB, e nvml.Event) {
	t.Helper()
	line, err := json.Marshal(wire.Answer{Event: &e})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(s.path("tell"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(append(line, '\n')); err != nil {
		t.Fatal(err)
	}
}

// pciOf is the address of the nth scripted GPU.
func pciOf(n int) string { return fmt.Sprintf("0000:%02x:00.0", 0x18+n) }

// newScript is the script of n GPUs, all well.
func newScript(t testing.TB, n int) script {
	t.Helper()
	s := script(t.TempDir())
	s.setGPUs(t, n)
	s.put(t, "570.195.03@1", "load")
	return s
}

func (s script) setGPUs(t testing.TB, n int) {
	t.Helper()
	var gpus []string
	for i := range n {
		gpus = append(gpus, pciOf(i))
		s.put(t, fmt.Sprintf("GPU-00000000-0000-0000-0000-%012x", i), "uuid", pciOf(i))
	}
	s.put(t, strings.Join(gpus, "\n"), "gpus")
}

// alive counts the workers that are there.
func (s script) alive(t testing.TB) (n int) {
	t.Helper()
	for _, pid := range s.pids(t) {
		if alive(pid) {
			n++
		}
	}
	return n
}

// alive says whether a process is there and not a zombie.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}
