package detector

import (
	"slices"
	"strconv"
	"strings"
)

// kernelFault folds a fault that the kernel log or NVML tells without an Xid.
func (f *folding) kernelFault() {
	e := &f.event
	g := f.at()
	if g == nil {
		return
	}
	verdict := f.policy.Kernel(*e, f.next.Driver.Major())
	cause := map[Kind]string{
		KindGPULost: "fallen off the bus", KindInit: "driver could not initialise it", KindPCIe: "PCIe error", KindLink: "NVLink trouble",
	}[e.Kind]
	if e.Kind == KindPCIe && verdict.Reason == GPULost {
		cause = "its slot is empty or has no link"
	}
	fact := e.Source == SourceState && e.Kind == KindGPULost
	if fact {
		cause = "NVML reports it lost"
		g.Fresh = false
	}
	if i, ok := f.symptomOf(g, verdict); ok && !fact {
		f.symptom(g, i, verdict, cause, 1)
		return
	}
	f.raise(g.PCI, verdict, cause, e.Fields["text"], fact)
}

// byMinor finds the GPU of a line that names it by its device minor number alone.
func (f *folding) byMinor() {
	e := &f.event
	minor, err := strconv.Atoi(e.Fields["minor"])
	if e.GPU.PCI != "" || err != nil {
		return
	}
	i := slices.IndexFunc(f.next.GPUs, func(g *GPU) bool { return !g.Missing && g.Minor != nil && *g.Minor == minor })
	if i >= 0 {
		e.GPU.PCI = f.next.GPUs[i].PCI
	}
}

// linkError folds NVLink trouble that is told without an Xid. A switch may tell it,
// which is no GPU.
func (f *folding) linkError() {
	if _, known := f.next.gpu(f.event.GPU.PCI); known {
		f.kernelFault()
	}
}

// busError folds an error of the PCIe bus. Its address may be a bridge's, so it
// makes no GPU that was not known. An error above several GPUs is about none of
// them alone, but a slot that lost its card has lost all that is behind it.
func (f *folding) busError() {
	e := &f.event
	pcis := []string{e.GPU.PCI}
	if behind := e.Fields["gpus"]; e.GPU.PCI == "" && behind != "" && pcie(*e).Reason == GPULost {
		pcis = strings.Split(behind, ",")
	}
	for _, pci := range pcis {
		if _, known := f.next.gpu(pci); known {
			e.GPU.PCI = pci
			f.kernelFault()
		}
	}
	if len(pcis) > 1 {
		e.GPU.PCI = ""
	}
}
