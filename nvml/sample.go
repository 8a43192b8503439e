package nvml

import "time"

// Sample is what a [Sampler] knows of the node at one time. It is never
// changed: each answer makes a new one.
type Sample struct {
	Time time.Time // when it was put together; zero before the first answer

	Inventory      Inventory // the last good one
	InventoryErr   error     // why the last attempt gave none; nil if it did
	InventoryTime  time.Time // of the last attempt that ended, well or not; zero before the first
	InventoryCalls CallCount

	GPUs []GPUSample // by Index
}

// GPUSample is what is known of one GPU. Readings and Health are the last good
// ones: look at their errors, or ask whether they are fresh, before you show
// them as the present.
type GPUSample struct {
	GPU GPU
	// Index is the place in PCI order in the first inventory of the boot. It is
	// kept while the GPU is lost or missing; a GPU that comes later gets the
	// lowest free one.
	Index int
	// Missing: the last good inventory does not list the GPU. It is not asked
	// for readings and health meanwhile, nor is any while the inventory fails with
	// [ErrNoDriver], [ErrStuck] or [ErrPaused].
	Missing bool

	Readings    Readings // Time is zero if it never answered
	ReadingsErr error    // of the last poll
	Health      Health   // Time is zero if it never answered
	HealthErr   error    // of the last poll

	ReadingsAnswered, HealthAnswered time.Time // last good answer of each kind
	Answered                         time.Time // the later of the two

	Freshness time.Duration // for how long an answer counts; 0: [DefaultFreshness]
	Calls     CallStats
}

// DefaultFreshness is for how long an answer counts.
const DefaultFreshness = 30 * time.Second

// Fresh says whether the GPU gave any good answer lately.
func (g *GPUSample) Fresh(now time.Time) bool { return g.fresh(g.Answered, now) }

// ReadingsFresh says whether Readings are of late.
func (g *GPUSample) ReadingsFresh(now time.Time) bool { return g.fresh(g.ReadingsAnswered, now) }

// HealthFresh says whether Health is of late.
func (g *GPUSample) HealthFresh(now time.Time) bool { return g.fresh(g.HealthAnswered, now) }

func (g *GPUSample) fresh(answered, now time.Time) bool {
	freshness := g.Freshness
	if freshness == 0 {
		freshness = DefaultFreshness
	}
	return !answered.IsZero() && now.Sub(answered) < freshness
}

// CallStats counts the calls about one GPU by their kind.
type CallStats struct{ Readings, Health CallCount }

// CallCount counts calls of one kind since the sampler began. A call counts
// when its answer is there or its deadline is past.
type CallCount struct {
	Count  uint64
	Errors uint64        // of Count, those without a good answer
	Time   time.Duration // the sum of what they took
}

// Observation is the outcome of one poll, good or bad. One with a PCI address
// is about that GPU: Health, or Err, or Missing. One without is about the node:
// Inventory, or InventoryErr. It may be kept, and is not to be changed.
type Observation struct {
	Time time.Time

	Inventory    *Inventory
	InventoryErr error
	Indexes      map[string]int // with Inventory: the index of each GPU by PCI address

	PCI     string
	Health  *Health
	Err     error
	Missing bool // the inventory does not list the GPU any more; Err is [ErrNotFound]
}

// Index is the index of a GPU, or otherwise if the observation does not say.
func (o Observation) Index(pci string, otherwise int) int {
	if i, ok := o.Indexes[pci]; ok {
		return i
	}
	return otherwise
}
