package main

import (
	"testing"

	"go.uber.org/zap"

	"gpuvet.dev/detector"
)

// A port that has no GPU below it must not become one.
func TestErrorsOfABridgeAreLookedUpInTheMachine(t *testing.T) {
	d := &daemon{kernel: detector.NewKernelLog(), log: zap.NewNop()}
	d.lookBehindBridges()
	if d.kernel.Behind == nil || d.kernel.Loaded == nil {
		t.Fatal("the kernel log does not know the machine's PCI devices")
	}
	if gpus := d.kernel.Behind("ffff:ff:1f.7"); len(gpus) != 0 {
		t.Errorf("%v are behind a port that is not there", gpus)
	}
	d.kernel.Loaded()
}
