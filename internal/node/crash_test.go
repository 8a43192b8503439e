package node

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

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
