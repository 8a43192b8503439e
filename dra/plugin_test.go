package dra

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/dynamic-resource-allocation/kubeletplugin"

	"gpuvet.dev/dra/kubelettest"
	"gpuvet.dev/dra/pool"
)

// until waits for something that others do.
func until(t *testing.T, what string, so func() bool) {
	t.Helper()
	for began := time.Now(); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > 20*time.Second {
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}

func (w *world) sockets() []string {
	return []string{w.path("plugins_registry", pool.DriverName+"-reg.sock"), w.path("plugins", pool.DriverName, "dra.sock")}
}

func TestDriverWaitsForTheKubeletAndLeavesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.start()
	until(t, "a reason", func() bool {
		err := w.plugin.Err()
		return err != nil && strings.Contains(err.Error(), "plugins_registry: no such file")
	})
	kubelet := w.kubelet(nil)
	until(t, "the registration", func() bool { return w.plugin.Err() == nil })
	w.end()
	for _, socket := range w.sockets() {
		if _, err := os.Lstat(socket); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", socket, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := w.agent.Gone(ctx, kubelet); err != nil {
		t.Errorf("the kubelet was not told: %v", err)
	}
	if w.plugin.Err() == nil {
		t.Error("it says that it is registered")
	}
}

func TestSocketsOfAKilledDriverAreReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, socket := range w.sockets() {
		if err := os.MkdirAll(filepath.Dir(socket), 0o750); err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		l.Close()
	}
	w.start()
	until(t, "somebody behind the socket", func() bool {
		c, err := net.Dial("unix", w.sockets()[0])
		return err == nil && c.Close() == nil
	})
	kubelet := w.kubelet(nil)
	if _, err := kubelet.Prepare(t.Context(), w.allocate("train", "pod", nil, 0)); err != nil {
		t.Error(err)
	}
}

func TestRefusedRegistrationIsSaid(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k, err := kubelettest.Start(w.dir, kubelettest.Options{Refuse: "this node takes no drivers"})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Stop()
	w.start()
	until(t, "the refusal", func() bool {
		err := w.plugin.Err()
		return err != nil && strings.Contains(err.Error(), "this node takes no drivers")
	})
}

func TestDriverRegistersAnewWhenItsSocketIsRemoved(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.start()
	w.kubelet(nil)
	if err := os.Remove(w.sockets()[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := w.kubelet(nil).Prepare(t.Context(), w.allocate("train", "pod", nil, 0)); err != nil {
		t.Error(err)
	}
}

func TestEndWaitsForTheCallsUnderWay(t *testing.T) {
	t.Parallel()
	w, g, kubelet := gated(t, 1)
	c := w.allocate("train", "pod", nil, 0)
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = kubelet.Prepare(t.Context(), c) })
	<-g.reached
	ended := make(chan struct{})
	wg.Go(func() {
		w.end()
		close(ended)
	})
	wait, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := w.agent.Gone(wait, kubelet); err != nil { // the sockets go first
		t.Error(err)
	}
	select {
	case <-ended:
		t.Error("it ended while a claim was being prepared")
	default:
	}
	close(g.open)
	wg.Wait()
	if held := w.held(c); held == nil || !held.Prepared {
		t.Errorf("held as %+v", held)
	}
}

func TestFatalErrorOfTheServerEndsTheRegistrationAndNoOther(t *testing.T) {
	w := newWorld(t)
	w.detector = quiet(1)
	ctx, fail := context.WithCancelCause(t.Context())
	s := &session{plugin: w.newPlugin(), fail: fail}
	s.HandleError(ctx, fmt.Errorf("late: %w", kubeletplugin.ErrRecoverable), "health is stale")
	if ctx.Err() != nil {
		t.Errorf("ended by what can go on: %v", context.Cause(ctx))
	}
	s.HandleError(ctx, errors.New("accept: too many open files"), "gRPC server failed")
	if cause := context.Cause(ctx); cause == nil || cause.Error() != "gRPC server failed: accept: too many open files" {
		t.Errorf("ended by %v", cause)
	}
}

func TestPluginSaysWhatItLacks(t *testing.T) {
	if _, err := New(Options{Node: nodeName}); err == nil || !strings.Contains(err.Error(), "no Kube") {
		t.Errorf("error %v", err)
	}
}
