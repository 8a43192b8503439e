package dra

import (
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gpuvet.dev/detector"
)

// disk is the state's disk, which may be full or hang.
type disk struct {
	detector.Store
	mu   sync.Mutex
	err  error
	hung chan struct{} // until it is closed
}

func (d *disk) Save(payload []byte) error {
	d.mu.Lock()
	err, hung := d.err, d.hung
	d.mu.Unlock()
	if hung != nil {
		<-hung
	}
	if err != nil {
		return err
	}
	return d.Store.Save(payload)
}

func (d *disk) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

func (d *disk) hang(until chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hung = until
}

func TestFullDiskPreparesNothingAndGivesBack(t *testing.T) {
	t.Parallel()
	w, kubelet := atWork(t)
	running, c := w.allocate("running", "a", nil, 0), w.allocate("train", "b", nil, 1)
	w.prepare(running)
	w.disk.fail(&os.PathError{Op: "write", Path: "state.new", Err: syscall.ENOSPC})
	for range 2 {
		_, err := kubelet.Prepare(t.Context(), c)
		if err == nil || !strings.Contains(err.Error(), "cannot be noted on disk") || !strings.Contains(err.Error(), "no space left on device") {
			t.Errorf("prepare: %v", err)
		}
		if w.held(c) != nil || w.spec(c) {
			t.Errorf("held as %+v, spec %v", w.held(c), w.spec(c))
		}
	}
	if err := kubelet.Unprepare(t.Context(), running); err != nil || w.held(running) != nil || w.spec(running) {
		t.Errorf("unprepare: %v, held as %+v, spec %v", err, w.held(running), w.spec(running))
	}
	w.disk.fail(nil)
	if _, err := kubelet.Prepare(t.Context(), c); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

func TestHungDiskHoldsUpNoPodsEnd(t *testing.T) {
	t.Parallel()
	w, kubelet := atWork(t)
	c := w.allocate("train", "pod", nil, 0)
	w.prepare(c)
	until := make(chan struct{})
	w.disk.hang(until)
	defer close(until)
	began := time.Now()
	if err := kubelet.Unprepare(t.Context(), c); err != nil || w.held(c) != nil {
		t.Errorf("%v, held as %+v", err, w.held(c))
	}
	if took := time.Since(began); took > 500*time.Millisecond {
		t.Errorf("it took %v", took)
	}
	w.disk.hang(nil)
}
