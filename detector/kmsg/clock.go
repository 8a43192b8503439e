package kmsg

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// clock turns the kernel log's own clock into wall-clock time.
//
// The kernel stamps records with local_clock, which starts at boot as
// CLOCK_MONOTONIC does but is not steered by NTP: it drifts from it by
// milliseconds an hour, seconds a month. The difference, the lag, is measured
// through perf where that is allowed, and bounded by live records everywhere:
// a record cannot be received before it was written.
type clock struct {
	origin    time.Time     // an instant read on Go's clock
	monotonic time.Duration // CLOCK_MONOTONIC at origin

	wall time.Time     // latest reading, without Go's monotonic part
	now  time.Duration // CLOCK_MONOTONIC at wall

	lag      time.Duration // CLOCK_MONOTONIC minus the record clock
	known    bool          // lag was measured or seen, not assumed to be 0
	lagSince time.Duration // CLOCK_MONOTONIC when lag was last set
	measure  func() (lag time.Duration, err error)
}

const (
	// The kernel slews CLOCK_MONOTONIC by at most 500 ppm, so the lag grows no
	// faster than that between two records.
	slew = 2000
	// A live record that comes later than this after its time either waited
	// for us or shows a step of the clocks: worth a measurement.
	lateness = 5 * time.Millisecond
)

// start reads the clocks and measures the lag. A lag that cannot be measured
// is taken as 0 until a live record shows it.
func (c *clock) start() error {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return fmt.Errorf("read monotonic clock: %w", err)
	}
	c.origin, c.monotonic = time.Now(), time.Duration(ts.Nano())
	c.tick()
	c.remeasure()
	return nil
}

// tick reads the clocks; times given until the next tick rest on them.
func (c *clock) tick() {
	t := time.Now()
	c.wall, c.now = t.Round(0), c.monotonic+t.Sub(c.origin)
}

// at gives the wall-clock time of a record.
func (c *clock) at(mono time.Duration) time.Time {
	return c.wall.Add(mono + c.lag - c.now)
}

// received corrects the lag by a record that was written before the latest
// tick and read at once.
func (c *clock) received(mono time.Duration) {
	seen := c.now - mono
	likely := c.lag + (c.now-c.lagSince)/slew
	switch {
	case !c.known || seen <= likely:
		c.setLag(seen)
	case seen > likely+lateness && c.remeasure():
	default:
		c.setLag(likely)
	}
}

func (c *clock) remeasure() bool {
	lag, err := c.measure()
	if err == nil {
		c.setLag(lag)
	}
	return err == nil
}

func (c *clock) setLag(lag time.Duration) {
	c.lag, c.lagSince, c.known = lag, c.now, true
}

// measureLag reads local_clock, which no system call gives directly: perf
// stamps its records with the same clock, and renaming a thread (here, to the
// name that it has) makes such a record at once. Needs CAP_PERFMON or a low
// kernel.perf_event_paranoid.
func measureLag() (time.Duration, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	attr := unix.PerfEventAttr{
		Type:        unix.PERF_TYPE_SOFTWARE,
		Config:      unix.PERF_COUNT_SW_DUMMY,
		Size:        uint32(unsafe.Sizeof(unix.PerfEventAttr{})),
		Sample_type: unix.PERF_SAMPLE_TIME,
		Bits:        unix.PerfBitComm | unix.PerfBitSampleIDAll | unix.PerfBitExcludeKernel | unix.PerfBitExcludeHv,
	}
	fd, err := unix.PerfEventOpen(&attr, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return 0, fmt.Errorf("open perf event: %w", err)
	}
	defer unix.Close(fd)
	page := unix.Getpagesize()
	ring, err := unix.Mmap(fd, 0, 2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return 0, fmt.Errorf("map perf ring: %w", err)
	}
	defer func() { _ = unix.Munmap(ring) }()
	var name [16]byte
	if err := unix.Prctl(unix.PR_GET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0); err != nil {
		return 0, fmt.Errorf("read thread name: %w", err)
	}

	// The shortest of a few tries has the least room for an interruption
	// between the clocks.
	var lag time.Duration
	shortest := time.Duration(-1)
	for range 5 {
		var before, after unix.Timespec
		_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &before)
		err := unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0)
		_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &after)
		if err != nil {
			return 0, fmt.Errorf("set thread name: %w", err)
		}
		head := binary.NativeEndian.Uint64(ring[unsafe.Offsetof(unix.PerfEventMmapPage{}.Data_head):])
		if head == 0 || head > uint64(page) {
			return 0, fmt.Errorf("read perf ring: %d bytes", head)
		}
		stamp := binary.NativeEndian.Uint64(ring[page+int(head)-8:]) // the record's last field
		if took := time.Duration(after.Nano() - before.Nano()); shortest < 0 || took < shortest {
			shortest, lag = took, time.Duration(before.Nano()-int64(stamp))+took/2
		}
	}
	return lag, nil
}
