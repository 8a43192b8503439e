package detector

import (
	"strings"

	"gpuvet.dev/detector/xid"
)

// verdict reads a row of the catalogue. The buckets are NVIDIA's; a "?" marks
// one that its workbook leaves blank and its trigger column suggests.
func verdict(e xid.Entry) Verdict {
	class := categoryClass(e.Category)
	switch e.Bucket {
	case "RESTART_APP":
		if class == Application {
			return Verdict{Reason: ApplicationFault, Class: Application, Action: ActRestartApp}
		}
		return Verdict{Reason: warning(e.Code, class), Class: class, Action: ActRestartApp}
	case "WORKFLOW_XID_45":
		return Verdict{Reason: ApplicationFault, Class: Application, Action: ActRestartApp}
	case "RESET_GPU":
		reason := ResetRequired
		switch {
		case class == Link:
			reason = LinkFault
		case memoryXid(e.Code):
			reason = UncorrectableMemory
		}
		return Verdict{Reason: reason, Class: class, Effect: NoSchedule, Action: ActResetGPU}
	case "RESTART_BM":
		return Verdict{Reason: GPULost, Class: class, Effect: NoSchedule, Action: ActRebootNode}
	case "RESTART_VM":
		return Verdict{Reason: RebootRequired, Class: class, Effect: NoSchedule, Action: ActRebootNode}
	case "WORKFLOW_XID_48", "FOLLOW_XID_48":
		return Verdict{Reason: UncorrectableMemory, Class: Hardware, Effect: NoSchedule, Action: ActResetGPU}
	case "WORKFLOW_NVLINK_ERR":
		return Verdict{Reason: LinkFault, Class: Link, Effect: NoSchedule, Action: ActResetGPU}
	case "WORKFLOW_NVLINK5_ERR":
		// What the line's own fields decide; see decodeNVLink.
		return Verdict{Reason: LinkFault, Class: Link, Effect: NoSchedule, Action: ActResetGPU}
	case "FOLLOW_XID_154_TEXT":
		// What the line's own text decides; see recovery.
		return Verdict{Class: Driver, Action: ActWatch}
	case "CHECK_MECHANICALS":
		return Verdict{Reason: ThermalFault, Class: Hardware, Effect: NoSchedule, Action: ActCheckHardware}
	case "UPDATE_SWFW":
		return Verdict{Reason: DriverWarning, Class: Driver, Action: ActUpdateSoftware}
	case "CHECK_UVM":
		return Verdict{Reason: LinkWarning, Class: Link, Action: ActWatch}
	case "IGNORE", "IGNORE?":
		return Verdict{Class: Information, Action: ActNone}
	case "CONTACT_SUPPORT":
		return Verdict{Class: Information, Action: ActContactSupport}
	default:
		// Unused or unspecified codes: the driver's recovery action decides.
		return Verdict{Class: Information, Action: ActWatch}
	}
}

func categoryClass(category string) Class {
	switch category {
	case "user-app", "software":
		return Application
	case "hardware":
		return Hardware
	case "driver":
		return Driver
	case "link":
		return Link
	case "fabric":
		return Fabric
	default:
		return Information
	}
}

// memoryXid names the reset-class codes that tell of memory beyond repair.
func memoryXid(code int) bool { return code == 64 || code == 95 || code == 140 }

// warning is the reason of a device fault that does not fence.
func warning(code int, class Class) Reason {
	switch {
	case code == 94:
		return ContainedMemoryError
	case class == Hardware:
		return HardwareWarning
	case class == Driver:
		return DriverWarning
	case class == Link:
		return LinkWarning
	case class == Fabric:
		return FabricWarning
	default:
		return ""
	}
}

// Xid is the verdict on one report. driverMajor, the driver's branch, chooses
// the layout of NVLink5 reports; 0 if unknown.
func (p *Policy) Xid(r *Report, driverMajor int) Verdict {
	row, ok := p.Xids[r.Code]
	if !ok {
		return Verdict{Class: Information, Action: ActWatch}
	}
	switch {
	case row.Ignore:
		return row.Verdict
	case r.NVLink != nil:
		return decodeNVLink(row.Verdict, r, driverMajor)
	case r.Code >= firstNVLink5 && r.Code <= lastNVLink5:
		// NVML tells the number alone: the kernel's line decides.
		return Verdict{Reason: LinkWarning, Class: Link, Action: ActWatch}
	default:
		return row.Verdict
	}
}

const firstNVLink5, lastNVLink5 = 144, 150

// decodeNVLink narrows the verdict on an NVLink5 report by its unit, sub-code
// and status. Where no rule matches, the line's own word decides; where the
// rule waits for Xid 154, the report alone does nothing.
func decodeNVLink(v Verdict, r *Report, driverMajor int) Verdict {
	d, ok := r.NVLink.Decode(r.Code, driverMajor)
	switch {
	case d.PeerSide:
		// Whatever the line's own word: the fault is at the other end.
		return Verdict{Reason: LinkWarning, Class: Link, Action: warned(d)}
	case ok && d.Bucket == "RESET_GPU", !ok && r.NVLink.Fatal:
		return v
	case ok && d.Bucket == "IGNORE":
		return Verdict{Class: Link, Action: ActNone}
	case d.FollowsXid154():
		return Verdict{Reason: LinkWarning, Class: Link, Action: warned(d)}
	default:
		return Verdict{Reason: LinkWarning, Class: Link, Action: ActWatch}
	}
}

// warned is what to do about an NVLink5 report that does not fence: where Xid 154
// is to say, and says nothing, the application is to be restarted.
func warned(d xid.Decoding) Action {
	if d.FollowsXid154() {
		return ActRestartApp
	}
	return ActWatch
}

// why says what has decided about a report where that is not its code alone;
// empty otherwise.
func why(r *Report, driverMajor int) string {
	if r == nil || r.NVLink == nil {
		return ""
	}
	d, _ := r.NVLink.Decode(r.Code, driverMajor)
	switch {
	case d.PeerSide:
		return "the fault is at the other end of the link"
	case d.Undecoded:
		return "no rule fits, and the line says " + d.Severity
	case d.FollowsXid154():
		return "Xid 154 decides"
	default:
		return ""
	}
}

// SXid is the verdict on a switch report: the word in the line decides, for
// the Fabric Manager guide classes only a part of the codes.
func (p *Policy) SXid(r *Report) Verdict {
	if r.Severity == "Fatal" {
		return Verdict{Reason: FabricFault, Class: Fabric, Effect: NoSchedule, Action: ActRebootNode}
	}
	return Verdict{Reason: FabricWarning, Class: Fabric, Action: ActWatch}
}

// recovery is the verdict on a recovery action that the driver asks for, in
// the numbers of NVML field 230. It is the referee after any device fault.
func recovery(action int) Verdict {
	switch action {
	case 0:
		return Verdict{Class: Driver, Action: ActNone}
	case 1, 6:
		return Verdict{Reason: ResetRequired, Class: Driver, Effect: NoSchedule, Action: ActResetGPU}
	case 2, 7:
		return Verdict{Reason: RebootRequired, Class: Driver, Effect: NoSchedule, Action: ActRebootNode}
	case 3:
		return Verdict{Reason: LinkFault, Class: Driver, Effect: NoSchedule, Action: ActDrainP2P}
	case 4:
		return Verdict{Reason: ResetRequired, Class: Driver, Effect: NoSchedule, Action: ActDrainAndReset}
	default:
		return Verdict{Class: Driver, Action: ActWatch}
	}
}

// Kernel is the verdict on a kernel line of the given kind; for Xid and SXid
// it is that of the code.
func (p *Policy) Kernel(e Event, driverMajor int) Verdict {
	switch {
	case e.Xid != nil && e.Xid.Action != nil:
		return recovery(e.Xid.Action.To)
	case e.Xid != nil:
		return p.Xid(e.Xid, driverMajor)
	case e.SXid != nil:
		return p.SXid(e.SXid)
	}
	switch e.Kind {
	case KindGPULost:
		return Verdict{Reason: GPULost, Class: Hardware, Effect: NoSchedule, Action: ActRebootNode}
	case KindInit:
		return Verdict{Reason: DriverFault, Class: Driver, Effect: NoSchedule, Action: ActResetGPU}
	case KindPCIe:
		return pcie(e)
	case KindLink:
		return Verdict{Reason: LinkUnstable, Class: Link, Action: ActWatch}
	case KindHang, KindRecovery:
		return Verdict{Class: Driver, Action: ActWatch}
	default:
		return Verdict{Class: Information, Action: ActNone}
	}
}

// pcie is the verdict on an error of the PCIe bus. A slot whose link is down or
// whose card is gone has lost the GPU. After a fatal error the kernel resets the
// link and brings the device back if it can (Documentation/PCI/pcieaer-howto.rst):
// it is a warning until NVML or an Xid says more. The others lost at most one
// transaction.
func pcie(e Event) Verdict {
	switch {
	case e.Fields["severity"] != "Fatal":
		return Verdict{Class: Hardware, Action: ActWatch}
	case slotLost(e.Fields["text"]):
		return Verdict{Reason: GPULost, Class: Hardware, Effect: NoSchedule, Action: ActRebootNode}
	default:
		return Verdict{Reason: HardwareWarning, Class: Hardware, Action: ActWatch}
	}
}

// slotLost reports whether a fatal error is told by a hot-plug slot, in the words
// of the kernel's pciehp: "Slot(3): Link Down", "Card not present on Slot(3)".
func slotLost(text string) bool {
	text = strings.TrimPrefix(text, "pciehp: ")
	for _, start := range []string{"Slot(", "slot(", "Card not present on Slot("} {
		if strings.HasPrefix(text, start) {
			return true
		}
	}
	return false
}
