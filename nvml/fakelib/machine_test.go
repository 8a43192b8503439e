package fakelib_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gpuvet.dev/nvml/fake"
	"gpuvet.dev/nvml/fakelib"
	"gpuvet.dev/nvml/fakelib/compile"
)

const still = "start: {wave: 0, temperature: 58, power: 600, utilization: 0.9, memoryUtilization: 0.5, memoryUsed: 62Gi}\n"

const two = "gpus: {count: 2, profile: h100}\n" + still

func TestPageHasOneLayoutInGoAndC(t *testing.T) {
	library(t)
	var program, want strings.Builder
	program.WriteString("#include <stddef.h>\n#include <stdio.h>\n#include \"page.h\"\nint main(void)\n{\n")
	line := func(name string, size, offset uintptr, c string) {
		fmt.Fprintf(&want, "%s %d %d\n", name, size, offset)
		fmt.Fprintf(&program, "\tprintf(\"%s %%zu %%zu\\n\", %s);\n", name, c)
	}
	for name, goType := range fakelib.PageTypes() {
		line(name, goType.Size(), 0, fmt.Sprintf("sizeof(struct %s), (size_t)0", name))
		for _, field := range reflect.VisibleFields(goType) {
			if field.Anonymous {
				continue
			}
			c := field.Tag.Get("c")
			line(name+"."+c, field.Type.Size(), field.Offset, fmt.Sprintf("sizeof(((struct %s *)0)->%s), offsetof(struct %s, %s)", name, c, name, c))
		}
	}
	program.WriteString("\treturn 0;\n}\n")
	folder := t.TempDir()
	if err := os.CopyFS(folder, compile.Sources()); err != nil {
		t.Fatal(err)
	}
	source, binary := filepath.Join(folder, "layout.test.c"), filepath.Join(folder, "layout")
	if err := os.WriteFile(source, []byte(program.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if said, err := exec.CommandContext(t.Context(), "gcc", "-I", folder, source, "-o", binary).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	got, err := exec.CommandContext(t.Context(), binary).Output()
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want.String() {
		g, w := strings.Split(string(got), "\n"), strings.Split(want.String(), "\n")
		for i := range min(len(g), len(w)) {
			if g[i] != w[i] {
				t.Errorf("C has %s, Go has %s", g[i], w[i])
			}
		}
	}
}

func TestLibraryTellsWhatTheDriverDoes(t *testing.T) {
	p := start(t, two).probe(t)
	p.want(
		"init", "0", "version", "0 570.195.03", "count", "0 2", "index 1", "0",
		"name", "0 NVIDIA H100 80GB HBM3", "address", "0 00000000:2A:00.0 233010de",
		"temperature", "0 58", "temperatureV", "0 58", "power", "0 600000", "utilization", "0 90 50", "clock 2", "0 2619",
		"memory", fmt.Sprintf("0 %d %d %d %d", 81559<<20, 62<<30, 551<<20, 81559<<20-62<<30-551<<20),
		"ecc 1 2", "0 0", "ecc 1 0", "3 0", "rows", "0 0 0 0 0", "retired 0", "3 0", "pcie", "0 5 16",
		"field 230", "0 0 1 0", "field 91", "0 0 1 18", "field 165 3", "0 0 1 1", "field 165 18", "0 2 0 0", "field 999", "0 2 0 0",
		"link 3", "0 1", "link 18", "2 0", "fabric", "0 3 0 0xaa 1", "reasons", "0 0", "mode", "0 0",
		"excluded", "0 0", "unwritten", "3", "supported", "0 0xff9f",
	)
}

func TestStepShowsInTheLibrary(t *testing.T) {
	m := start(t, two)
	p := m.probe(t)
	p.want("init", "0", "index 0", "0")
	m.apply(t,
		"gpu: 0, ecc: {uncorrected: 2}", "gpu: 0, ecc: {corrected: 3, location: sram}", "gpu: 0, rowsRemapped: {uncorrectable: 1}",
		"gpu: 0, remapPending: true", "gpu: 0, recovery: gpu-reset", "gpu: 0, set: {temperature: null, memoryUsed: null}",
		"gpu: 0, throttle: [hw-thermal]", "gpu: 0, pcie: {generation: 3}", "gpu: 0, nvlink: {link: 2, state: inactive, replays: 5}",
		"gpu: 0, fabric: {state: in-progress, unhealthy: [degraded-bandwidth]}", "gpu: 0, retiredPages: {uncorrected: 2}",
		"gpu: 0, processes: [{pid: 7, name: a, memory: 1Gi, utilization: 0.5}, {pid: 8, memory: null}]",
		"gpu: 0, fields: [{id: 82, value: 4294967295, type: uint}, {id: 91, error: unknown}, {id: 165, scope: 7, value: 0, type: uint}]",
	)
	p.want(
		"ecc 1 2", "0 2", "ecc 0 7", "0 3", "field 4", "0 0 3 2", "rows", "0 0 1 1 0", "field 230", "0 0 1 1",
		"temperature", "3 0", "memory", "3 0 0 0 0", "reasons", "0 0x40", "pcie", "0 3 16", "link 2", "0 0", "link 3", "0 1",
		"fabric", "0 2 0 0xa9 2", "retired 1", "7 2",
		"processes", "0 2 7:40000000:ffffffff 8:ffffffffffffffff:ffffffff", "utilizations", "0 7 50",
		"field 82", "0 0 1 4294967295", "field 91", "0 999 3 0", "field 165 7", "0 0 1 0", "field 165 6", "0 0 1 1", "field 161 2", "0 0 3 5",
	)
	time.Sleep(50 * time.Millisecond)
	if got := p.ask("field 270"); got == "0 0 3 0" {
		t.Error("no time was spent with the clocks held down")
	}
	m.apply(t, "gpu: 0, fields: [{id: 91, value: null}]")
	p.want("field 91", "0 0 1 18")
}

func TestAbsentValuesCanBeSentinels(t *testing.T) {
	m := start(t, "driver: {absence: sentinel}\n"+two)
	p := m.probe(t)
	p.want("init", "0", "index 0", "0")
	m.apply(t, "gpu: 0, set: {temperature: null, utilization: null}", "gpu: 0, metrics: {5: null}")
	p.want("temperature", "0 4294967295", "utilization", "0 4294967295 50", "metrics 5 10", "0 0 nan 0 50.0")
}

func TestModelsDifferAsTheyDo(t *testing.T) {
	for profile, want := range map[string][]string{
		"l40s": {"field 82", "0 3 1 0", "field 91", "0 0 1 0", "link 0", "3 0", "mode", "3 0", "rows", "0 0 0 0 0", "field 165 0", "0 3 0 0", "fabric", "3 0 0 0 0"},
		"a100": {"field 91", "0 0 1 12", "fabric", "3 0 0 0 0", "mode", "0 0", "metrics 1 2", "3 0 0.0 0 0.0"},
		"b200": {"field 91", "0 0 1 18", "field 164", "0 0 1 53125", "field 208 1", "0 0 3 0"},
		"h200": {"field 208 1", "0 3 0 0", "name", "0 NVIDIA H200"},
	} {
		t.Run(profile, func(t *testing.T) {
			p := start(t, "gpus: {count: 8, profile: "+profile+"}").probe(t)
			p.want(append([]string{"init", "0", "count", "0 8", "index 7", "0"}, want...)...)
		})
	}
}

func TestRecentPastIsKept(t *testing.T) {
	m := start(t, two)
	p := m.probe(t)
	p.want("init", "0", "index 0", "0")
	time.Sleep(200 * time.Millisecond)
	m.apply(t, "gpu: 0, metrics: {20: 1234}")
	p.want("samples 0", "0 1 600000", "samples 1", "0 1 90", "samples 3", "3 1 0", "metrics 1 20", "0 0 90.0 0 1234.0", "metrics 10 400", "0 0 50.0 3 nan")
}

func TestLostGPUIsLostToEveryCall(t *testing.T) {
	m := start(t, two)
	p := m.probe(t)
	p.want("init", "0", "index 1", "0", "set", "0", "register 0x8", "0")
	m.apply(t, "gpu: 1, lost: true", "gpu: 1, xid: 79")
	p.want("temperature", "15 0", "name", "15", "index 1", "15", "pci 0000:2a:00.0", "15", "count", "0 2")
	if got := p.ask("wait 5000"); !strings.HasPrefix(got, "0 0x8 79 ") {
		t.Errorf("%q, want the Xid first", got)
	}
	p.want("wait 5000", "15 0 0 0 0", "index 0", "0", "temperature", "0 58")
	m.apply(t, "gpu: 1, lost: false")
	p.want("index 1", "0", "temperature", "0 58", "wait 0", "10 0 0 0 0")
}

func TestMissingGPUIsNotFound(t *testing.T) {
	m := start(t, two)
	p := m.probe(t)
	p.want("init", "0", "systemset", "0", "index 0", "0")
	m.apply(t, "gpu: 0, missing: true")
	p.want("count", "0 1", "temperature", "15 0", "pci 0000:18:00.0", "6", "index 0", "0", "address", "0 00000000:2A:00.0 233010de", "index 1", "2")
	if got := present(t, m, "bus/pci/devices"); !slices.Equal(got, []string{"0000:2a:00.0"}) {
		t.Errorf("devices %v, want the other one", got)
	}
	if got := present(t, m, "bus/pci/drivers/nvidia"); !slices.Equal(got, []string{"0000:2a:00.0"}) {
		t.Errorf("devices of the driver %v, want the other one", got)
	}
	m.apply(t, "gpu: 0, missing: false")
	p.want("count", "0 2", "pci 00000000:18:00.0", "0", "temperature", "0 58")
}

func TestHungGPUHangsItsCallsAlone(t *testing.T) {
	m := start(t, two)
	p, other := m.probe(t), m.probe(t)
	p.want("init", "0", "index 0", "0")
	other.want("init", "0")
	m.apply(t, "gpu: 0, hang: 1h")
	p.begin("temperature")
	p.hangs()
	other.want("count", "0 2", "pci 0000:2a:00.0", "0", "temperature", "0 58")
	uuid := m.driver.State().GPUs[1].UUID
	other.begin("uuid " + uuid) // a search touches those before it
	other.hangs()
	third := m.probe(t)
	third.want("init", "0")
	third.begin("index 0")
	third.hangs()
	m.apply(t, "gpu: 0, hang: 0s")
	for _, waiting := range []*probe{p, other, third} {
		if got := waiting.answer(5 * time.Second); !strings.HasPrefix(got, "0") {
			t.Errorf("after the hang: %q", got)
		}
	}
}

func TestHangOfAllHangsTheBeginToo(t *testing.T) {
	m := start(t, two)
	p, late := m.probe(t), m.probe(t)
	p.want("init", "0")
	m.apply(t, "gpu: all, hang: 1h")
	p.begin("count")
	late.begin("init")
	p.hangs()
	late.hangs()
	m.apply(t, "gpu: all, hang: 0s")
	for _, waiting := range []*probe{p, late} {
		if got := waiting.answer(5 * time.Second); !strings.HasPrefix(got, "0") {
			t.Errorf("after the hang: %q", got)
		}
	}
}

func TestHangThatCannotBeInterruptedWritesFirst(t *testing.T) {
	m := start(t, two)
	pipe := filepath.Join(t.TempDir(), "stuck")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	p := m.probe(t, "GPUVET_FAKE_NVML_STUCK="+pipe)
	p.want("init", "0", "index 0", "0")
	m.apply(t, "gpu: 0, hang: 1h, uninterruptible: true")
	p.begin("temperature")
	reader, err := os.Open(pipe) // waits until the library opens it to write
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if n, err := reader.Read(make([]byte, 1)); n != 1 {
		t.Errorf("read %d bytes: %v", n, err)
	}
	p.hangs()
	m.apply(t, "gpu: 0, hang: 0s")
	if got := p.answer(5 * time.Second); got != "0 58" {
		t.Errorf("after the hang: %q", got)
	}
}

func TestCallsFailAndAreSlowAsScripted(t *testing.T) {
	m := start(t, two)
	p := m.probe(t)
	p.want("init", "0", "index 0", "0")
	m.apply(t, "gpu: 0, fail: reset-required", "init: no-permission", "latency: {readings: 80ms}")
	began := time.Now()
	p.want("temperature", "16 0", "index 0", "16", "name", "16", "index 1", "0")
	if took := time.Since(began); took < 80*time.Millisecond {
		t.Errorf("a call took %s, want 80 ms at least", took)
	}
	late := m.probe(t)
	late.want("init", "4", "count", "1 0")
	m.apply(t, "gpu: 0, fail: none", "init: none")
	p.want("index 0", "0", "temperature", "0 58")
	late.want("init", "0")
}

func TestHandlesAreGoodForOneLoadingOfTheDriver(t *testing.T) {
	m := start(t, two)
	p := m.probe(t)
	p.want("init", "0", "index 0", "0", "set", "0", "register 0x8", "0", "systemset", "0")
	p.begin("wait 60000")
	m.apply(t, "gpu: 0, lost: true", "driver: absent")
	p.answer(5 * time.Second) // lost, or gone
	p.want("count", "1 0", "temperature", "1 0", "wait 0", "1 0 0 0 0", "init", "9", "systemwait 0", "0 2 1 0x1800", "systemwait 0", "1 0 0 0")
	m.apply(t, "driver: present")
	p.want("count", "1 0", "init", "0", "count", "0 2", "temperature", "2 0", "index 0", "0", "temperature", "0 58")
}

func TestLibraryOfAnotherVersionCannotBegin(t *testing.T) {
	m := start(t, two)
	old := m.probe(t)
	old.want("init", "0")
	m.apply(t, "reload: driver, version: \"575.57.08\"")
	old.want("count", "1 0", "init", "18")
	fresh := m.probe(t)
	fresh.want("init", "0", "version", "0 575.57.08")
	m.apply(t, "library: \"580.95.05\"")
	fresh.want("count", "0 2")
	upgraded := m.probe(t)
	upgraded.want("init", "18")
}

func TestOldLibraryEndsItsUserAtALaterFunction(t *testing.T) {
	library(t)
	folder := t.TempDir()
	if err := compile.Library(t.Context(), filepath.Join(folder, "libnvidia-ml.so.1"), compile.Options{Old: true}); err != nil {
		t.Fatal(err)
	}
	p := start(t, "driver: {version: \"450.80.02\", cuda: \"11.0\"}\n"+two).probe(t, "LD_LIBRARY_PATH="+folder)
	p.want("init", "0", "index 0", "0", "temperature", "0 58", "field 82", "0 0 1 39", "field 230", "0 2 0 0")
	p.begin("temperatureV")
	if line, ok := <-p.out; ok {
		t.Fatalf("an answer: %s", line)
	}
	if err := p.command.Wait(); err == nil || p.command.ProcessState.ExitCode() != 127 {
		t.Errorf("ended with %v, want exit code 127", err)
	}
}

func TestAMachineNeedsAFolderOfItsOwn(t *testing.T) {
	s, err := fake.Node("h100", 1)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	first, err := fakelib.New(folder, fake.New(s))
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if _, err := fakelib.New(folder, fake.New(s)); err == nil || !strings.HasPrefix(err.Error(), "make a scripted machine in "+folder) {
		t.Errorf("a second machine in one folder: %v", err)
	}
}

func TestWithoutAPageThereIsNoDriver(t *testing.T) {
	p := machine{Machine: &fakelib.Machine{}}.probe(t, "GPUVET_FAKE_NVML=/nonexistent")
	p.want("init", "9", "count", "1 0")
}

func TestMIGDevicesAreShown(t *testing.T) {
	m := start(t, "gpus: [{profile: h100, mig: [3g.40gb, 1c.2g.20gb, 1c.2g.20gb]}, {profile: h100}]\n"+still)
	p := m.probe(t)
	p.want(
		"init", "0", "index 0", "0", "mode", "0 1",
		"instances", "0 [MIG 3g.40gb MIG- 1/0 3of3 40448] [MIG 1c.2g.20gb MIG- 5/0 1of2 20096] [MIG 1c.2g.20gb MIG- 5/1 1of2 20096]",
		"rows", "3 0 0 0 0", "utilization", "3 0 0", "temperature", "0 58",
		"uuid "+m.driver.State().GPUs[0].Instances[0].UUID, "0", "name", "0 NVIDIA H100 80GB HBM3 MIG 3g.40gb", "temperature", "3 0",
		"index 1", "0", "instances", "0", "mode", "0 0",
	)
	m.apply(t, "gpu: 1, mig: [7g.80gb]", "gpu: 0, mig: disabled")
	p.want("instances", "0 [MIG 7g.80gb MIG- 0/0 7of7 81152]", "index 0", "0", "instances", "0", "rows", "0 0 0 0 0")
}

func TestExcludedGPUIsTold(t *testing.T) {
	p := start(t, "driver: {excluded: [{pci: \"0000:5e:00.0\", uuid: GPU-01234567-89ab-cdef-0123-456789abcdef}]}\n"+two).probe(t)
	p.want("init", "0", "excluded", "0 1 00000000:5E:00.0 GPU-01234567-89ab-cdef-0123-456789abcdef")
}

func TestEachLoadingHasAnInodeOfItsOwn(t *testing.T) {
	m := start(t, two)
	module := filepath.Join(m.Sysfs(), "module", "nvidia")
	seen := map[uint64]bool{}
	for range 5 {
		var st unix.Stat_t
		if err := unix.Stat(module, &st); err != nil {
			t.Fatal(err)
		}
		if seen[st.Ino] {
			t.Fatalf("inode %d was there before", st.Ino)
		}
		seen[st.Ino] = true
		m.apply(t, "driver: absent")
		for _, gone := range []string{module, filepath.Join(m.Sysfs(), "bus/pci/drivers/nvidia")} {
			if _, err := os.Stat(gone); !os.IsNotExist(err) {
				t.Errorf("%s without driver: %v", gone, err)
			}
		}
		if got := present(t, m, "bus/pci/devices"); len(got) != 2 {
			t.Errorf("devices without driver: %v, want both", got)
		}
		m.apply(t, "driver: present")
	}
	class, err := os.ReadFile(filepath.Join(m.Sysfs(), "bus/pci/drivers/nvidia/0000:18:00.0/class"))
	if err != nil || string(class) != "0x030200\n" {
		t.Errorf("class %q, %v", class, err)
	}
}

// present lists a folder of the tree.
func present(t *testing.T, m machine, folder string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(m.Sysfs(), folder))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
