package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"gpuvet.dev/detector"
	"gpuvet.dev/detector/kmsg"
	"gpuvet.dev/exporter"
	"gpuvet.dev/internal/node"
	"gpuvet.dev/internal/trail"
	"gpuvet.dev/nvml"
)

// bootTime is when the first boot of an incident begins: the start of the clock
// in a bubble of synctest.
var bootTime = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// machine is a node with GPUs, a kernel log and NVML, and, while it runs, the
// daemon: its real sources, detector and outputs, on a clock of its own.
type machine struct {
	t      *testing.T
	boots  [][]kernelEntry // the kernel log of each boot
	boot   int             // index in boots
	booted time.Time
	gpus   []*scriptedGPU // by address
	driver scriptedDriver
	holder map[string]string // pods by address
	daemon *daemonLife       // nil: none runs

	payload []byte // what was saved last
	mu      sync.Mutex
	numbers map[string]uint64 // by series of IDs
	emitted []arrival
	entries []detector.Entry // of the trail
}

// arrival is an event as it was emitted, and when.
type arrival struct {
	at    time.Time
	event detector.Event
}

// scriptedGPU is what NVML would say of one GPU.
type scriptedGPU struct {
	gpu     nvml.GPU
	index   int
	health  nvml.Health
	listed  bool // under this boot: its absence is news
	missing bool
	err     error // instead of health
}

type scriptedDriver struct {
	version, load string
	err           error // instead of an inventory
	events        chan nvml.Event
}

// daemonLife is one life of the daemon.
type daemonLife struct {
	detector *detector.Detector
	kernel   *detector.KernelLog
	facts    *detector.Facts
	records  chan kernelRecord
	stop     func()
}

// kernelRecord is a record on its way to the reader, behind what was lost.
type kernelRecord struct {
	record kmsg.Record
	lost   uint64
}

// Save and the next two stand for the disk.
func (m *machine) Save(payload []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.payload = slices.Clone(payload)
	return nil
}

// Append implements [detector.History].
func (m *machine) Append(r trail.Record) (bool, error) {
	entry, err := detector.DecodeEntry(r.Data)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.entries = append(m.entries, entry)
	return true, err
}

// Sync implements [detector.History].
func (m *machine) Sync() error { return nil }

func (m *machine) bootID() string { return fmt.Sprintf("boot-%d", m.boot+1) }

// complete gives an event what the detector would, so that the same event can be
// folded again.
func (m *machine) complete(e detector.Event) detector.Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now().Round(0)
	e.Time = cmp.Or(e.Time, now)
	e.Boot = cmp.Or(e.Boot, m.bootID())
	e.Mono = cmp.Or(e.Mono, max(e.Time.Sub(m.booted), 1))
	if e.ID == "" {
		series := e.Boot + "/" + e.Source
		m.numbers[series] = max(m.numbers[series]+1, uint64(e.Mono))
		e.ID = fmt.Sprintf("%s/%d", series, m.numbers[series])
	}
	if pod := m.holder[e.GPU.PCI]; pod != "" && e.Xid != nil {
		e.Holder = &detector.Holder{Pod: pod}
	}
	m.emitted = append(m.emitted, arrival{now, e})
	return e
}

// emit is deaf while no daemon runs.
func (m *machine) emit(e detector.Event) {
	if m.daemon != nil {
		m.daemon.detector.Emit(m.complete(e))
	}
}

// start runs the daemon as `gpuvet run` does: what was saved, the kernel log's
// past, then NVML.
func (m *machine) start() {
	m.t.Helper()
	var saved detector.Saved
	if m.payload != nil {
		var err error
		if saved, err = detector.DecodeSaved(m.payload); err != nil {
			m.t.Fatal(err)
		}
	}
	d := detector.New(detector.Config{
		Policy: detector.DefaultPolicy(), Saved: saved, Boot: m.bootID(), Uptime: time.Since(m.booted), Store: m, Trail: m,
	})
	r := &daemonLife{detector: d, kernel: detector.NewKernelLog(), records: make(chan kernelRecord)}
	r.facts = detector.NewFacts(nvml.DefaultFreshness, m.emit)
	m.daemon, m.driver.events = r, make(chan nvml.Event)
	ctx, cancel := context.WithCancel(m.t.Context())
	var sources, core sync.WaitGroup
	keeping, kept := context.WithCancel(context.WithoutCancel(ctx))
	core.Go(func() {
		if err := d.Run(keeping); err != nil {
			m.t.Error(err)
		}
	})
	r.stop = func() {
		cancel()
		sources.Wait()
		kept()
		core.Wait()
	}
	m.emit(detector.Event{Source: detector.SourceDaemon, Kind: detector.KindBoot, Fields: map[string]string{"version": "test"}})
	p := detector.DefaultPolicy()
	m.emit(detector.Event{Source: detector.SourceDaemon, Kind: detector.KindPolicy, Fields: map[string]string{"digest": p.Digest()}})
	sources.Go(func() {
		err := r.kernel.Run(ctx, kernelReader{m.bootID(), r.records}, m.emit, func(c kmsg.Cursor) {
			d.SetCursor(cursorKernelLog, detector.Cursor{Boot: c.Boot, Seq: c.Seq})
		})
		if err != nil {
			m.t.Error(err)
		}
	})
	m.backlog()
	sources.Go(func() {
		submit := func(ctx context.Context, e detector.Event) (*detector.Snapshot, error) {
			return d.Submit(ctx, m.complete(e))
		}
		if err := detector.DriverEvents(ctx, &m.driver, submit, func(string) {}); err != nil {
			m.t.Error(err)
		}
	})
	m.poll()
	synctest.Wait()
}

// backlog delivers what the kernel log holds and the cursor has not passed.
func (m *machine) backlog() {
	cursor, _ := m.daemon.detector.Cursor(cursorKernelLog)
	seq := uint64(0)
	for _, entry := range m.boots[m.boot] {
		seq += entry.lost + 1
		if m.booted.Add(entry.at).Before(time.Now()) && (cursor.Boot != m.bootID() || seq > cursor.Seq) {
			m.deliver(entry, seq)
		}
	}
}

// print has the kernel print the record at a place of its log.
func (m *machine) print(place int) {
	if m.daemon == nil {
		return // it is in the backlog of the next one
	}
	log := m.boots[m.boot]
	seq := uint64(0)
	for _, entry := range log[:place+1] {
		seq += entry.lost + 1
	}
	m.deliver(log[place], seq)
}

func (m *machine) deliver(entry kernelEntry, seq uint64) {
	m.daemon.records <- kernelRecord{lost: entry.lost, record: kmsg.Record{
		Seq: seq, Mono: entry.at, Time: m.booted.Add(entry.at), Facility: entry.facility, Text: entry.text,
	}}
	synctest.Wait()
}

// kernelReader is the kernel log of one boot.
type kernelReader struct {
	boot    string
	records <-chan kernelRecord
}

func (r kernelReader) Boot() string { return r.boot }

func (r kernelReader) Run(ctx context.Context, h kmsg.Handler) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case next := <-r.records:
			if next.lost > 0 {
				h.Gap(kmsg.Gap{Lost: next.lost, Next: next.record.Seq})
			}
			h.Record(next.record)
		}
	}
}

// kill ends the daemon; what it knew is saved.
func (m *machine) kill() {
	if m.daemon != nil {
		m.daemon.stop()
		m.daemon = nil
	}
}

// reboot begins another boot: the GPUs are well unless the script says otherwise.
func (m *machine) reboot() {
	m.kill()
	m.boot++
	m.booted = time.Now()
	m.driver.err, m.driver.load = nil, m.bootID()
	for i, g := range m.gpus {
		*g = scriptedGPU{gpu: g.gpu, index: i, health: wellHealth()}
	}
}

// wellHealth is what a GPU says that is well.
func wellHealth() nvml.Health {
	return nvml.Health{
		Recovery: nvml.Some(nvml.RecoverNone), RowRemapPending: nvml.Some(false), RowRemapFailed: nvml.Some(false),
	}
}

// poll asks NVML as the sampler does: for the inventory, and for the health of
// each GPU unless that is known to be in vain.
func (m *machine) poll() {
	if m.daemon == nil {
		return
	}
	now := time.Now()
	paused := m.daemon.detector.Snapshot().Pause != nil
	if paused {
		m.daemon.facts.Observe(nvml.Observation{Time: now, InventoryErr: nvml.ErrPaused})
		return
	}
	if m.driver.err != nil {
		m.daemon.facts.Observe(nvml.Observation{Time: now, InventoryErr: m.driver.err})
		return
	}
	inventory := &nvml.Inventory{DriverVersion: m.driver.version, CUDAVersion: "12.8", Load: m.driver.load}
	indexes := map[string]int{}
	for _, g := range m.gpus {
		if !g.missing {
			g.listed = true
			inventory.GPUs = append(inventory.GPUs, g.gpu)
			indexes[g.gpu.PCI] = g.index
		}
	}
	m.daemon.facts.Observe(nvml.Observation{Time: now, Inventory: inventory, Indexes: indexes})
	for _, g := range m.gpus {
		if g.listed {
			m.pollGPU(g)
		}
	}
}

func (m *machine) pollGPU(g *scriptedGPU) {
	o := nvml.Observation{Time: time.Now(), PCI: g.gpu.PCI, Missing: g.missing, Err: g.err}
	switch {
	case g.missing:
		o.Err = nvml.ErrNotFound
	case g.err == nil:
		health := g.health
		health.Time = o.Time
		o.Health = &health
	}
	m.daemon.facts.Observe(o)
}

// Inventory and the next two are asked by nobody: polls go past the sampler.
func (d *scriptedDriver) Inventory(context.Context) (nvml.Inventory, error) {
	return nvml.Inventory{}, d.err
}

// Readings implements [nvml.Driver].
func (d *scriptedDriver) Readings(context.Context, string) (nvml.Readings, error) {
	return nvml.Readings{}, d.err
}

// Health implements [nvml.Driver].
func (d *scriptedDriver) Health(context.Context, string) (nvml.Health, error) {
	return nvml.Health{}, d.err
}

// Events gives the driver's events.
func (d *scriptedDriver) Events(ctx context.Context, emit func(nvml.Event)) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-d.events:
			emit(e)
		}
	}
}

// told gives the transitions of the trail, in order.
func (m *machine) told() []detector.Transition {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []detector.Transition
	for _, entry := range m.entries {
		all = append(all, entry.Transitions...)
	}
	return all
}

// nodeWord is what the node's condition and taint would be, by the output itself.
func (m *machine) nodeWord() map[string]string {
	core, logs := observer.New(zap.InfoLevel)
	ctx, cancel := context.WithCancel(m.t.Context())
	defer cancel()
	out := node.New(node.Options{NodeName: "n", Config: node.DefaultConfig(), Log: zap.New(core), DryRun: true})
	snapshot := m.daemon.detector.Snapshot()
	ended := make(chan error, 1)
	go func() {
		ended <- out.Run(ctx, func(yield func(*detector.Snapshot) bool) {
			if yield(snapshot) {
				<-ctx.Done()
			}
		})
	}()
	synctest.Wait()
	cancel()
	if err := <-ended; err != nil {
		m.t.Fatal(err)
	}
	word := map[string]string{}
	for _, line := range logs.FilterMessage("would write node condition and taint").All() {
		for key, value := range line.ContextMap() {
			word[key] = fmt.Sprint(value)
		}
	}
	return word
}

// scrape gives every series of the exporter.
func (m *machine) scrape() map[string]*dto.MetricFamily {
	m.t.Helper()
	d := m.daemon
	e := exporter.New(exporter.Sources{
		Version: "test", Policy: d.detector.Policy, Snapshot: d.detector.Snapshot, KernelLog: d.kernel, Kept: d.detector.Kept,
	})
	answer := httptest.NewRecorder()
	e.Handler().ServeHTTP(answer, httptest.NewRequestWithContext(m.t.Context(), "GET", "/metrics", nil))
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		m.t.Fatal(err)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(string(body)))
	if err != nil {
		m.t.Fatalf("%v in\n%s", err, body)
	}
	return families
}

// address gives the PCI address that a script calls by its bus alone.
func address(bus string) string {
	if len(bus) == 2 {
		return "0000:" + bus + ":00.0"
	}
	return bus
}

// bus is the short form of an address.
func bus(pci string) string {
	if short, ok := strings.CutPrefix(pci, "0000:"); ok {
		if short, ok = strings.CutSuffix(short, ":00.0"); ok {
			return short
		}
	}
	return pci
}

func (m *machine) find(word string) *scriptedGPU {
	i := slices.IndexFunc(m.gpus, func(g *scriptedGPU) bool { return g.gpu.PCI == address(word) })
	if i < 0 {
		m.t.Fatalf("GPU %q: expected one of the machine's", word)
	}
	return m.gpus[i]
}
