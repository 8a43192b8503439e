package state_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gpuvet.dev/internal/state"
)

func TestSavedPayloadIsLoaded(t *testing.T) {
	for name, payload := range map[string]string{
		"json":   `{"seq": 7}`,
		"empty":  "",
		"lines":  "a\nb\n\n",
		"binary": "\x00\xff\n\x01",
	} {
		t.Run(name, func(t *testing.T) {
			dir := open(t, t.TempDir())
			save(t, dir, payload)
			wantLoad(t, dir, payload, state.Current)
		})
	}
}

func TestFirstStartHasNothingToRefuse(t *testing.T) {
	dir := open(t, filepath.Join(t.TempDir(), "var", "lib", "gpuvet"))
	payload, origin, err := dir.Load()
	if err != nil || payload != nil {
		t.Errorf("Load = %q, %v; want nothing", payload, err)
	}
	if diff := cmp.Diff(state.Origin{}, origin); diff != "" {
		t.Errorf("origin (-want +got):\n%s", diff)
	}
}

func TestFolderAndFilesAreForTheOwnerAlone(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "gpuvet")
	save(t, open(t, folder), "x")
	for path, want := range map[string]os.FileMode{"": 0o700, "state": 0o600, "lock": 0o600} {
		info, err := os.Stat(filepath.Join(folder, path))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("mode of %q = %v, want %v", path, got, want)
		}
	}
}

func TestAPersonCanReadAndCheckTheFile(t *testing.T) {
	folder := t.TempDir()
	save(t, open(t, folder), `{"seq":7}`)
	// sha256sum of the nine bytes of the payload
	want := "gpuvet-state 1 9 256471776c47545b389142384a1640e500a2cb8cf7d4e03f860fe1c219398a1e\n" + `{"seq":7}`
	if diff := cmp.Diff(want, content(t, folder, "state")); diff != "" {
		t.Errorf("file (-want +got):\n%s", diff)
	}
}

func TestSecondDaemonIsToldWhoHoldsTheFolder(t *testing.T) {
	folder := t.TempDir()
	first := open(t, folder)
	_, err := state.Open(folder)
	want := &state.LockedError{Dir: folder, PID: os.Getpid()}
	if locked, _ := errors.AsType[*state.LockedError](err); !cmp.Equal(locked, want) {
		t.Fatalf("Open = %v, want %v", err, want)
	}
	if want := fmt.Sprintf("another gpuvet (pid %d) uses %s", os.Getpid(), folder); !strings.HasPrefix(err.Error(), want) {
		t.Errorf("Open = %q, want it to begin with %q", err, want)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	standby, err := state.Open(folder)
	if err != nil {
		t.Fatalf("Open after Close: %v", err)
	}
	_ = standby.Close()
}

func TestShorterPidReplacesALongerOne(t *testing.T) {
	folder := t.TempDir()
	writeFile(t, folder, "lock", "99999999999999")
	open(t, folder)
	if got, want := content(t, folder, "lock"), strconv.Itoa(os.Getpid()); got != want {
		t.Errorf("lock file holds %q, want %q", got, want)
	}
}

func TestUnwritableFolderIsNamed(t *testing.T) {
	t.Run("parent is a file", func(t *testing.T) {
		folder := t.TempDir()
		writeFile(t, folder, "plain", "")
		path := filepath.Join(folder, "plain", "gpuvet")
		wantOpenError(t, path, syscall.ENOTDIR)
	})
	t.Run("read-only", func(t *testing.T) {
		folder := tmpfs(t, syscall.MS_RDONLY)
		wantOpenError(t, folder, syscall.EROFS)
	})
}

func wantOpenError(t *testing.T, folder string, want error) {
	t.Helper()
	_, err := state.Open(folder)
	if !errors.Is(err, want) || !strings.Contains(err.Error(), folder) {
		t.Errorf("Open = %v, want %v naming %s", err, want, folder)
	}
}

func TestDamagedCurrentFallsBackToPrevious(t *testing.T) {
	whole := frame(t, "second")
	for name, damage := range map[string]string{
		"empty":          "",
		"torn header":    whole[:20],
		"torn payload":   whole[:len(whole)-1],
		"longer payload": whole + "x",
		"flipped bit":    strings.Replace(whole, "second", "sekond", 1),
		"flipped magic":  strings.Replace(whole, "gpuvet", "gpuwet", 1),
		"no version":     strings.Replace(whole, "state 1", "state x", 1),
		"version zero":   strings.Replace(whole, "state 1", "state 0", 1),
		"other file":     "{}\n",
		"zeros":          strings.Repeat("\x00", 4096),
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			dir := open(t, folder)
			save(t, dir, "first")
			save(t, dir, "second")
			writeFile(t, folder, "state", damage)

			origin := wantLoad(t, dir, "first", state.Previous)
			if origin.Refused == nil || !strings.Contains(origin.Refused.Error(), filepath.Join(folder, "state")+" is damaged: ") {
				t.Errorf("refused = %v, want the file and what is wrong with it", origin.Refused)
			}
			kept := filepath.Join(folder, "state.damaged-1")
			if diff := cmp.Diff([]string{kept}, origin.Damaged); diff != "" {
				t.Errorf("damaged (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(damage, content(t, folder, "state.damaged-1")); diff != "" {
				t.Errorf("evidence (-want +got):\n%s", diff)
			}

			// The one good file is not replaced by the damaged one.
			save(t, dir, "third")
			wantLoad(t, dir, "third", state.Current)
			if diff := cmp.Diff(frame(t, "first"), content(t, folder, "state.previous")); diff != "" {
				t.Errorf("previous (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTwoDamagedFilesAreKeptAndTheStateStartsAfresh(t *testing.T) {
	folder := t.TempDir()
	dir := open(t, folder)
	writeFile(t, folder, "state", "bad one")
	writeFile(t, folder, "state.previous", "bad two")
	writeFile(t, folder, "state.damaged-2", "bad of old")

	origin := wantLoad(t, dir, "", state.None)
	if origin.Refused == nil || strings.Count(origin.Refused.Error(), "is damaged") != 2 {
		t.Errorf("refused = %v, want both files", origin.Refused)
	}
	save(t, dir, "new life")
	wantLoad(t, dir, "new life", state.Current)
	for name, want := range map[string]string{
		"state.damaged-1": "bad one", "state.damaged-2": "bad of old", "state.damaged-3": "bad two",
	} {
		if diff := cmp.Diff(want, content(t, folder, name)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestNewerStateIsNeitherReadNorReplaced(t *testing.T) {
	newer := strings.Replace(frame(t, "from the future"), "state 1", "state 3", 1)
	for name, files := range map[string]map[string]string{
		"current":         {"state": newer, "state.previous": frame(t, "mine")},
		"current, shape":  {"state": "gpuvet-state 3 zstd\n..."},
		"only previous":   {"state.previous": newer},
		"damaged current": {"state": "bad", "state.previous": newer},
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			for name, text := range files {
				writeFile(t, folder, name, text)
			}
			dir := open(t, folder)
			_, _, err := dir.Load()
			if !errors.Is(err, state.ErrNewer) {
				t.Fatalf("Load = %v, want ErrNewer", err)
			}
			for _, want := range []string{folder, "version 3", "up to 1", "run the newer gpuvet"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("Load = %q, want %q in it", err, want)
				}
			}
			if err := dir.Save([]byte("mine")); !errors.Is(err, state.ErrNewer) {
				t.Errorf("Save = %v, want ErrNewer", err)
			}
			for name, want := range files {
				if diff := cmp.Diff(want, content(t, folder, name)); diff != "" {
					t.Errorf("%s (-want +got):\n%s", name, diff)
				}
			}
		})
	}
}

func TestSaveWithoutLoadKeepsDamagedFiles(t *testing.T) {
	folder := t.TempDir()
	writeFile(t, folder, "state", "bad")
	writeFile(t, folder, "state.previous", frame(t, "good"))
	dir := open(t, folder)
	save(t, dir, "next")
	if got := content(t, folder, "state.damaged-1"); got != "bad" {
		t.Errorf("evidence = %q, want %q", got, "bad")
	}
	if diff := cmp.Diff(frame(t, "good"), content(t, folder, "state.previous")); diff != "" {
		t.Errorf("previous (-want +got):\n%s", diff)
	}
}

func TestLeftoverOfACutSaveIsIgnored(t *testing.T) {
	folder := t.TempDir()
	dir := open(t, folder)
	save(t, dir, "good")
	writeFile(t, folder, "state.new", frame(t, "never finished")+"and longer than the next")
	wantLoad(t, dir, "good", state.Current)
	save(t, dir, "next")
	wantLoad(t, dir, "next", state.Current)
}

func open(t testing.TB, folder string) *state.Dir {
	t.Helper()
	dir, err := state.Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dir.Close() })
	return dir
}

func save(t testing.TB, dir *state.Dir, payload string) {
	t.Helper()
	if err := dir.Save([]byte(payload)); err != nil {
		t.Fatal(err)
	}
}

func wantLoad(t *testing.T, dir *state.Dir, want string, from state.Source) state.Origin {
	t.Helper()
	payload, origin, err := dir.Load()
	if err != nil {
		t.Fatal(err)
	}
	if string(payload) != want || origin.Source != from {
		t.Fatalf("Load = %q from %v (%v), want %q from %v", payload, origin.Source, origin.Refused, want, from)
	}
	return origin
}

// frame is the content of a state file with this payload, as Save writes it.
func frame(t *testing.T, payload string) string {
	t.Helper()
	folder := t.TempDir()
	save(t, open(t, folder), payload)
	return content(t, folder, "state")
}

func content(t *testing.T, folder, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folder, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func writeFile(t *testing.T, folder, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkSave20KB(b *testing.B) {
	dir := open(b, b.TempDir())
	payload := []byte(strings.Repeat("0123456789abcdef", 20<<10/16))
	for b.Loop() {
		if err := dir.Save(payload); err != nil {
			b.Fatal(err)
		}
	}
}
