package node

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The same with a real process, disk and SIGKILL: one Event for the fault and
// one for its end, one taint, and none when it is over.
func TestKilledDaemonGoesOnWhereItStopped(t *testing.T) {
	t.Parallel()
	noder := filepath.Join(t.TempDir(), "noder")
	build := exec.Command("go", "build", "-tags", "faultpoints", "-o", noder, "./testdata/noder")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", build, err, out)
	}
	for _, c := range []struct{ during, point string }{
		{"fault", "taint-intended"},
		{"fault", "taint-patched"},
		{"fault", "taint-applied"},
		{"fault", "condition-patched"},
		{"fault", "event-created"},
		{"repair", "taint-patched"},
		{"repair", "condition-patched"},
		{"repair", "event-created"},
	} {
		t.Run(c.during+" "+c.point, func(t *testing.T) {
			t.Parallel()
			a := newAPI()
			server := httptest.NewServer(a)
			defer server.Close()
			defer server.CloseClientConnections()
			folder := t.TempDir()
			run := func(what, point string) ([]byte, error) {
				cmd := exec.Command(noder, folder, server.URL, nodeName, what)
				cmd.Env = append(os.Environ(), "GPUVET_FAULTPOINT="+point)
				return cmd.CombinedOutput()
			}
			others := a.taints()
			for _, step := range []struct {
				what   string
				taints []string
				status string
				events int
			}{
				{"fault", append(a.taints(), lost), "False", 1},
				{"repair", others, "True", 2},
			} {
				if step.what == c.during {
					out, err := run(step.what, c.point)
					var exit *exec.ExitError
					if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
						t.Fatalf("%s: %v, want it killed\n%s", step.what, err, out)
					}
				}
				if out, err := run(step.what, ""); err != nil {
					t.Fatalf("%s: %v\n%s", step.what, err, out)
				}
				if diff := cmp.Diff(step.taints, a.taints()); diff != "" {
					t.Errorf("taints after %s (-want +got)\n%s", step.what, diff)
				}
				if got := a.condition().Status; string(got) != step.status {
					t.Errorf("condition after %s is %s, want %s", step.what, got, step.status)
				}
				if n := len(a.told()); n != step.events {
					t.Errorf("%d events after %s, want %d", n, step.what, step.events)
				}
			}
		})
	}
}

// A crash at any point leaves a taint that the next life recognises: it is
// there while the fault is, and gone when the fault is.
func TestCrashOrphansNoTaint(t *testing.T) {
	points := []struct {
		name string
		arm  func(w *world)
	}{
		{"intent saved, request not sent", func(w *world) {
			w.api.before = func(call string) {
				if call == "taint" {
					w.life.die()
					panic(http.ErrAbortHandler)
				}
			}
		}},
		{"taint written, answer not read", func(w *world) {
			w.api.after = func(call string) {
				if call == "taint" {
					w.life.die()
				}
			}
		}},
		{"condition written", func(w *world) {
			w.api.after = func(call string) {
				if call == "status" {
					w.life.die()
				}
			}
		}},
	}
	for _, p := range points {
		for _, recovered := range []bool{false, true} {
			for _, changed := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, recovered=%v, changed=%v", p.name, recovered, changed), func(t *testing.T) {
					inWorld(t, func(w *world) {
						w.begin(2)
						if changed { // there is a taint already, of another value
							w.xid(1, 48)
							pass(2 * time.Second)
						}
						w.api.set(func() { p.arm(w) })
						w.xid(0, 79)
						pass(2 * time.Second)
						if !w.life.dead {
							t.Fatal("the crash did not happen")
						}
						w.kill()
						w.api.set(func() { w.api.before, w.api.after = nil, nil })

						w.start()
						w.look(2)
						if !recovered {
							w.xid(0, 79)
							pass(20 * time.Second)
							w.wantTaints(lost)
							w.wantStatus("False", "GPULost")
						}
						w.clear(0)
						w.clear(1)
						pass(2 * time.Minute)
						w.wantTaints()
						w.wantStatus("True", "GPUsHealthy")
						if known := w.detector.Snapshot().Applied.Taint; known != nil {
							t.Errorf("state still knows %+v", known)
						}
					})
				})
			}
		}
	}
}

func TestWriteThatArrivesLateIsStillOurs(t *testing.T) {
	inWorld(t, func(w *world) {
		w.begin(1)
		release := make(chan struct{})
		w.api.set(func() {
			w.api.before = func(call string) {
				if call == "taint" {
					<-release
				}
			}
		})
		w.xid(0, 79)
		pass(20 * time.Second)
		w.wantTaints()
		w.clear(0)
		pass(20 * time.Second)
		w.api.set(func() { w.api.before = nil })
		close(release) // 40 s later the first request takes effect
		pass(20 * time.Second)
		w.wantTaints()
		pass(2 * time.Minute)
		w.wantTaints()
		if known := w.detector.Snapshot().Applied.Taint; known != nil {
			t.Errorf("state still knows %+v", known)
		}
	})
}
