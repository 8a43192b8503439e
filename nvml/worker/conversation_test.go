//go:build cgo

package worker_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gpuvet.dev/nvml/wire"
)

// conversation is a worker's process, and the test that talks to it.
type conversation struct {
	t     testing.TB
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines *bufio.Reader
	out   *os.File
	errs  bytes.Buffer
	ended bool
}

// patience is how long a test waits for what happens at once.
const patience = 20 * time.Second

// talk starts a worker and reads its hello. The process ends with the test.
func talk(t testing.TB, env []string, args ...string) *conversation {
	t.Helper()
	c := &conversation{t: t, cmd: exec.Command(workerPath, args...)}
	c.cmd.Env = append(os.Environ(), env...)
	c.cmd.Stderr = &c.errs
	in, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c.in, c.out, c.lines, c.cmd.Stdout = in, out, bufio.NewReaderSize(out, 64<<10), theirs
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	t.Cleanup(func() {
		if !c.ended {
			_ = c.cmd.Process.Kill()
			_ = c.cmd.Wait()
		}
		out.Close()
	})
	var hello wire.Hello
	c.read(&hello)
	if hello.Protocol != wire.Protocol || hello.Version == "" {
		t.Fatalf("hello %+v: want protocol %d and a version", hello, wire.Protocol)
	}
	return c
}

// opened is a conversation over a machine whose library is open.
func opened(t testing.TB, m machine) *conversation {
	t.Helper()
	c := talk(t, m.env, m.args...)
	c.ask(wire.AskOpen, "")
	return c
}

// read reads one line into v.
func (c *conversation) read(v any) {
	c.t.Helper()
	if err := c.out.SetReadDeadline(time.Now().Add(patience)); err != nil {
		c.t.Fatal(err)
	}
	line, err := c.lines.ReadBytes('\n')
	if err != nil {
		c.t.Fatalf("read answer: %v; its errors: %s", err, c.errs.String())
	}
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(v); err != nil {
		c.t.Fatalf("answer %s: %v", line, err)
	}
}

func (c *conversation) write(line string) {
	c.t.Helper()
	if _, err := io.WriteString(c.in, line+"\n"); err != nil {
		c.t.Fatalf("write request: %v", err)
	}
}

// send asks without waiting for an answer.
func (c *conversation) send(ask wire.Ask, gpu string) {
	c.t.Helper()
	line, err := json.Marshal(wire.Request{Ask: ask, GPU: gpu})
	if err != nil {
		c.t.Fatal(err)
	}
	c.write(string(line))
}

func (c *conversation) answer() (a wire.Answer) {
	c.t.Helper()
	c.read(&a)
	return a
}

// ask gives an answer without error.
func (c *conversation) ask(ask wire.Ask, gpu string) wire.Answer {
	c.t.Helper()
	c.send(ask, gpu)
	a := c.answer()
	if a.Error != nil {
		c.t.Fatalf("%s %s: %v", ask, gpu, a.Error.Err())
	}
	return a
}

// refused gives the error of a question that must have one.
func (c *conversation) refused(ask wire.Ask, gpu string) wire.Error {
	c.t.Helper()
	c.send(ask, gpu)
	a := c.answer()
	if a.Error == nil {
		c.t.Fatalf("%s %s: %+v, want an error", ask, gpu, a)
	}
	return *a.Error
}

// fails reports whether a question has no answer.
func (c *conversation) fails(ask wire.Ask, gpu string) bool {
	c.t.Helper()
	c.send(ask, gpu)
	return c.answer().Error != nil
}

// contains reports whether a text has all of the parts.
func contains(text string, parts ...string) bool {
	for _, part := range parts {
		if !strings.Contains(text, part) {
			return false
		}
	}
	return true
}

// end waits for the process to end within some time, and gives its exit code.
func (c *conversation) end(within time.Duration) int {
	c.t.Helper()
	late := time.AfterFunc(within, func() { _ = c.cmd.Process.Kill() })
	err := c.cmd.Wait()
	c.ended = true
	if !late.Stop() {
		c.t.Fatalf("the worker did not end within %s", within)
	}
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		c.t.Fatal(err)
	}
	return c.cmd.ProcessState.ExitCode()
}

// workerPath is the worker, built as it ships.
var workerPath string

func TestMain(m *testing.M) {
	if library := os.Getenv(unguardedLibrary); library != "" {
		callUnguarded(library)
	}
	os.Exit(withWorker(m))
}

func withWorker(m *testing.M) int {
	dir, err := os.MkdirTemp("", "gpuvet-worker")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	workerPath = filepath.Join(dir, "gpuvet-nvml")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -X main.version=v0-test", "-o", workerPath, "../../cmd/gpuvet-nvml")
	if out, err := build.CombinedOutput(); err != nil {
		panic("build gpuvet-nvml: " + err.Error() + "\n" + strings.TrimSpace(string(out)))
	}
	libraries.dir = dir
	return m.Run()
}
