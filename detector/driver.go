package detector

import (
	"fmt"
	"time"
)

// driverLoaded takes the driver as an inventory shows it. Another loading than
// the one before ends what happened before it began. Where the kernel log did
// not tell when that was, it counts from the last time that the loading before
// was seen: rather too early, so that a fault of the new one is not ended.
func (f *folding) driverLoaded() {
	e, s := &f.event, f.next
	d := DriverState{
		Version: e.Fields["version"], CUDA: e.Fields["cuda"], Load: e.Fields["load"], Asked: true,
		Began: s.Driver.Began, Started: s.Driver.Started, Shown: s.Driver.Shown, Hang: s.Driver.Hang,
	}
	f.noteLoaded(s.Driver, d)
	if s.Driver.Load != d.Load {
		d.Shown = e.Mono
	}
	if s.Driver.Load != "" && s.Driver.Load != d.Load {
		if !s.Driver.Announced {
			d.Began = max(d.Began, s.Driver.Started)
			if ago, err := time.ParseDuration(e.Fields["ago"]); err == nil {
				d.Began = max(d.Began, e.Mono-ago)
			}
		}
		f.driverRenewed()
	}
	s.Driver = d
	f.lowerNode(DriverStuck)
}

// noteLoaded tells people what has become of the driver.
func (f *folding) noteLoaded(was, is DriverState) {
	e := &f.event
	missed := fmt.Sprintf("%s, missing for %s", is.Version, (e.Mono - was.Absent).Round(time.Second))
	switch {
	case was.Load == "" && was.Missing == "":
		f.note(NotedLoaded, is.Version, e.Time)
	case was.Load == "":
		f.note(NotedArrived, missed, e.Time)
	case was.Load != is.Load && was.Version != is.Version:
		f.note(NotedReplaced, fmt.Sprintf("%s replaced by %s", was.Version, is.Version), e.Time)
	case was.Load != is.Load:
		f.note(NotedReloaded, is.Version+" was loaded again", e.Time)
	case was.Missing != "":
		f.note(NotedArrived, missed, e.Time)
	}
}

// driverMissing takes it that there is no driver. Its version is kept, so that
// the next one can be compared with it. One that was stuck still is: a driver
// without its library cannot be asked either, nor one that takes its time.
func (f *folding) driverMissing() {
	e, d := &f.event, &f.next.Driver
	if d.Missing != e.Fields["cause"] {
		f.note(NotedMissing, e.Fields["cause"], e.Time)
	}
	if d.Missing == "" {
		d.Absent = e.Mono
	}
	d.Missing, d.Asked = e.Fields["cause"], true
	f.silence()
}

// driverStuck takes it that the driver answers no question: no GPU can be told
// to be well until it has answered again.
func (f *folding) driverStuck() {
	d := &f.next.Driver
	d.Asked, d.Stuck = true, true
	f.raise("", Verdict{Reason: DriverStuck, Class: Driver, Effect: NoSchedule, Action: ActRebootNode}, "the driver answers no question", f.event.Fields["cause"], true)
	f.silence()
}

func (f *folding) driverAnswers() {
	f.next.Driver.Asked, f.next.Driver.Stuck = true, false
	f.lowerNode(DriverStuck)
}

// silence says that no GPU has answered yet.
func (f *folding) silence() {
	for i := range f.next.GPUs {
		f.own(i).Fresh = false
	}
}

// driverLoading takes the kernel's word that the driver is being loaded. It may
// come after an inventory has shown that loading.
func (f *folding) driverLoading() {
	d := &f.next.Driver
	if f.event.Mono <= d.Began {
		return
	}
	d.Began = f.event.Mono
	if d.Began > d.Shown {
		d.Announced = true
		f.driverRenewed()
	}
}

// driverRenewed forgets what the loading before has said: nothing of it need
// hold, and no GPU has answered yet.
func (f *folding) driverRenewed() {
	for i := range f.next.GPUs {
		g := f.own(i)
		g.Fresh, g.Pending, g.Retiring, g.Recovery, g.Reset = false, false, false, nil, 0
		f.asksNoMore(g, "")
	}
}
