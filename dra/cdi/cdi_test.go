package cdi_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	runtime "tags.cncf.io/container-device-interface/pkg/cdi"

	"gpuvet.dev/dra/cdi"
)

const (
	claim   = "0e8a2f5d-41a0-4a3c-9d5c-2f6c1d6b7a10"
	another = "d3c6a1b2-77f0-4d62-8d0e-5a1f8f0f9b21"
)

// gpu is the GPU with a minor number, which here is its bus number too.
func gpu(n int) cdi.Device {
	return cdi.Device{Name: fmt.Sprintf("gpu-0000-%02x-00-0", n), UUID: fmt.Sprintf("GPU-%d", n), Minor: n}
}

func newSpecs(t testing.TB, o cdi.Options) *cdi.Specs {
	t.Helper()
	s, err := cdi.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// write gives the IDs of all devices in order.
func write(t testing.TB, s *cdi.Specs, claim string, devices []cdi.Device) []string {
	t.Helper()
	ids, err := s.Write(claim, devices, "")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, d := range devices {
		all = append(all, ids[d.Name]...)
	}
	return all
}

// inject does to the container of an image what a runtime does.
func inject(dirs []string, ids ...string) (*oci.Spec, error) {
	cache, err := runtime.NewCache(runtime.WithAutoRefresh(false), runtime.WithSpecDirs(dirs...))
	if err != nil {
		return nil, err
	}
	container := &oci.Spec{Process: &oci.Process{Env: []string{"LD_LIBRARY_PATH=/opt/app", "NVIDIA_VISIBLE_DEVICES=all"}}}
	_, err = cache.InjectDevices(container, ids...)
	return container, err
}

// environment is what a container of these devices sees, in order.
func environment(t *testing.T, dirs []string, ids ...string) []string {
	t.Helper()
	container, err := inject(dirs, ids...)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Sorted(slices.Values(container.Process.Env))
}

func TestContainerSeesItsDevicesInItsEnvironment(t *testing.T) {
	dir := t.TempDir()
	s := newSpecs(t, cdi.Options{Mode: cdi.None, Dir: dir})
	ids, err := s.Write(claim, []cdi.Device{gpu(0x3b), {Name: "gpu-0000-3c-00-0-mig-1g-10gb-0", UUID: "MIG-1"}}, "a note")
	if err != nil {
		t.Fatal(err)
	}
	first := "gpu.gpuvet.dev/claim=" + claim + "-gpu-0000-3b-00-0"
	second := "gpu.gpuvet.dev/claim=" + claim + "-gpu-0000-3c-00-0-mig-1g-10gb-0"
	want := map[string][]string{"gpu-0000-3b-00-0": {first}, "gpu-0000-3c-00-0-mig-1g-10gb-0": {second}}
	if diff := cmp.Diff(want, ids); diff != "" {
		t.Errorf("IDs (-want +got):\n%s", diff)
	}

	both := []string{
		"GPUVET_DEVICE_GPU_0000_3B_00_0=GPU-59",
		"GPUVET_DEVICE_GPU_0000_3C_00_0_MIG_1G_10GB_0=MIG-1",
		"GPUVET_GPU_UUIDS=GPU-59,MIG-1",
		"LD_LIBRARY_PATH=/opt/app",
		"NVIDIA_VISIBLE_DEVICES=void",
	}
	if diff := cmp.Diff(both, environment(t, []string{dir}, first, second)); diff != "" {
		t.Errorf("with both (-want +got):\n%s", diff)
	}
	// A container of the pod may ask for one request of the claim.
	if diff := cmp.Diff(slices.Delete(both, 0, 1), environment(t, []string{dir}, second)); diff != "" {
		t.Errorf("with the second alone (-want +got):\n%s", diff)
	}
}

func TestNoteIsKeptWithTheSpec(t *testing.T) {
	s := newSpecs(t, cdi.Options{Mode: cdi.None, Dir: t.TempDir()})
	for _, note := range []string{`{"name": "train"}`, ""} {
		if _, err := s.Write(claim, []cdi.Device{gpu(1)}, note); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Note(claim); err != nil || got != note {
			t.Errorf("Note = %q, %v, want %q", got, err, note)
		}
	}
	if got, err := s.Note(another); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Note of a claim without a spec = %q, %v", got, err)
	}
}

func TestOneClaimHidesNoDeviceOfAnother(t *testing.T) {
	dir := t.TempDir()
	s := newSpecs(t, cdi.Options{Mode: cdi.None, Dir: dir})
	ids := slices.Concat(
		write(t, s, claim, []cdi.Device{gpu(1), gpu(2)}),
		write(t, s, another, []cdi.Device{gpu(3)}))
	var got []string
	for _, v := range environment(t, []string{dir}, ids...) {
		if strings.HasPrefix(v, "GPUVET_DEVICE_") {
			got = append(got, v)
		}
	}
	want := []string{
		"GPUVET_DEVICE_GPU_0000_01_00_0=GPU-1",
		"GPUVET_DEVICE_GPU_0000_02_00_0=GPU-2",
		"GPUVET_DEVICE_GPU_0000_03_00_0=GPU-3",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
}

func TestSecondWriteOfAClaimReplacesTheFirst(t *testing.T) {
	dir := t.TempDir()
	s := newSpecs(t, cdi.Options{Mode: cdi.None, Dir: dir})
	first := write(t, s, claim, []cdi.Device{gpu(1)})
	if diff := cmp.Diff(first, write(t, s, claim, []cdi.Device{gpu(1)})); diff != "" {
		t.Errorf("IDs of the same devices (-first +second):\n%s", diff)
	}
	write(t, s, claim, []cdi.Device{gpu(2)})
	if _, err := inject([]string{dir}, first...); err == nil {
		t.Error("a device that the claim has no more can still be injected")
	}
	want(t, dir, "gpu.gpuvet.dev-claim_"+claim+".json")
}

func TestDeviceOfTwoRequestsIsThereOnce(t *testing.T) {
	dir := t.TempDir()
	s := newSpecs(t, cdi.Options{Mode: cdi.None, Dir: dir})
	ids := write(t, s, claim, []cdi.Device{gpu(1), gpu(1)})
	if env := environment(t, []string{dir}, ids...); !slices.Contains(env, "GPUVET_GPU_UUIDS=GPU-1") {
		t.Errorf("environment is %q", env)
	}
}

func TestRemovedClaimsAreGone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cdi") // made when it is needed
	s := newSpecs(t, cdi.Options{Mode: cdi.None, Dir: dir})
	wantClaims(t, s)
	if err := s.Remove(claim); err != nil {
		t.Errorf("Remove of a claim without a spec: %v", err)
	}

	write(t, s, claim, []cdi.Device{gpu(1)})
	write(t, s, another, []cdi.Device{gpu(2)})
	foreign := filepath.Join(dir, "nvidia.yaml")
	if err := os.WriteFile(foreign, []byte("cdiVersion: 0.5.0\nkind: nvidia.com/gpu\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantClaims(t, s, claim, another)
	if err := s.Remove(claim); err != nil {
		t.Fatal(err)
	}
	wantClaims(t, s, another)
	want(t, dir, "gpu.gpuvet.dev-claim_"+another+".json", "nvidia.yaml")
}

func TestRemoveDoesNotWaitForWhoLooksAtTheNode(t *testing.T) {
	dir := t.TempDir()
	write(t, newSpecs(t, cdi.Options{Mode: cdi.None, Dir: dir}), claim, []cdi.Device{gpu(0)})
	asked, answer := make(chan struct{}), make(chan struct{})
	s := newSpecs(t, cdi.Options{Mode: cdi.Minimal, Dir: dir, Driver: func() (cdi.Driver, error) {
		close(asked)
		<-answer // a file system that hangs
		return cdi.Driver{}, errors.New("no driver")
	}})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(answer)
	wg.Go(func() { _ = s.Ready(gpu(0)) })
	<-asked
	removed := make(chan error, 1)
	wg.Go(func() { removed <- s.Remove(claim) })
	select {
	case err := <-removed:
		if err != nil {
			t.Fatal(err)
		}
		wantClaims(t, s)
	case <-time.After(10 * time.Second):
		t.Error("a pod cannot end while a driver is looked for")
	}
}

func TestSpecThatNoRuntimeWouldReadIsNotWritten(t *testing.T) {
	for name, write := range map[string]func(*cdi.Specs) error{
		"claim that is a path":       func(s *cdi.Specs) error { _, err := s.Write("../x", []cdi.Device{gpu(1)}, ""); return err },
		"claim without devices":      func(s *cdi.Specs) error { _, err := s.Write(claim, nil, ""); return err },
		"device name with a newline": func(s *cdi.Specs) error { _, err := s.Write(claim, []cdi.Device{{Name: "gpu\n0"}}, ""); return err },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "cdi")
			if err := write(newSpecs(t, cdi.Options{Mode: cdi.None, Dir: dir})); err == nil {
				t.Error("Write gave no error")
			}
			want(t, dir)
			want(t, filepath.Dir(dir), "cdi")
		})
	}
}

func TestFullDiskKeepsTheOldSpec(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		needs(t, "the right to mount a small file system", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	s := newSpecs(t, cdi.Options{Mode: cdi.None, Dir: dir})
	ids := write(t, s, claim, []cdi.Device{gpu(1)})

	_, err := s.Write(claim, []cdi.Device{gpu(2)}, strings.Repeat("x", 128<<10))
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), claim) {
		t.Errorf("Write = %v, want no space left, naming the claim", err)
	}
	environment(t, []string{dir}, ids...)
	want(t, dir, "gpu.gpuvet.dev-claim_"+claim+".json")
}

// Who restores what is missing goes by the list.
func TestFailedWriteLeavesNothingUnfinished(t *testing.T) {
	dir := t.TempDir()
	s := newSpecs(t, cdi.Options{Mode: cdi.Minimal, Dir: dir, Driver: func() (cdi.Driver, error) { return cdi.Driver{}, errors.New("no driver") }})
	if err := os.WriteFile(filepath.Join(dir, "gpu.gpuvet.dev-claim_"+claim+".json.new"), []byte("{"), 0o600); err != nil {
		t.Fatal(err) // of one that was killed
	}
	if _, err := s.Write(claim, []cdi.Device{gpu(1)}, ""); err == nil {
		t.Error("Write gave no error")
	}
	wantClaims(t, s)
}

func TestOptionsThatCannotWorkAreRefused(t *testing.T) {
	for _, c := range []struct {
		o    cdi.Options
		want string
	}{
		{cdi.Options{Mode: "nvcdi"}, `CDI mode "nvcdi" is none of delegate, minimal and none`},
		{cdi.Options{Mode: cdi.Delegate, Kind: "gpu"}, `CDI kind "gpu" is not VENDOR/CLASS`},
		{cdi.Options{Mode: cdi.Minimal}, `CDI mode "minimal" needs to know the driver`},
	} {
		if _, err := cdi.New(c.o); err == nil || err.Error() != c.want {
			t.Errorf("New(%+v) = %v, want %s", c.o, err, c.want)
		}
	}
}

// want says what files a folder has.
func want(t *testing.T, dir string, files ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if diff := cmp.Diff(files, got); diff != "" {
		t.Errorf("files in %s (-want +got):\n%s", dir, diff)
	}
}

func wantClaims(t *testing.T, s *cdi.Specs, claims ...string) {
	t.Helper()
	got, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(claims, got); diff != "" {
		t.Errorf("claims (-want +got):\n%s", diff)
	}
}

// needs skips a test for what is missing here.
func needs(t testing.TB, what string, err error) {
	t.Helper()
	if os.Getenv("GPUVET_REQUIRE") == "all" {
		t.Fatalf("needs %s, which GPUVET_REQUIRE=all insists on: %v", what, err)
	}
	t.Skipf("needs %s: %v", what, err)
}
