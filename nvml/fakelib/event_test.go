package fakelib_test

import (
	"strings"
	"testing"
	"time"

	"gpuvet.dev/nvml/fake"
)

func TestEventsReachTheirListeners(t *testing.T) {
	m := start(t, two)
	p := m.probe(t)
	p.want("init", "0", "index 1", "0", "set", "0", "register 0x8", "0", "register 0x100000", "3", "wait 0", "10 0 0 0 0")
	p.begin("wait 10000")
	m.apply(t, "gpu: 0, xid: 31", "gpu: 1, event: double-bit-ecc", "gpu: 1, xid: 43, gpuInstance: 2, computeInstance: 0")
	uuid := m.driver.State().GPUs[1].UUID
	if got, want := p.answer(5*time.Second), "0 0x8 43 2 0 "+uuid; got != want {
		t.Errorf("event %q, want %q", got, want)
	}
	p.want("register 0xff00", "0")
	for name, bit := range map[string]string{
		"mig-configuration": "0x100", "single-bit-ecc-storm": "0x200", "dram-retirement": "0x400", "dram-retirement-failed": "0x800",
		"contained-poison": "0x1000", "fatal-poison": "0x2000", "unavailable": "0x4000", "recovery": "0x8000",
	} {
		m.apply(t, "gpu: 1, event: "+name)
		p.want("wait 5000", "0 "+bit+" 0 ffffffff ffffffff "+uuid)
	}
}

func TestOldDriversTellFewerEvents(t *testing.T) {
	for version, want := range map[string]string{"550.54.15": "0 0x19f", "565.57.01": "0 0x3f9f"} {
		p := start(t, "driver: {version: "+version+"}\n"+two).probe(t)
		p.want("init", "0", "index 0", "0", "supported", want, "field 230", "0 3 1 0")
	}
}

func TestEventsAreToldInTheStructuredFormToo(t *testing.T) {
	old := start(t, two).probe(t)
	old.want("init", "0", "index 0", "0", "set", "0", "operational 0 30", "3")
	m := start(t, `driver: {cuda: "13.4"}`+"\n"+two)
	p := m.probe(t)
	p.want("init", "0", "index 0", "0", "set", "0", "register 0x8", "0", "operational 0 30", "0")
	m.apply(t, "gpu: 0, event: single-bit-ecc", "gpu: 0, xid: 13", "gpu: 0, event: fatal-poison")
	p.want(
		"wait3 5000", "0 0 0x8 13 0 0",
		"wait3 5000", "0 1 0 0 30 13",
		"wait3 5000", "0 1 0 0 40 0",
		"wait3 0", "10 0 0 0 0 0",
	)
}

func TestListenerThatFallsBehindGetsTheNewest(t *testing.T) {
	m := start(t, two)
	p := m.probe(t)
	p.want("init", "0", "index 0", "0", "set", "0", "register 0x8", "0")
	for code := range 1030 {
		if err := m.driver.Apply(fake.Step{Do: fake.Xid{Code: code%900 + 1, Recovery: m.driver.State().GPUs[0].Health.Recovery}}); err != nil {
			t.Fatal(err)
		}
	}
	m.apply(t, "gpu: 1, remapFailed: true")
	if got := p.ask("wait 0"); !strings.HasPrefix(got, "0 0x8 7 ") { // 1030 - 1024, from 1
		t.Errorf("%q, want Xid 7: the oldest that is kept", got)
	}
}
