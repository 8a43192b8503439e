//go:build cgo

package worker_test

import (
	"testing"
	"time"

	"gpuvet.dev/nvml/fake"
	"gpuvet.dev/nvml/wire"
)

// The round trip of one question through the worker's pipes, with a driver that
// answers at once.
func BenchmarkRoundTrip(b *testing.B) {
	m := running(b, node(b, 8))
	c := opened(b, m)
	for _, ask := range []wire.Ask{wire.AskReadings, wire.AskHealth, wire.AskDescribe, wire.AskList} {
		b.Run(string(ask), func(b *testing.B) {
			pci := m.addresses[0]
			if ask == wire.AskList {
				pci = ""
			}
			b.ReportAllocs()
			for b.Loop() {
				c.ask(ask, pci)
			}
		})
	}
}

// Health is the longest answer: it has each NVLink, with the counters of its
// generation.
func BenchmarkHealth(b *testing.B) {
	for _, profile := range []string{"l40s", "a100", "h100", "b200"} {
		b.Run(profile, func(b *testing.B) {
			s, err := fake.Node(profile, 1)
			if err != nil {
				b.Fatal(err)
			}
			m := running(b, s)
			c := opened(b, m)
			b.ReportAllocs()
			for b.Loop() {
				c.ask(wire.AskHealth, m.addresses[0])
			}
		})
	}
}

// From an error in the script to the event on the pipe.
func BenchmarkEvent(b *testing.B) {
	m := running(b, node(b, 1))
	c := listening(b, m)
	var slowest time.Duration
	for b.Loop() {
		began := time.Now()
		m.apply(b, 0, fake.Xid{Code: 13})
		c.event()
		slowest = max(slowest, time.Since(began))
	}
	b.ReportMetric(float64(slowest.Microseconds()), "µs/slowest")
}

// A worker from its start to its first readings.
func BenchmarkStart(b *testing.B) {
	m := running(b, node(b, 8))
	for b.Loop() {
		c := opened(b, m)
		c.ask(wire.AskReadings, m.addresses[0])
		c.in.Close()
		c.end(patience)
	}
}
