package node

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"gpuvet.dev/detector"
)

// What people with kubectl alone may ask of the daemon: the same as with the
// commands, several separated by ";". A value is dealt with as a whole when it is
// first seen, and again only after it has been another, or none.
const (
	// ClearAnnotation declares faults over: "3", "3 GPULost", "node FabricFault".
	ClearAnnotation = "gpuvet.dev/clear"
	// IgnoreAnnotation lets reasons have no effect for a while: "3 LinkFault for
	// 24h". What is not in the value any more counts again, if it began it.
	IgnoreAnnotation = "gpuvet.dev/ignore"
)

// maxOrders bounds a value, in bytes; somewhat more is kept of a longer one, so
// that it is known for one.
const maxOrders = 1000

// wish is the value of an annotation, and who has set it.
type wish struct{ value, author string }

func wishOf(n *corev1.Node, annotation string, most int) wish {
	value := n.Annotations[annotation]
	if value == "" {
		return wish{}
	}
	// A letter that is cut in two would be another one once it was saved.
	return wish{strings.ToValidUTF8(value[:min(len(value), most)], ""), manager(n, annotation)}
}

// manager is who claims to have set an annotation, by the API server's books;
// empty: nobody does.
func manager(n *corev1.Node, annotation string) string {
	name, newest := "", time.Time{}
	for _, entry := range n.ManagedFields {
		if entry.FieldsV1 == nil || entry.Subresource != "" && entry.Subresource != "status" {
			continue
		}
		var fields struct {
			Metadata struct {
				Annotations map[string]json.RawMessage `json:"f:annotations"`
			} `json:"f:metadata"`
		}
		if json.Unmarshal(entry.FieldsV1.GetRawBytes(), &fields) != nil {
			continue
		}
		var at time.Time
		if entry.Time != nil {
			at = entry.Time.Time
		}
		if _, has := fields.Metadata.Annotations["f:"+annotation]; has && (name == "" || at.After(newest)) {
			name, newest = entry.Manager, at
		}
	}
	return name
}

// order is one of the things that a value asks for.
type order struct {
	gpu    detector.Device
	reason string // empty: all
	length string // for how long, of what is to be ignored
}

// errGPU says that a value names a GPU that is not known.
var errGPU = errors.New("gpu")

// orders reads a value; it is good as a whole or not at all.
func orders(s *detector.Snapshot, by, value string) ([]order, error) {
	if len(value) > maxOrders {
		return nil, fmt.Errorf("longer than %d bytes", maxOrders)
	}
	var list []order
	for text := range strings.SplitSeq(value, ";") {
		read := readClear
		if by == detector.ByIgnore {
			read = readIgnore
		}
		o, name, err := read(strings.Fields(text))
		if err == nil {
			if o.gpu, err = s.Find(name); err != nil {
				err = fmt.Errorf("%w: %w", errGPU, err)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%q: %w", strings.TrimSpace(text), err)
		}
		list = append(list, o)
	}
	return list, nil
}

func readClear(words []string) (o order, gpu string, err error) {
	switch len(words) {
	case 1:
		return order{}, words[0], nil
	case 2:
		if _, err := detector.ParseReason(words[1]); err != nil {
			return order{}, "", fmt.Errorf("reason: %w", err)
		}
		return order{reason: words[1]}, words[0], nil
	default:
		return order{}, "", errors.New(`expected a GPU, and perhaps a reason, as in "3 GPULost"`)
	}
}

func readIgnore(words []string) (o order, gpu string, err error) {
	if len(words) != 4 || words[2] != "for" {
		return order{}, "", errors.New(`expected a GPU, a reason and for how long, as in "3 LinkFault for 24h"`)
	}
	if err := detector.Ignorable(words[0], words[1]); err != nil {
		return order{}, "", err
	}
	if _, err := detector.ParseIgnore(words[3]); err != nil {
		return order{}, "", fmt.Errorf("for: %w", err)
	}
	return order{reason: words[1], length: words[3]}, words[0], nil
}

// byHand are the events for an annotation that was not dealt with yet, and the
// note that it was. A crash in between has them done once more. It is early while
// the GPU that is named may still be found.
func byHand(s *detector.Snapshot, by, annotation string, w wish, early bool) []detector.Event {
	if w.value == s.Requests.Handled[by] {
		return nil
	}
	var list []order
	if w.value != "" {
		var err error
		switch list, err = orders(s, by, w.value); {
		case errors.Is(err, errGPU) && early:
			return nil
		case err != nil:
			return []detector.Event{handled(by, w.value, "annotation "+annotation+": "+err.Error())}
		}
	}
	var events []detector.Event
	event := func(kind detector.Kind, gpu detector.Device, reason string) map[string]string {
		e := requested(kind, map[string]string{"reason": reason, "by": detector.ByAnnotation, "author": w.author})
		e.GPU = gpu
		events = append(events, e)
		return e.Fields
	}
	if by == detector.ByIgnore {
		for _, past := range dropped(s, list) {
			event(detector.KindUnignore, past.gpu, past.reason)
		}
	}
	for _, o := range list {
		if by == detector.ByIgnore {
			event(detector.KindIgnore, o.gpu, o.reason)["for"] = o.length
		} else {
			event(detector.KindClear, o.gpu, o.reason)
		}
	}
	return append(events, handled(by, w.value, ""))
}

func handled(by, value, cause string) detector.Event {
	return requested(detector.KindHandled, map[string]string{"by": by, "value": value, "cause": cause})
}

// dropped is what the annotation has begun to ignore and does not name any more.
func dropped(s *detector.Snapshot, wanted []order) []order {
	var list []order
	for _, g := range s.GPUs {
		for _, i := range g.Ignored {
			past := order{gpu: detector.Device{PCI: g.PCI, UUID: g.UUID}, reason: string(i.Reason)}
			if i.By == detector.ByAnnotation && !names(wanted, past) {
				list = append(list, past)
			}
		}
	}
	return list
}

func names(list []order, o order) bool {
	for _, other := range list {
		if other.gpu.PCI == o.gpu.PCI && other.reason == o.reason {
			return true
		}
	}
	return false
}

// refusals are the words of an Event about a value that cannot be used, by who
// asks.
var refusals = map[string]struct{ reason, message string }{
	detector.ByAnnotation: {"PauseRefused", "not paused: "},
	detector.ByClear:      {"ClearRefused", "nothing cleared: "},
	detector.ByIgnore:     {"IgnoreRefused", "nothing ignored: "},
}

// refused says who asked for what was refused, and why it was; empty: nobody.
func refused(e detector.Event) (by, cause string) {
	if e.Kind == detector.KindPauseRefused || e.Kind == detector.KindHandled && e.Fields["cause"] != "" {
		return cmp.Or(e.Fields["by"], detector.ByAnnotation), e.Fields["cause"]
	}
	return "", ""
}
