package fakelib_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gpuvet.dev/nvml/fake"
	"gpuvet.dev/nvml/fakelib"
	"gpuvet.dev/nvml/fakelib/compile"
)

// built has the library and a program that uses it, made once for all tests.
type built struct{ library, probe string }

var build = sync.OnceValues(func() (built, error) {
	folder, err := os.MkdirTemp("", "fakelib-")
	if err != nil {
		return built{}, err
	}
	b := built{library: filepath.Join(folder, "libnvidia-ml.so.1"), probe: filepath.Join(folder, "probe")}
	ctx := context.Background()
	if err := compile.Library(ctx, b.library, compile.Options{}); err != nil {
		return b, err
	}
	include, err := compile.Include(ctx)
	if err != nil {
		return b, err
	}
	said, err := exec.CommandContext(ctx, "gcc", "-std=gnu11", "-O1", "-isystem", include, "-Wno-deprecated-declarations",
		"testdata/probe.c", b.library, "-Wl,-rpath,"+folder, "-Wl,-z,lazy", "-o", b.probe).CombinedOutput()
	if err != nil {
		return b, fmt.Errorf("compile the probe: %w\n%s", err, said)
	}
	return b, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if b, err := build(); err == nil {
		_ = os.RemoveAll(filepath.Dir(b.library))
	}
	os.Exit(code)
}

// library builds, or skips the test where that cannot be.
func library(t testing.TB) built {
	t.Helper()
	b, err := build()
	if errors.Is(err, compile.ErrNoCompiler) && os.Getenv("GPUVET_REQUIRE") != "all" {
		t.Skipf("needs gcc, which GPUVET_REQUIRE=all insists on: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// machine shows the driver of a scenario to other processes.
type machine struct {
	*fakelib.Machine
	driver *fake.Driver
}

func start(t testing.TB, scenario string) machine {
	t.Helper()
	s, err := fake.Decode("scenario.yaml", []byte(scenario))
	if err != nil {
		t.Fatal(err)
	}
	m := machine{driver: fake.New(s)}
	if m.Machine, err = fakelib.New(t.TempDir(), m.driver); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, m.Close()); err != nil {
			t.Error(err)
		}
	})
	return m
}

// apply has something happen, and waits until other processes see it.
func (m machine) apply(t testing.TB, steps ...string) {
	t.Helper()
	for _, step := range steps {
		s, err := fake.Decode("step.yaml", []byte("gpus: [{profile: h100}, {profile: h100}]\ntimeline: [{at: 0s, "+step+"}]"))
		if err != nil {
			t.Fatal(err)
		}
		shown := m.Shown()
		if err := m.driver.Apply(s.Timeline[0]); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(10 * time.Second); m.Shown() < shown+2; {
			if time.Now().After(deadline) {
				t.Fatal("the machine does not show what happens")
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// probe is another process that uses the library.
type probe struct {
	t       testing.TB
	command *exec.Cmd
	in      io.WriteCloser
	out     chan string // lines; closed at the end
}

func (m machine) probe(t testing.TB, env ...string) *probe {
	t.Helper()
	b := library(t)
	p := &probe{t: t, command: exec.Command(b.probe), out: make(chan string, 16)}
	p.command.Env = append(m.Env(), env...)
	p.command.Stderr = os.Stderr
	var err error
	if p.in, err = p.command.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.command.Start(); err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(p.out)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			p.out <- lines.Text()
		}
	})
	t.Cleanup(func() {
		_ = p.in.Close()
		_ = p.command.Process.Kill()
		reading.Wait()
		_ = p.command.Wait()
	})
	return p
}

// ask calls a function and gives what it says.
func (p *probe) ask(call string) string {
	p.t.Helper()
	p.begin(call)
	return p.answer(20 * time.Second)
}

func (p *probe) begin(call string) {
	p.t.Helper()
	if _, err := fmt.Fprintln(p.in, call); err != nil {
		p.t.Fatal(err)
	}
}

func (p *probe) answer(within time.Duration) string {
	p.t.Helper()
	select {
	case line, ok := <-p.out:
		if !ok {
			p.t.Fatal("the probe ended")
		}
		return strings.TrimRight(line, " ")
	case <-time.After(within):
		p.t.Fatalf("no answer within %s", within)
		return ""
	}
}

// hangs asserts that the call that was begun does not come back.
func (p *probe) hangs() {
	p.t.Helper()
	select {
	case line := <-p.out:
		p.t.Fatalf("the call came back: %s", line)
	case <-time.After(100 * time.Millisecond):
	}
}

// want calls functions and compares what they say.
func (p *probe) want(pairs ...string) {
	p.t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if got := p.ask(pairs[i]); got != pairs[i+1] {
			p.t.Errorf("%s: %q, want %q", pairs[i], got, pairs[i+1])
		}
	}
}
