package fakelib_test

import (
	"fmt"
	"testing"
	"time"

	"gpuvet.dev/nvml/fake"
	"gpuvet.dev/nvml/fakelib"
)

func BenchmarkCall(b *testing.B) {
	const calls = 100_000
	p := start(b, two).probe(b)
	p.want("init", "0", "index 0", "0")
	for b.Loop() {
		p.ask(fmt.Sprintf("bench %d", calls))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/calls, "ns/call")
}

func BenchmarkEventToItsListener(b *testing.B) {
	m := start(b, two)
	p := m.probe(b)
	p.want("init", "0", "index 0", "0", "set", "0", "register 0x8", "0")
	for b.Loop() {
		p.begin("wait 10000")
		if err := m.driver.Apply(fake.Step{Do: fake.Xid{Code: 13}}); err != nil {
			b.Fatal(err)
		}
		p.answer(10 * time.Second)
	}
}

func BenchmarkStateShown(b *testing.B) {
	s, err := fake.Node("h100", 8)
	if err != nil {
		b.Fatal(err)
	}
	d := fake.New(s)
	m, err := fakelib.New(b.TempDir(), d)
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	b.ReportAllocs()
	for b.Loop() {
		if err := m.Show(d.State()); err != nil {
			b.Fatal(err)
		}
	}
}
