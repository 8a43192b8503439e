//go:build cgo

package worker_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/fake"
	"gpuvet.dev/nvml/fakelib"
	"gpuvet.dev/nvml/fakelib/compile"
)

// libraryMaker compiles each scripted library once.
type libraryMaker struct {
	mu    sync.Mutex // guards all below
	dir   string
	paths map[string]string
	err   error
}

var libraries = libraryMaker{paths: map[string]string{}}

// current is the library of a driver that knows all that the worker asks for.
func (l *libraryMaker) current(t testing.TB) string {
	t.Helper()
	return l.without(t, "current", compile.Options{})
}

// old is the library of driver R450.
func (l *libraryMaker) old(t testing.TB) string {
	t.Helper()
	return l.without(t, "old", compile.Options{Old: true})
}

func (l *libraryMaker) without(t testing.TB, name string, o compile.Options) string {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if path := l.paths[name]; path != "" || l.err != nil {
		needCompiler(t, l.err)
		return path
	}
	path := filepath.Join(l.dir, name, "libnvidia-ml.so.1")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	l.err = compile.Library(t.Context(), path, o)
	needCompiler(t, l.err)
	l.paths[name] = path
	return path
}

// needCompiler skips a test without a compiler, or fails it where everything is
// required.
func needCompiler(t testing.TB, err error) {
	t.Helper()
	switch {
	case err == nil:
	case errors.Is(err, compile.ErrNoCompiler) && os.Getenv("GPUVET_REQUIRE") != "all":
		t.Skipf("needs gcc, which GPUVET_REQUIRE=all insists on: %v", err)
	default:
		t.Fatal(err)
	}
}

// machine is a scripted driver that other processes find through its library.
type machine struct {
	driver    *fake.Driver
	sysfs     string
	addresses []string // of the scenario's GPUs
	env, args []string // of a worker
}

// running is a machine with the newest library. The steps are done before.
func running(t testing.TB, s *fake.Scenario, steps ...fake.Step) machine {
	t.Helper()
	return runningOver(t, s, libraries.current(t), steps...)
}

func runningOver(t testing.TB, s *fake.Scenario, library string, steps ...fake.Step) machine {
	t.Helper()
	m := machine{driver: fake.New(s)}
	for _, g := range s.GPUs {
		m.addresses = append(m.addresses, g.PCI)
	}
	for _, step := range steps {
		if err := m.driver.Apply(step); err != nil {
			t.Fatal(err)
		}
	}
	shown, err := fakelib.New(t.TempDir(), m.driver)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- shown.Run(t.Context()) }()
	t.Cleanup(func() { // the context is over by now
		if err := errors.Join(<-ended, shown.Close()); err != nil {
			t.Error(err)
		}
	})
	m.sysfs, m.env = shown.Sysfs(), shown.Env()
	m.args = []string{"--library", library, "--sysfs", m.sysfs}
	return m
}

// apply makes things happen to a GPU. They show in the library soon.
func (m machine) apply(t testing.TB, gpu int, actions ...fake.Action) {
	t.Helper()
	for _, action := range actions {
		if err := m.driver.Apply(fake.Step{GPU: gpu, Do: action}); err != nil {
			t.Fatal(err)
		}
	}
}

// eventually waits until something is so.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for late := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(late) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// node is a scenario of idle GPUs with nothing happening to them.
func node(t testing.TB, n int) *fake.Scenario {
	t.Helper()
	s, err := fake.Node("h100", n)
	if err != nil {
		t.Fatal(err)
	}
	for i := range s.GPUs {
		s.GPUs[i].Start[fake.Wave] = nvml.Some(0.0)
	}
	return s
}

// cut puts a GPU into MIG mode, cut by profiles.
func cut(gpu int, profiles ...string) fake.Step {
	return fake.Step{GPU: gpu, Do: fake.MIG{Enabled: true, Profiles: profiles}}
}
