package exporter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"gpuvet.dev/detector"
)

// commandBytes bounds the body of a command.
const commandBytes = 1 << 10

// ClearRequest asks that faults be taken for over: POST /api/v1/clear.
type ClearRequest struct {
	// GPU is a PCI address, a UUID or an index; "node" means the faults of the
	// node itself.
	GPU    string `json:"gpu"`
	Reason string `json:"reason,omitempty"` // empty: all
	Author string `json:"author,omitempty"` // who asks, for the trail
}

// ClearAnswer is what came of it.
type ClearAnswer struct {
	Seq     uint64            `json:"seq"`           // of the first snapshot without them
	PCI     string            `json:"pci,omitempty"` // empty: the node
	Cleared []detector.Reason `json:"cleared"`       // that were visible before; may be none
	Left    []detector.Reason `json:"left"`          // still visible, or again
}

// ErrorAnswer is the body of every answer that is no success.
type ErrorAnswer struct {
	Error string `json:"error"`
}

// Local serves the local API, for a socket that only root can open:
//
//	GET  /api/v1/snapshot   a [Report]
//	POST /api/v1/clear      a [ClearRequest], answered by a [ClearAnswer]
//
// Clearing submits a detector.KindClear event, and answers when it is on disk.
// A request that cannot be read is answered 400, a GPU that is not there 404,
// a body of more than 1 KiB 413, a state that could not be saved 500: each with an
// [ErrorAnswer].
func (e *Exporter) Local(submit func(context.Context, detector.Event) (*detector.Snapshot, error)) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/snapshot", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, e.report())
	})
	mux.HandleFunc("POST /api/v1/clear", func(w http.ResponseWriter, r *http.Request) {
		done, code, err := e.clear(w, r, submit)
		if err != nil {
			answer(w, code, ErrorAnswer{err.Error()})
			return
		}
		answer(w, http.StatusOK, done)
	})
	return mux
}

func answer(w http.ResponseWriter, code int, body any) {
	data, err := json.Marshal(body)
	if err != nil {
		code, data = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be encoded"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(data, '\n')) // whoever asked has gone
}

func (e *Exporter) clear(
	w http.ResponseWriter, r *http.Request, submit func(context.Context, detector.Event) (*detector.Snapshot, error),
) (ClearAnswer, int, error) {
	var request ClearRequest
	if err := decode(http.MaxBytesReader(w, r.Body, commandBytes), &request); err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return ClearAnswer{}, http.StatusRequestEntityTooLarge, fmt.Errorf("body: larger than %d bytes", commandBytes)
		}
		return ClearAnswer{}, http.StatusBadRequest, fmt.Errorf("body: %w", err)
	}
	if err := e.check(request); err != nil {
		return ClearAnswer{}, http.StatusBadRequest, err
	}
	before := e.sources.Snapshot()
	device, err := find(before, request.GPU)
	if err != nil {
		return ClearAnswer{}, http.StatusNotFound, err
	}
	after, err := submit(r.Context(), detector.Event{
		Source: detector.SourceHand, Kind: detector.KindClear, GPU: device,
		Fields: map[string]string{"reason": request.Reason, "author": request.Author},
	})
	if err != nil {
		return ClearAnswer{}, http.StatusInternalServerError, fmt.Errorf("clear: in force, but not on disk: %w", err)
	}
	done := ClearAnswer{Seq: after.Seq, PCI: device.PCI, Cleared: []detector.Reason{}, Left: reasons(after, device.PCI)}
	for _, reason := range reasons(before, device.PCI) {
		if !slices.Contains(done.Left, reason) {
			done.Cleared = append(done.Cleared, reason)
		}
	}
	return done, http.StatusOK, nil
}

// decode reads one JSON value that fits, and nothing after it.
func decode(body io.Reader, into any) error {
	d := json.NewDecoder(body)
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		wrong, ok := errors.AsType[*json.UnmarshalTypeError](err)
		switch {
		case ok && wrong.Field != "":
			return fmt.Errorf("%s: got %s, expected %s", wrong.Field, wrong.Value, wrong.Type)
		case ok:
			return fmt.Errorf("got %s, expected an object with gpu, and perhaps reason and author", wrong.Value)
		case errors.Is(err, io.EOF):
			return errors.New("empty, expected an object with gpu, and perhaps reason and author")
		}
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		if err != nil {
			return err
		}
		return errors.New("goes on after its object, expected one object")
	}
	return nil
}

// check looks at the fields that need no look at the GPUs.
func (e *Exporter) check(request ClearRequest) error {
	if request.GPU == "" {
		return fmt.Errorf("gpu: missing, %s", expectedGPU)
	}
	if strings.ContainsFunc(request.Author, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Errorf("author: %q has characters that do not print, expected a name on one line", request.Author)
	}
	if request.Reason == "" || e.sources.Policy == nil {
		return nil
	}
	if _, ok := e.sources.Policy.Reasons[detector.Reason(request.Reason)]; !ok {
		known := make([]string, 0, len(e.sources.Policy.Reasons))
		for reason := range e.sources.Policy.Reasons {
			known = append(known, string(reason))
		}
		slices.Sort(known)
		return fmt.Errorf("reason: %q is none, expected one of %s", request.Reason, strings.Join(known, ", "))
	}
	return nil
}

const (
	nodeName    = "node"
	expectedGPU = `expected a PCI address (0000:3b:00.0), a UUID (GPU-...), an index (0) or "node"`
)

// find gives the device that a person means.
func find(s *detector.Snapshot, name string) (detector.Device, error) {
	if name == nodeName {
		return detector.Device{}, nil
	}
	for _, g := range s.GPUs {
		index := g.Index != nil && strconv.Itoa(*g.Index) == name
		if index || strings.EqualFold(g.PCI, name) || g.UUID != "" && strings.EqualFold(g.UUID, name) {
			return detector.Device{PCI: g.PCI, UUID: g.UUID}, nil
		}
	}
	return detector.Device{}, fmt.Errorf("gpu: %q is none of the %d GPUs of this node, %s", name, len(s.GPUs), expectedGPU)
}

// reasons lists the visible faults of a GPU, or of the node.
func reasons(s *detector.Snapshot, pci string) []detector.Reason {
	conditions := s.Node
	if g, ok := s.GPU(pci); ok {
		conditions = g.Conditions
	}
	list := make([]detector.Reason, 0, len(conditions))
	for _, c := range conditions {
		list = append(list, c.Reason)
	}
	return list
}
