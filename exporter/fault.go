package exporter

import (
	"cmp"
	"fmt"

	"gpuvet.dev/detector"
)

// FaultText is a fault in words, as people see it beside its GPU: "GPULost (Xid 79)",
// "LinkFault (Xid 145: Xid 154 decides)" where more than the cause has decided, and
// "ContainedMemoryError (Xid 94, instance 2/0)" where it stays with a MIG instance. Why
// one stays until it is cleared by hand is [Stays].
func FaultText(c detector.Condition) string {
	text := c.Cause
	if c.Why != "" && !c.Sticky {
		text += ": " + c.Why
	}
	if c.GPUInstance != nil {
		text += ", " + InstanceText(*c.GPUInstance, c.ComputeInstance)
	}
	return fmt.Sprintf("%s (%s)", c.Reason, text)
}

// Stays says why a fault stays until it is cleared by hand; empty: evidence ends it.
func Stays(c detector.Condition) string {
	if !c.Sticky {
		return ""
	}
	return cmp.Or(c.Why, "stays until it is cleared by hand")
}

// InstanceText names a GPU instance, or a compute instance in it: "instance 2/0".
func InstanceText(gi int, ci *int) string {
	if ci == nil {
		return fmt.Sprintf("instance %d", gi)
	}
	return fmt.Sprintf("instance %d/%d", gi, *ci)
}

// ClearCommand is the command that ends a fault by hand.
func ClearCommand(g *detector.GPUView, reason detector.Reason) string {
	return fmt.Sprintf("gpuvet clear %s %s", g.PCI, reason)
}
