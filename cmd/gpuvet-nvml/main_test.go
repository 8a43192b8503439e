//go:build cgo

package main

import (
	"bytes"
	"debug/elf"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// started runs the command with an input, in this process.
func started(t *testing.T, in string, args ...string) (code int, out, errs string) {
	t.Helper()
	var outs, fails bytes.Buffer
	code = run(args, strings.NewReader(in), &outs, &fails)
	return code, outs.String(), fails.String()
}

func TestHelpTeachesEveryQuestionAndFlag(t *testing.T) {
	code, out, _ := started(t, "", "--help")
	if code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, word := range []string{
		`"open"`, `"list"`, `"describe"`, `"readings"`, `"health"`, `"watch"`, `"events"`,
		"--library", "--sysfs", "--version", "libnvidia-ml.so.1", "/sys",
		"no-driver", "lost", "not-found", "renewed", "other",
		"GPUVET_FAKE_NVML=DIR/script/page", "--sysfs DIR/script/sys",
	} {
		if !strings.Contains(out, word) {
			t.Errorf("help does not tell of %s", word)
		}
	}
	for line := range strings.Lines(out) {
		if len(line) > 83 {
			t.Errorf("line of %d characters: %s", len(line), line)
		}
	}
}

func TestVersionIsOneLine(t *testing.T) {
	code, out, _ := started(t, "", "--version")
	if code != 0 || !regexp.MustCompile(`^gpuvet-nvml \S+ go1\S+ linux/\S+\n$`).MatchString(out) {
		t.Errorf("exit code %d, %q", code, out)
	}
}

func TestBadInputIsToldApart(t *testing.T) {
	for _, args := range [][]string{{"--colour"}, {"open"}} {
		code, out, errs := started(t, "", args...)
		if code != 2 || out != "" || !strings.Contains(errs, strings.TrimLeft(args[0], "-")) || !strings.Contains(errs, "--help") {
			t.Errorf("%q: exit code %d, output %q, errors %q", args, code, out, errs)
		}
	}
}

func TestEmptyPathIsBadInput(t *testing.T) {
	for _, name := range []string{"--library", "--sysfs"} {
		code, out, errs := started(t, "", name, "")
		if code != 2 || out != "" || !strings.Contains(errs, name+` "": expected`) {
			t.Errorf("%s: exit code %d, output %q, errors %q", name, code, out, errs)
		}
	}
}

func TestLibraryThatIsNotThereIsNoDriver(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "libnvidia-ml.so.1")
	code, out, errs := started(t, `{"ask":"open"}`+"\n"+`{"ask":"list"}`+"\n", "--library", missing)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if code != 0 || errs != "" || len(lines) != 3 {
		t.Fatalf("exit code %d, errors %q, answers %q; want a hello and two answers", code, errs, lines)
	}
	for _, line := range lines[1:] {
		if !strings.Contains(line, `"kind":"no-driver"`) || !strings.Contains(line, missing) {
			t.Errorf("%s: want no-driver, with the path", line)
		}
	}
}

// What it imports, it holds in memory on every GPU node once per GPU that hangs.
func TestBinaryIsSmall(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for path := range strings.Lines(string(out)) {
		path = strings.TrimSpace(path)
		first, _, _ := strings.Cut(path, "/")
		known := !strings.Contains(first, ".") || strings.HasPrefix(path, "gpuvet.dev/") || strings.HasPrefix(path, "github.com/NVIDIA/go-nvml/")
		if !known || first == "net" || strings.HasPrefix(path, "crypto/tls") {
			t.Errorf("it depends on %s", path)
		}
	}
}

// The driver library is loaded at run time: a binary that binds all its symbols
// as it starts ends before main.
func TestSymbolsAreBoundLazily(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gpuvet-nvml")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	binary, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer binary.Close()
	for _, tag := range []struct {
		tag elf.DynTag
		bit uint64
	}{{elf.DT_FLAGS, uint64(elf.DF_BIND_NOW)}, {elf.DT_FLAGS_1, uint64(elf.DF_1_NOW)}} {
		values, err := binary.DynValue(tag.tag)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range values {
			if v&tag.bit != 0 {
				t.Errorf("%s is %#x: symbols are bound at once", tag.tag, v)
			}
		}
	}
	libraries, err := binary.ImportedLibraries()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range libraries {
		if strings.Contains(l, "nvidia") {
			t.Errorf("it is linked against %s", l)
		}
	}
	if started, err := exec.CommandContext(t.Context(), path, "--version").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, started)
	}
}
