package fake

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"gpuvet.dev/nvml"
)

func (x Xid) do(d *Driver, gpu int) {
	if !d.loaded {
		return
	}
	g := d.gpus[gpu]
	at := d.print(xidLine(g.PCI, x))
	d.tell(nvml.Event{
		Type: nvml.EventXid, Time: at, PCI: g.PCI, UUID: g.UUID, Xid: x.Code,
		GPUInstance: x.GPUInstance, ComputeInstance: x.ComputeInstance,
	})
	switch asked := demanded(x.Code); {
	case x.Recovery.OK:
		d.recover(g, x.Recovery.Value)
	case asked == nvml.RecoverNodeReboot, g.recovery == nvml.RecoverNone:
		d.recover(g, asked)
	}
}

// recover changes the recovery action, and tells it as drivers since 570 do.
func (d *Driver) recover(g *gpu, to nvml.RecoveryAction) {
	from := g.recovery
	g.recovery = to
	if from == to || !d.loaded || !d.asksRecovery() {
		return
	}
	at := d.print(recoveryLine(g.PCI, from, to))
	d.tell(nvml.Event{Type: nvml.EventRecovery, Time: at, PCI: g.PCI, UUID: g.UUID})
}

func (l Lost) do(d *Driver, gpu int) { d.gpus[gpu].lost = bool(l) }

func (m Missing) do(d *Driver, gpu int) { d.gpus[gpu].missing = bool(m) }

func (b Bound) do(d *Driver, gpu int) {
	g := d.gpus[gpu]
	if !d.loaded || g.missing || g.unbound == !bool(b) {
		return
	}
	g.unbound = !bool(b)
	e := nvml.Event{Type: nvml.EventUnbind, Time: d.stamp(), PCI: g.PCI}
	if b {
		e.Type = nvml.EventBind
	}
	d.report(Told{Event: e, Bound: bool(b), Unbound: !bool(b)})
	d.emit(e)
}

func (h Hang) do(d *Driver, gpu int) {
	d.gpus[gpu].hang.set(time.Now().Add(time.Duration(h)), false)
}

func (u Uninterruptible) do(d *Driver, gpu int) {
	d.gpus[gpu].hang.set(time.Now().Add(time.Duration(u)), true)
}

func (f Fail) do(d *Driver, gpu int) { d.gpus[gpu].failing = newFailing(f.With, f.For) }

func (f FailInit) do(d *Driver, _ int) { d.initFail = newFailing(f.With, f.For) }

func (e Event) do(d *Driver, gpu int) {
	if !d.loaded {
		return
	}
	g := d.gpus[gpu]
	d.tell(nvml.Event{
		Type: e.Type, Time: d.stamp(), PCI: g.PCI, UUID: g.UUID,
		GPUInstance: e.GPUInstance, ComputeInstance: e.ComputeInstance,
	})
}

func (m MIG) do(d *Driver, gpu int) {
	g := d.gpus[gpu]
	instances, err := m.cut(g)
	if err != nil {
		return // it was tried before
	}
	g.MIG, g.Instances, g.detail.MIGPending = nvml.Some(m.Enabled), instances, m.Enabled
	Event{Type: nvml.EventMIGConfiguration}.do(d, gpu)
}

func (m MIG) cut(g *gpu) ([]nvml.Instance, error) {
	if !g.MIG.OK {
		return nil, errors.New("it has no MIG")
	}
	return GPU{GPU: g.GPU, Model: g.model}.Cut(m.Profiles...)
}

func (s Set) do(d *Driver, gpu int) { d.gpus[gpu].set(Values(s), time.Now(), 0) }

func (r Ramp) do(d *Driver, gpu int) { d.gpus[gpu].set(r.To, time.Now(), r.Over) }

func (r Recovery) do(d *Driver, gpu int) { d.recover(d.gpus[gpu], nvml.RecoveryAction(r)) }

func (e ECC) do(d *Driver, gpu int) {
	g := d.gpus[gpu]
	if e.Location == "" {
		e.Location = "dram"
	}
	for _, aggregate := range []bool{false, true} {
		g.ecc[counter{false, aggregate, e.Location}] += e.Corrected
		g.ecc[counter{true, aggregate, e.Location}] += e.Uncorrected
	}
	if e.Uncorrected > 0 && d.loaded {
		d.tell(nvml.Event{Type: nvml.EventDoubleBitECC, Time: d.stamp(), PCI: g.PCI, UUID: g.UUID})
	}
}

func (r RemapPending) do(d *Driver, gpu int) { d.gpus[gpu].remapPending = bool(r) }

func (r RemapFailed) do(d *Driver, gpu int) { d.gpus[gpu].remapFailed = bool(r) }

func (r RowsRemapped) do(d *Driver, gpu int) {
	rows := &d.gpus[gpu].rows
	rows.Correctable += r.Correctable
	rows.Uncorrectable += r.Uncorrectable
}

func (k Kernel) do(d *Driver, _ int) { d.print(string(k)) }

func (r Reload) do(d *Driver, _ int) {
	d.unload()
	if r.Version != "" {
		d.info.Version, d.info.Library = r.Version, r.Version
	}
	d.info.CUDA = cmp.Or(r.CUDA, d.info.CUDA)
	d.load()
}

func (p Present) do(d *Driver, _ int) {
	switch {
	case bool(p) && !d.loaded:
		d.load()
	case !bool(p) && d.loaded:
		d.unload()
	}
}

// demanded is the recovery action that the driver asks for after an Xid, after
// the immediate actions of NVIDIA's Xid catalogue.
func demanded(code int) nvml.RecoveryAction {
	switch code {
	case 46, 48, 62, 64, 74, 95, 109, 110, 119, 120, 136, 140, 143, 155, 156, 158:
		return nvml.RecoverGPUReset
	case 79, 151:
		return nvml.RecoverNodeReboot
	}
	return nvml.RecoverNone
}

// xidLine writes an error the way the driver prints it.
func xidLine(pci string, x Xid) string {
	instances := ""
	if x.GPUInstance != nil {
		instances += fmt.Sprintf(" GPU-I:%02d", *x.GPUInstance)
	}
	if x.ComputeInstance != nil {
		instances += fmt.Sprintf(" GPU-CI:%02d", *x.ComputeInstance)
	}
	pid, process, text := "'<unknown>'", "<unknown>", x.Text
	if x.PID != 0 {
		pid = fmt.Sprint(x.PID)
	}
	if x.Process != "" {
		process = x.Process
	}
	if text == "" {
		text = message(x.Code)
	}
	return fmt.Sprintf("NVRM: Xid (PCI:%s%s): %d, pid=%s, name=%s, %s", slot(pci), instances, x.Code, pid, process, text)
}

// message is what the driver says about a code; many codes name a channel.
func message(code int) string {
	switch code {
	case 13:
		return "Graphics SM Warp Exception on (GPC 2, TPC 1, SM 0): Out Of Range Address"
	case 31:
		return "Ch 00000008, intr 00000000. MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_0 faulted @ 0x7f3c_a8000000. " +
			"Fault is of type FAULT_PDE ACCESS_TYPE_VIRT_READ"
	case 48:
		return "An uncorrectable double bit error (DBE) has been detected on GPU in the framebuffer " +
			"at physAddr 0x18f31d80 partition 16, subpartition 3."
	case 62:
		return "323f0f30 0000c3d8 00000000 206dae68 206da022 206da190 206d85f6 206d8d86"
	case 63:
		return "Row Remapper: New row (0x0000000018f31d80) marked for remapping, reset gpu to activate."
	case 64:
		return "Row Remapper: Error recording row (0x0000000018f31d80) for remapping."
	case 79:
		return "GPU has fallen off the bus."
	case 94:
		return "Contained: SM (0x1). RST: No, D-RST: No"
	case 95:
		return "Uncontained: LTC TAG (0x2,0x0). RST: Yes, D-RST: No"
	case 109:
		return "Ch 00000008, errorString CTX SWITCH TIMEOUT, Info 0x3c046"
	case 119:
		return "Timeout after 45s of waiting for RPC response from GPU0 GSP! Expected function 76 (GSP_RM_CONTROL) (0x20802a02 0x8)."
	case 120:
		return "GSP task exception: load access fault"
	}
	return "Ch 00000008"
}

// recoveryLine is Xid 154, in the words of driver 570.
func recoveryLine(pci string, from, to nvml.RecoveryAction) string {
	words := func(a nvml.RecoveryAction) string {
		names := [...]string{"None", "GPU Reset Required", "Node Reboot Required", "Drain P2P", "Drain and Reset"}
		if int(a) < len(names) {
			return names[a]
		}
		return a.String()
	}
	return fmt.Sprintf("NVRM: Xid (PCI:%s): 154, GPU recovery action changed from 0x%x (%s) to 0x%x (%s)",
		slot(pci), int(from), words(from), int(to), words(to))
}

// slot is the address as the driver prints it, without the function.
func slot(pci string) string {
	if len(pci) < 2 {
		return pci
	}
	return pci[:len(pci)-2]
}
