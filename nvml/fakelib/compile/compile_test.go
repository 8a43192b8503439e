package compile_test

import (
	"debug/elf"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gpuvet.dev/nvml/fakelib/compile"
)

// exported compiles a library and lists what it exports.
func exported(t *testing.T, o compile.Options) []string {
	t.Helper()
	if _, err := exec.LookPath("gcc"); err != nil {
		if os.Getenv("GPUVET_REQUIRE") == "all" {
			t.Fatal(err)
		}
		t.Skipf("needs gcc, which GPUVET_REQUIRE=all insists on: %v", err)
	}
	out := filepath.Join(t.TempDir(), "libnvidia-ml.so.1")
	if err := compile.Library(t.Context(), out, o); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(filepath.Dir(out)); err != nil || len(entries) != 1 {
		t.Errorf("left behind %v, %v: want the library alone", entries, err)
	}
	library, err := elf.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer library.Close()
	symbols, err := library.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range symbols {
		if s.Section != elf.SHN_UNDEF {
			names = append(names, s.Name)
		}
	}
	slices.Sort(names)
	return names
}

func TestLibraryExportsAllThatTheHeaderDeclares(t *testing.T) {
	got := exported(t, compile.Options{})
	include, err := compile.Include(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want, err := compile.Declared(include)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("exported (-declared +exported):\n%s", diff)
	}
	// Names from before functions had versions, which go-nvml looks for.
	for _, name := range []string{"nvmlInit", "nvmlDeviceGetPciInfo", "nvmlEventSetWait", "nvmlDeviceGetComputeRunningProcesses_v2"} {
		if !slices.Contains(got, name) {
			t.Errorf("%s is not exported", name)
		}
	}
}

func TestOldLibraryLacksWhatCameLater(t *testing.T) {
	got := exported(t, compile.Options{Old: true})
	for name, want := range map[string]bool{
		"nvmlInit_v2": true, "nvmlDeviceGetFieldValues": true, "nvmlDeviceGetRemappedRows": true, "nvmlEventSetWait_v2": true,
		"nvmlDeviceGetMigDeviceHandleByIndex": true, "nvmlGetBlacklistDeviceCount": true,
		"nvmlDeviceGetMemoryInfo_v2": false, "nvmlDeviceGetTemperatureV": false, "nvmlGpmSampleGet": false, "nvmlEventSetWait_v3": false,
		"nvmlDeviceGetComputeRunningProcesses_v3": false, "nvmlDeviceGetGpuFabricInfoV": false, "nvmlGetExcludedDeviceCount": false,
	} {
		if slices.Contains(got, name) != want {
			t.Errorf("%s is exported: %t, want %t", name, !want, want)
		}
	}
}

func TestFunctionsCanBeLeftOut(t *testing.T) {
	all := exported(t, compile.Options{})
	got := exported(t, compile.Options{Without: []string{"nvmlDeviceGetTemperatureV", "nvmlDeviceSetFanSpeed_v2"}})
	if len(got) != len(all)-2 || slices.Contains(got, "nvmlDeviceGetTemperatureV") || slices.Contains(got, "nvmlDeviceSetFanSpeed_v2") {
		t.Errorf("%d of %d functions are exported, want two fewer", len(got), len(all))
	}
	err := compile.Library(t.Context(), filepath.Join(t.TempDir(), "lib"), compile.Options{Without: []string{"nvmlNope"}})
	if err == nil || err.Error() != "compile lib: leave out nvmlNope: the library has no such function" {
		t.Errorf("a function that there is not: %v", err)
	}
}

func TestMissingCompilerIsSaid(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	err := compile.Library(t.Context(), filepath.Join(t.TempDir(), "lib"), compile.Options{})
	if !errors.Is(err, compile.ErrNoCompiler) || !strings.HasPrefix(err.Error(), "compile lib: no C compiler: expected gcc") {
		t.Errorf("got %v", err)
	}
}
