package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gpuvet.dev/detector"
	"gpuvet.dev/nvml"
)

// deed is something that happens in an incident.
type deed struct {
	at time.Duration // since the first boot
	do func()
}

const (
	// daemonStart is when the daemon is started after a boot.
	daemonStart = 10 * time.Second
	// pollEvery is how often NVML is asked, besides each change in its script.
	pollEvery = 10 * time.Second
	// afterwards is how long an incident goes on after its last line.
	afterwards = time.Second
)

// played is what came of an incident.
type played struct {
	file     *incidentFile
	outputs  map[string]string // sections, by name
	emitted  []arrival
	told     []detector.Transition
	snapshot *detector.Snapshot
	boot     string // the last one
}

// play lets an incident happen, in a bubble of its own, and writes down what is
// seen of it.
func play(t *testing.T, f *incidentFile) *played {
	t.Helper()
	p := &played{file: f, outputs: map[string]string{}}
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t, f)
		r := &recorder{machine: m, file: f}
		deeds := slices.Concat(m.startsOf(f), m.pods(f), m.prints(f), m.says(f), m.hands(f))
		end := r.end(deeds)
		deeds = append(deeds, deed{daemonStart, m.start})
		deeds = append(deeds, m.polls(f, end)...)
		deeds = append(deeds, r.looks(end)...)
		// At one time things happen in the order above.
		slices.SortStableFunc(deeds, func(a, b deed) int { return cmp.Compare(a.at, b.at) })
		for _, d := range deeds {
			time.Sleep(time.Until(bootTime.Add(d.at)))
			synctest.Wait()
			d.do()
			synctest.Wait()
		}
		m.emit(detector.Event{Source: detector.SourceDaemon, Kind: "IncidentEnd"})
		synctest.Wait()
		r.metrics()
		p.snapshot = m.daemon.detector.Snapshot()
		p.boot = m.bootID()
		m.kill()
		p.emitted, p.told = m.emitted, m.told()
		r.transitions(p.told)
		for name, lines := range r.written {
			p.outputs[name] = aligned(lines)
		}
	})
	return p
}

func newMachine(t *testing.T, f *incidentFile) *machine {
	t.Helper()
	m := &machine{t: t, booted: bootTime, holder: map[string]string{}, numbers: map[string]uint64{}}
	m.driver = scriptedDriver{version: "570.195.03", load: "boot-1"}
	addresses := []string{"3b", "5d"}
	for _, words := range f.lines("machine") {
		switch {
		case words[0] == "gpus":
			addresses = words[1:]
		case words[0] == "driver" && len(words) == 2:
			m.driver.version = words[1]
		case words[0] == "poll" && len(words) == 2:
		default:
			t.Fatalf("machine: %q: expected gpus, driver or poll", words)
		}
	}
	for i, word := range addresses {
		m.gpus = append(m.gpus, &scriptedGPU{index: i, health: wellHealth(), gpu: nvml.GPU{
			PCI: address(word), UUID: "GPU-" + word, Name: "NVIDIA H100 80GB HBM3", Architecture: "Hopper", Minor: i, MemoryBytes: 80 << 30,
		}})
	}
	for _, s := range f.sections {
		if match := kernelSection.FindStringSubmatch(s.name); match != nil {
			boot := 0
			if match[1] != "" {
				boot = int(match[1][0] - '1')
			}
			entries, err := kernelLog(s.text)
			if err != nil {
				t.Fatalf("%s: %v", s.name, err)
			}
			m.logOf(boot)
			m.boots[boot] = entries
		}
	}
	m.logOf(0)
	return m
}

func (m *machine) logOf(boot int) {
	for len(m.boots) <= boot {
		m.boots = append(m.boots, nil)
	}
}

// moment reads the time that a line begins with.
func (m *machine) moment(words []string) time.Duration {
	m.t.Helper()
	d, err := moment(words[0])
	if err != nil {
		m.t.Fatalf("%q: %v", words, err)
	}
	return d
}

// startsOf reads the section boot: "600 reboot [20s]" and "600 restart [5s]", with
// how long no daemon runs.
func (m *machine) startsOf(f *incidentFile) []deed {
	var deeds []deed
	for _, words := range f.lines("boot") {
		at, down := m.moment(words), daemonStart
		if len(words) == 3 {
			down = m.moment(words[2:])
		}
		switch words[1] {
		case "reboot":
			deeds = append(deeds, deed{at, func() { m.logOf(m.boot + 1); m.reboot() }}, deed{at + down, m.start})
		case "restart":
			deeds = append(deeds, deed{at, m.kill}, deed{at + down, m.start})
		default:
			m.t.Fatalf("boot: %q: expected reboot or restart", words)
		}
	}
	return deeds
}

// bootsOf are the times of the boots.
func (m *machine) bootsOf(f *incidentFile) []time.Duration {
	boots := []time.Duration{0}
	for _, words := range f.lines("boot") {
		if words[1] == "reboot" {
			boots = append(boots, m.moment(words))
		}
	}
	return boots
}

// prints are the kernel's lines.
func (m *machine) prints(f *incidentFile) []deed {
	var deeds []deed
	for boot, began := range m.bootsOf(f) {
		m.logOf(boot)
		for place, entry := range m.boots[boot] {
			deeds = append(deeds, deed{began + entry.at, func() { m.print(place) }})
		}
	}
	return deeds
}

// pods reads the section holders: "100 3b team-a/train-0", or - for nobody.
func (m *machine) pods(f *incidentFile) []deed {
	var deeds []deed
	for _, words := range f.lines("holders") {
		if len(words) != 3 {
			m.t.Fatalf("holders: %q: expected a time, a GPU and a pod", words)
		}
		deeds = append(deeds, deed{m.moment(words), func() { m.holder[address(words[1])] = strings.TrimPrefix(words[2], "-") }})
	}
	return deeds
}

// says reads the section nvml: what the driver and each GPU say from a time on.
func (m *machine) says(f *incidentFile) []deed {
	var deeds []deed
	for _, words := range f.lines("nvml") {
		if len(words) < 3 {
			m.t.Fatalf("nvml: %q: expected a time, a GPU or driver, and what it says", words)
		}
		at, who, rest := m.moment(words), words[1], words[2:]
		switch {
		case who == "driver":
			deeds = append(deeds, deed{at, func() { m.driverSays(rest); m.poll() }})
		case rest[0] == "event":
			deeds = append(deeds, deed{at, func() { m.event(who, rest[1:]) }})
		default:
			deeds = append(deeds, deed{at, func() { m.gpuSays(who, rest); m.poll() }})
		}
	}
	return deeds
}

func (m *machine) driverSays(words []string) {
	m.t.Helper()
	switch cause := strings.Join(words[1:], " "); words[0] {
	case "loaded": // version and identity of the loading
		if len(words) != 3 {
			m.t.Fatalf("driver %q: expected loaded VERSION LOAD", words)
		}
		m.driver.version, m.driver.load, m.driver.err = words[1], words[2], nil
	case "missing":
		m.driver.err = fmt.Errorf("%w: %s", nvml.ErrNoDriver, cause)
	case "stuck":
		m.driver.err = nvml.ErrStuck
	case "answers":
		m.driver.err = nil
	default:
		m.t.Fatalf("driver %q: expected loaded, missing, stuck or answers", words)
	}
}

func (m *machine) gpuSays(who string, words []string) {
	m.t.Helper()
	g := m.find(who)
	switch words[0] {
	case "answers":
		g.err, g.missing = nil, false
	case "lost":
		g.err = nvml.ErrLost
	case "silent":
		g.err = nvml.ErrTimeout
	case "fails":
		g.err = errors.New("unknown error")
	case "missing":
		g.missing = true
	default:
		if uuid, ok := strings.CutPrefix(words[0], "uuid="); ok {
			g.gpu.UUID, g.health = uuid, wellHealth()
			words = words[1:]
		}
		if err := mergeJSON(&g.health, words); err != nil {
			m.t.Fatalf("nvml %s: %v; expected answers, lost, silent, fails, missing, event, uuid=… or facts of nvml.Health", who, err)
		}
	}
}

// event has NVML tell an event: "event xid=79 gi=1", or "event type=recovery".
func (m *machine) event(who string, words []string) {
	m.t.Helper()
	g := m.find(who)
	e := nvml.Event{Type: nvml.EventXid, Time: time.Now(), PCI: g.gpu.PCI, UUID: g.gpu.UUID}
	if err := mergeJSON(&e, words); err != nil {
		m.t.Fatalf("event: %v", err)
	}
	if m.daemon == nil {
		return // it is told to nobody
	}
	m.driver.events <- e
}

// hands reads the section hands: "100 clear 3b [Reason]", "100 ignore 3b Reason
// 24h", "100 pause 10m" and "100 resume".
func (m *machine) hands(f *incidentFile) []deed {
	var deeds []deed
	for _, words := range f.lines("hands") {
		e := detector.Event{Source: detector.SourceHand, Fields: map[string]string{"author": "ann", "by": detector.ByHand}}
		switch {
		case words[1] == "clear" && len(words) > 2:
			e.Kind, e.Fields = detector.KindClear, map[string]string{"author": "ann"}
			if words[2] != "node" {
				e.GPU.PCI = m.find(words[2]).gpu.PCI
			}
			if len(words) > 3 {
				e.Fields["reason"] = words[3]
			}
		case words[1] == "ignore" && len(words) == 5:
			e.Kind, e.GPU.PCI = detector.KindIgnore, m.find(words[2]).gpu.PCI
			e.Fields["reason"], e.Fields["for"] = words[3], words[4]
		case words[1] == "pause" && len(words) == 3:
			e.Kind, e.Fields["for"] = detector.KindPaused, words[2]
		case words[1] == "resume":
			e.Kind = detector.KindResumed
		default:
			m.t.Fatalf("hands: %q: expected clear, ignore, pause or resume", words)
		}
		deeds = append(deeds, deed{m.moment(words), func() { m.emit(e); m.poll() }})
	}
	return deeds
}

// polls are those that nothing in the script calls for.
func (m *machine) polls(f *incidentFile, end time.Duration) []deed {
	every := pollEvery
	for _, words := range f.lines("machine") {
		if words[0] == "poll" {
			every = m.moment(words[1:])
		}
	}
	var deeds []deed
	for at := daemonStart + every; at < end; at += every {
		deeds = append(deeds, deed{at, m.poll})
	}
	return deeds
}
