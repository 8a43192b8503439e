package detector

import (
	"fmt"
	"slices"
	"time"
)

// signSpan is how long before a call that does not return the kernel log may
// have told why.
const signSpan = time.Minute

// Sign is a line of the kernel log that explains why calls do not return.
type Sign struct {
	Mono  time.Duration `json:"mono"` // since boot
	Cause string        `json:"cause"`
}

// sign notes such a line: one about a GPU that tells of trouble with hardware or
// driver, or one that the driver hangs, whichever GPU it means.
func (f *folding) sign() {
	e := &f.event
	if e.Source != SourceKernelLog {
		return
	}
	switch e.Kind {
	case KindXid, KindGPULost, KindInit, KindPCIe, KindHang, KindRecovery:
	default:
		return
	}
	v := f.policy.Kernel(*e, f.next.Driver.Major())
	trouble := (v.Class == Hardware || v.Class == Driver) && v.Action != ActNone && e.Fields["severity"] != "Correctable"
	if !trouble {
		return
	}
	sign := &Sign{Mono: e.Mono, Cause: string(e.Kind)}
	if e.Xid != nil {
		sign.Cause = fmt.Sprintf("Xid %d", e.Xid.Code)
	}
	if e.GPU.PCI == "" {
		if e.Kind == KindHang {
			f.next.Driver.Hang = newer(f.next.Driver.Hang, sign)
		}
		return
	}
	if i, ok := f.next.gpu(e.GPU.PCI); ok {
		g := f.own(i)
		g.Sign = newer(g.Sign, sign)
	}
}

// corroborate shows a GPU whose calls do not return without further waiting if
// the kernel log tells of trouble too, whichever of the two came first.
func (f *folding) corroborate() {
	if f.next.Pause != nil {
		return // whether the call has returned meanwhile is not known
	}
	hold, began := f.policy.Reasons[Unresponsive].Hold, f.next.Driver.Began
	for i, g := range f.next.GPUs {
		at := slices.IndexFunc(g.Conditions, func(c Condition) bool {
			return c.Reason == Unresponsive && c.Held != nil && c.Fact != ""
		})
		if at < 0 {
			continue
		}
		sign := newer(g.Sign, f.next.Driver.Hang)
		if stuck := *g.Conditions[at].Held - hold; sign == nil || sign.Mono < max(stuck-signSpan, began) {
			continue
		}
		g = f.own(i)
		g.Conditions = slices.Clone(g.Conditions)
		c := &g.Conditions[at]
		c.Held = nil
		c.Cause = fmt.Sprintf("%s, and the kernel log tells of %s", c.Cause, sign.Cause)
		f.tell(g.PCI, *c, Raised, c.Cause, f.event.Time)
	}
}

func newer(a, b *Sign) *Sign {
	if a == nil || b != nil && b.Mono >= a.Mono {
		return b
	}
	return a
}
