package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the expected outputs")

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
	}
	flag.Parse()
	// Logs without a zone are taken in that of the machine, and what people see
	// is shown in it.
	time.Local = time.UTC
	os.Exit(m.Run())
}

// outcome is what a command that has ended leaves.
type outcome struct {
	code     int
	out, err string
}

// gpuvet runs a command in this process.
func gpuvet(t *testing.T, stdin string, args ...string) outcome {
	t.Helper()
	var out, errs bytes.Buffer
	code := execute(t.Context(), args, strings.NewReader(stdin), &out, &errs)
	return outcome{code, out.String(), errs.String()}
}

// output is that of a command that must go well.
func output(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	o := gpuvet(t, stdin, args...)
	if o.code != exitDone || o.err != "" {
		t.Fatalf("gpuvet %q: code %d, error output:\n%s", args, o.code, o.err)
	}
	return o.out
}

// golden compares an output with the one that was reviewed.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// file writes a file of the test.
func file(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// need skips the test, or fails it where everything must be there.
func need(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("GPUVET_REQUIRE") == "all" {
		t.Fatal("needed: " + what)
	}
	t.Skip("needs " + what)
}
