package detector

import (
	"errors"
	"iter"
	"maps"
	"slices"
	"strconv"
	"time"

	"gpuvet.dev/nvml"
)

// Facts is the source that turns what NVML says about each GPU into events. It
// emits a fact when it changes, and each of them once after a start and after
// each loading of the driver.
type Facts struct {
	// Freshness is how long an answer counts; without a newer one the GPU is
	// stale.
	Freshness time.Duration

	emit   func(Event)
	load   string
	seen   time.Time // when an inventory showed load last
	cause  string    // why there is no driver
	loaded bool      // load or cause was told
	stuck  bool      // was told
	again  bool      // that it is stuck is to be told once more
	gpus   map[string]*told
}

// told is what was last emitted about one GPU.
type told struct {
	gpu      nvml.GPU
	index    int
	answered time.Time // last answer
	failure  error     // of the last poll
	facts    map[Kind]string
	only     growing // the counters that only a reset begins anew
	growth   growth  // of the counters that are judged
	links    links
}

// NewFacts makes the source; it emits from Observe and Age only.
func NewFacts(freshness time.Duration, emit func(Event)) *Facts {
	return &Facts{Freshness: freshness, emit: emit, gpus: map[string]*told{}}
}

// Observe takes the outcome of one poll.
func (f *Facts) Observe(o nvml.Observation) {
	if o.PCI == "" {
		f.inventory(o)
	} else {
		f.health(o)
	}
}

// Forget has every fact about the GPUs told again, as after a start, and that the
// driver is stuck if it is.
func (f *Facts) Forget() {
	f.again = f.stuck
	for g := range f.each() {
		clear(g.facts)
	}
}

func (f *Facts) inventory(o nvml.Observation) {
	switch err := o.InventoryErr; {
	case errors.Is(err, nvml.ErrPaused):
		for g := range f.each() {
			g.unasked(f, o.Time)
		}
		return
	case errors.Is(err, nvml.ErrStuck):
		f.driverStuck(o)
		return
	case err != nil && !errors.Is(err, nvml.ErrNoDriver) && (f.load != "" || f.stuck):
		return // the driver is there; each GPU tells by itself whether it answers
	case f.stuck && (err != nil || o.Inventory != nil):
		f.stuck = false
		f.emit(Event{Source: SourceState, Kind: KindDriverAnswers, Time: o.Time})
	}
	if o.InventoryErr != nil {
		if cause := o.InventoryErr.Error(); !f.loaded || f.cause != cause || f.load != "" {
			f.cause, f.loaded, f.load = cause, true, ""
			for g := range f.each() {
				clear(g.facts)
			}
			f.emit(Event{Source: SourceState, Kind: KindDriverMissing, Time: o.Time, Fields: map[string]string{"cause": cause}})
		}
		return
	}
	if o.Inventory == nil {
		return
	}
	if f.load != o.Inventory.Load || f.cause != "" || !f.loaded {
		fields := map[string]string{
			"version": o.Inventory.DriverVersion, "cuda": o.Inventory.CUDAVersion, "load": o.Inventory.Load,
		}
		if !f.seen.IsZero() {
			fields["ago"] = o.Time.Sub(f.seen).String()
		}
		f.load, f.cause, f.loaded = o.Inventory.Load, "", true
		for g := range f.each() {
			clear(g.facts)
		}
		f.emit(Event{Source: SourceState, Kind: KindDriverLoaded, Time: o.Time, Fields: fields})
	}
	f.seen = o.Time
	for i, gpu := range o.Inventory.GPUs {
		f.found(o.Time, gpu, o.Index(gpu.PCI, i))
	}
}

// driverStuck tells once that the driver answers no question.
func (f *Facts) driverStuck(o nvml.Observation) {
	for g := range f.each() {
		g.silent()
	}
	if f.stuck && !f.again {
		return
	}
	f.stuck, f.again = true, false
	f.emit(Event{Source: SourceState, Kind: KindDriverStuck, Time: o.Time, Fields: map[string]string{"cause": o.InventoryErr.Error()}})
}

// found tells of a GPU that is new, has come back, or is another one.
func (f *Facts) found(at time.Time, gpu nvml.GPU, index int) {
	g, known := f.gpus[gpu.PCI]
	if !known {
		g = f.know(gpu, at)
	}
	switch {
	case known && gpu.UUID == "" && g.gpu.UUID != "":
		gpu = g.gpu // it could not be asked, and is not another one for that
	case known && g.gpu.UUID != "" && g.gpu.UUID != gpu.UUID:
		clear(g.facts) // another GPU: nothing of it was told
		g.only, g.growth, g.links = growing{}, growth{}, links{}
	}
	if known && g.gpu.Equal(gpu) && g.index == index && g.facts[KindGPUFound] == "present" {
		return
	}
	g.gpu, g.index = gpu, index
	fields := map[string]string{
		"index": strconv.Itoa(index), "minor": strconv.Itoa(gpu.Minor), "name": gpu.Name, "architecture": gpu.Architecture,
		"serial": gpu.Serial, "vbios": gpu.VBIOS, "memoryBytes": strconv.FormatUint(gpu.MemoryBytes, 10),
	}
	tellBuild(fields, gpu)
	g.facts[KindGPUFound] = "present"
	f.emit(Event{
		Source: SourceState, Kind: KindGPUFound, Time: at, GPU: Device{PCI: gpu.PCI, UUID: gpu.UUID}, Fields: fields, Instances: gpu.Instances,
	})
}

func (f *Facts) know(gpu nvml.GPU, at time.Time) *told {
	g := &told{gpu: gpu, facts: map[Kind]string{}, answered: at}
	f.gpus[gpu.PCI] = g
	return g
}

func (f *Facts) health(o nvml.Observation) {
	g, known := f.gpus[o.PCI]
	switch {
	case !known && !o.Missing:
		return
	case !known:
		g = f.know(nvml.GPU{PCI: o.PCI}, o.Time) // it vanished while nobody looked
	}
	g.failure = o.Err
	switch {
	case o.Missing:
		if g.facts[KindGPUFound] != "missing" {
			clear(g.facts) // it may be forgotten meanwhile: what it says is told again when it is back
		}
		g.silent()
		g.tell(f, o.Time, KindGPUFound, KindGPUMissing, "missing", nil)
	case errors.Is(o.Err, nvml.ErrLost):
		g.silent()
		g.tell(f, o.Time, KindGPULost, KindGPULost, "lost", nil)
		g.tell(f, o.Time, KindResponsive, KindResponsive, "yes", nil)
	case errors.Is(o.Err, nvml.ErrTimeout):
		g.silent()
		g.tell(f, o.Time, KindResponsive, KindUnresponsive, "no", nil)
	case errors.Is(o.Err, nvml.ErrStuck), errors.Is(o.Err, nvml.ErrPaused):
		g.unasked(f, o.Time)
	case o.Err == nil && o.Health != nil:
		f.answered(g, o)
	}
	f.Age(o.Time)
}

func (f *Facts) answered(g *told, o nvml.Observation) {
	f.reset(g, o)
	g.answered = o.Time
	g.tell(f, o.Time, KindGPULost, KindGPUBack, "back", nil)
	g.tell(f, o.Time, KindResponsive, KindResponsive, "yes", nil)
	if a := o.Health.Recovery; a.OK {
		value := strconv.Itoa(int(a.Value))
		g.tell(f, o.Time, KindRecoveryAction, KindRecoveryAction, value, map[string]string{"action": value})
	}
	if p := o.Health.RowRemapPending; p.OK {
		value := strconv.FormatBool(p.Value)
		g.tell(f, o.Time, KindRemapPending, KindRemapPending, value, map[string]string{"pending": value})
	}
	if p := o.Health.RowRemapFailed; p.OK {
		value := strconv.FormatBool(p.Value)
		g.tell(f, o.Time, KindRemapFailed, KindRemapFailed, value, map[string]string{"failed": value})
	}
	f.levels(g, o)
	f.counters(g, o)
	// Last: what it says must be known before its word ends a fault.
	g.tell(f, o.Time, KindFresh, KindFresh, "fresh", nil)
}

// each yields the GPUs in PCI order: what is told of several at once has one order in
// logs and trails.
func (f *Facts) each() iter.Seq[*told] {
	return func(yield func(*told) bool) {
		for _, pci := range slices.Sorted(maps.Keys(f.gpus)) {
			if !yield(f.gpus[pci]) {
				return
			}
		}
	}
}

// Age tells of the GPUs whose last answer is too old.
func (f *Facts) Age(now time.Time) {
	for g := range f.each() {
		if g.facts[KindFresh] != silent && now.Sub(g.answered) > f.Freshness {
			var fields map[string]string
			if g.failure != nil { // else nobody has asked it
				fields = map[string]string{"ago": now.Sub(g.answered).String(), "cause": g.failure.Error()}
			}
			g.tell(f, now, KindFresh, KindStale, "stale", fields)
		}
	}
}

// silent stands for what a fault has already told: the GPU does not answer.
const silent = "silent"

// silent says that the GPU does not answer: that it does is news again.
func (g *told) silent() { g.facts[KindFresh] = silent }

// unasked tells that nothing is known of the GPU at present, which is no word
// about the GPU itself.
func (g *told) unasked(f *Facts, at time.Time) {
	if g.facts[KindFresh] != silent {
		g.tell(f, at, KindFresh, KindStale, silent, nil)
	}
}

// tell emits a fact unless it was the last one told under its heading.
func (g *told) tell(f *Facts, at time.Time, heading, kind Kind, value string, fields map[string]string) {
	if g.facts[heading] == value {
		return
	}
	g.facts[heading] = value
	f.emit(Event{Source: SourceState, Kind: kind, Time: at, GPU: Device{PCI: g.gpu.PCI, UUID: g.gpu.UUID}, Fields: fields})
}
