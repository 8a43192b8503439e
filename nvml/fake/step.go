package fake

import (
	"encoding/json"
	"maps"
	"math"
	"slices"

	"gpuvet.dev/nvml"
)

// An actionForm says how one kind of action is written in a step.
type actionForm struct {
	key    string
	ofGPU  bool     // the step names a GPU
	beside []string // further keys of the step
	decode func(value, step node, g GPU) Action
}

func actionForms() []actionForm {
	return slices.Concat([]actionForm{
		{"xid", true, []string{"recovery", "pid", "process", "text", "gpuInstance", "computeInstance"}, decodeXid},
		{"event", true, []string{"gpuInstance", "computeInstance"}, decodeEvent},
		{"lost", true, nil, func(n, _ node, _ GPU) Action { return Lost(n.boolean()) }},
		{"missing", true, nil, func(n, _ node, _ GPU) Action { return Missing(n.boolean()) }},
		{"bound", true, nil, func(n, _ node, _ GPU) Action { return Bound(n.boolean()) }},
		{"hang", true, []string{"uninterruptible"}, decodeHang},
		{"fail", true, []string{"for"}, func(n, step node, _ GPU) Action { return decodeFail(n, step) }},
		{"set", true, nil, func(n, _ node, g GPU) Action { return Set(decodeValues(n, g)) }},
		{"ramp", true, nil, decodeRamp},
		{"recovery", true, nil, func(n, _ node, _ GPU) Action { return Recovery(decodeRecovery(n)) }},
		{"ecc", true, nil, decodeECC},
		{"remapPending", true, nil, func(n, _ node, _ GPU) Action { return RemapPending(n.boolean()) }},
		{"remapFailed", true, nil, func(n, _ node, _ GPU) Action { return RemapFailed(n.boolean()) }},
		{"rowsRemapped", true, nil, decodeRows},
		{"mig", true, nil, func(n, _ node, g GPU) Action { return decodeMIG(n, g) }},
	}, detailForms(), []actionForm{
		{"kernel", false, nil, func(n, _ node, _ GPU) Action { return Kernel(n.text()) }},
		{"reload", false, []string{"version", "cuda"}, decodeReload},
		{"driver", false, nil, func(n, _ node, _ GPU) Action { return Present(n.word("present", "absent") == "present") }},
		{"init", false, []string{"for"}, func(n, step node, _ GPU) Action { return FailInit(decodeFail(n, step)) }},
		{"latency", false, nil, func(n, _ node, _ GPU) Action { return decodeLatency(n) }},
		{"library", false, nil, func(n, _ node, _ GPU) Action { return Library(driverVersion(n)) }},
	})
}

func decodeStep(n node, gpus []GPU) Step {
	form, ok := chosenForm(n)
	if !ok {
		return Step{}
	}
	n.keys(append([]string{"at", "gpu", form.key}, form.beside...)...)
	step := Step{At: n.at("at").required("a duration such as 5s").duration()}
	value, index := n.at(form.key), n.at("gpu")
	switch {
	case !form.ofGPU:
		if index.filled {
			index.fail("expected no gpu beside " + form.key)
		}
		step.Do = form.decode(value, n, GPU{})
	case len(gpus) == 0:
		index.expected("%s", indexes(gpus))
		step.Do = form.decode(value, n, GPU{})
	case index.value == "all":
		step.All = true
		for _, g := range gpus {
			step.Do = form.decode(value, n, g)
		}
	default:
		wanted := indexes(gpus) + ", or all"
		if _, number := index.value.(json.Number); index.filled && !number {
			index.expected("%s", wanted)
		} else {
			step.GPU = index.required(wanted).integer(0, len(gpus)-1)
		}
		step.Do = form.decode(value, n, gpus[step.GPU])
	}
	return step
}

// chosenForm finds the one action of a step. A key that goes beside another
// action does not count as one of its own.
func chosenForm(n node) (actionForm, bool) {
	entries, _ := n.value.(map[string]any)
	forms := actionForms()
	var found []actionForm
	for _, form := range forms {
		if _, ok := entries[form.key]; ok {
			found = append(found, form)
		}
	}
	for _, form := range slices.Clone(found) {
		found = slices.DeleteFunc(found, func(f actionForm) bool { return slices.Contains(form.beside, f.key) })
	}
	if len(found) == 1 {
		return found[0], true
	}
	var keys []string
	for _, form := range forms {
		keys = append(keys, form.key)
	}
	n.expected("at and exactly one of %s", list(keys))
	return actionForm{}, false
}

func decodeXid(n, step node, _ GPU) Action {
	x := Xid{
		Code: n.integer(1, 999),
		PID:  step.at("pid").integer(1, math.MaxInt32),
	}
	if process := step.at("process"); process.filled {
		x.Process = process.text()
	}
	if text := step.at("text"); text.filled {
		x.Text = text.text()
	}
	if action := step.at("recovery"); action.filled {
		x.Recovery = nvml.Some(decodeRecovery(action))
	}
	if instance := step.at("gpuInstance"); instance.filled {
		x.GPUInstance = new(instance.integer(0, 255))
	}
	if instance := step.at("computeInstance"); instance.filled {
		x.ComputeInstance = new(instance.integer(0, 255))
	}
	return x
}

func decodeEvent(n, step node, _ GPU) Action {
	e := Event{Type: nvml.EventType(n.word(eventNames()...))}
	if instance := step.at("gpuInstance"); instance.filled {
		e.GPUInstance = new(instance.integer(0, 255))
	}
	if instance := step.at("computeInstance"); instance.filled {
		e.ComputeInstance = new(instance.integer(0, 255))
	}
	return e
}

// eventNames are those of events that need no more than their type.
func eventNames() []string {
	return []string{
		string(nvml.EventSingleBitECC), string(nvml.EventSingleBitStorm), string(nvml.EventDoubleBitECC),
		string(nvml.EventRetirement), string(nvml.EventRetirementFailed),
		string(nvml.EventContainedPoison), string(nvml.EventFatalPoison),
		string(nvml.EventUnavailable), string(nvml.EventRecovery), string(nvml.EventMIGConfiguration),
	}
}

func decodeHang(n, step node, _ GPU) Action {
	if step.at("uninterruptible").boolean() {
		return Uninterruptible(n.duration())
	}
	return Hang(n.duration())
}

func decodeFail(n, step node) Fail {
	f := Fail{With: decodeFailure(n, "none"), For: step.at("for").positiveDuration()}
	if f.With == "none" {
		f.With = ""
	}
	return f
}

func decodeFailure(n node, also ...string) Failure {
	return Failure(n.word(append(failureNames(), also...)...))
}

func decodeReload(n, step node, _ GPU) Action {
	n.word("driver")
	return Reload{Version: driverVersion(step.at("version")), CUDA: cudaVersion(step.at("cuda"))}
}

func decodeRamp(n, _ node, g GPU) Action {
	ramp := Ramp{To: decodeValues(n, g, "over"), Over: n.at("over").required("a duration such as 10s").positiveDuration()}
	for _, q := range slices.Sorted(maps.Keys(ramp.To)) {
		if !ramp.To[q].OK {
			n.at(string(q)).expected("a value to go to")
		}
	}
	return ramp
}

func decodeRecovery(n node) nvml.RecoveryAction {
	var names []string
	for action := nvml.RecoverNone; action <= nvml.RecoverSystemReboot; action++ {
		names = append(names, action.String())
	}
	return nvml.RecoveryAction(max(0, slices.Index(names, n.word(names...))))
}

func decodeECC(n, _ node, _ GPU) Action {
	n.keys("corrected", "uncorrected", "location")
	ecc := ECC{
		Corrected:   n.at("corrected").count(),
		Uncorrected: n.at("uncorrected").count(),
		Location:    n.at("location").word("dram", "sram"),
	}
	if entries, ok := n.value.(map[string]any); ok && len(entries) == 0 {
		n.expected("corrected or uncorrected")
	}
	return ecc
}

func decodeRows(n, _ node, _ GPU) Action {
	n.keys("correctable", "uncorrectable")
	return RowsRemapped{
		Correctable:   n.at("correctable").count(),
		Uncorrectable: n.at("uncorrectable").count(),
	}
}
