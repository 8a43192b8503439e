package exporter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode"

	"gpuvet.dev/detector"
)

// commandBytes bounds the body of a command.
const commandBytes = 1 << 10

// ErrorAnswer is the body of every answer that is no success.
type ErrorAnswer struct {
	Error string `json:"error"`
}

// Local serves the local API, for a socket that only root can open:
//
//	GET  /api/v1/snapshot   a [Report]
//	POST /api/v1/clear      a [ClearRequest], answered by a [ClearAnswer]
//	POST /api/v1/ignore     an [IgnoreRequest], answered by an [IgnoreAnswer]
//	POST /api/v1/unignore   an [UnignoreRequest], answered by an [UnignoreAnswer]
//	POST /api/v1/pause      a [PauseRequest], answered by a [PauseAnswer]
//	POST /api/v1/resume     a [ResumeRequest], answered by a [ResumeAnswer]
//
// A command submits an event, and is answered when it is on disk. A request
// that cannot be read is answered 400, a GPU that is not there 404, a body of
// more than 1 KiB 413, a state that could not be saved 500: each with an
// [ErrorAnswer].
func (e *Exporter) Local(submit func(context.Context, detector.Event) (*detector.Snapshot, error)) http.Handler {
	c := &commands{sources: &e.sources, submit: submit}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/snapshot", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, e.report())
	})
	mux.HandleFunc("POST /api/v1/clear", command(c.clear, "gpu, and perhaps reason and author"))
	mux.HandleFunc("POST /api/v1/ignore", command(c.ignore, "gpu, reason, for, and perhaps author"))
	mux.HandleFunc("POST /api/v1/unignore", command(c.unignore, "gpu, reason, and perhaps author"))
	mux.HandleFunc("POST /api/v1/pause", command(c.pause, "for, and perhaps why and author"))
	mux.HandleFunc("POST /api/v1/resume", command(c.resume, "perhaps author"))
	return mux
}

// commands are what a person may ask for over the local API.
type commands struct {
	sources *Sources
	submit  func(context.Context, detector.Event) (*detector.Snapshot, error)
}

// byHand submits what a person asks for.
func (c *commands) byHand(ctx context.Context, e detector.Event) (*detector.Snapshot, error) {
	e.Source = detector.SourceHand
	after, err := c.submit(ctx, e)
	if err != nil {
		return nil, fmt.Errorf("in force, but not on disk: %w", err)
	}
	return after, nil
}

// refusal is an error with the code of its answer.
type refusal struct {
	code  int
	cause error
}

func (r refusal) Error() string { return r.cause.Error() }
func (r refusal) Unwrap() error { return r.cause }

// command serves one command; fields says what its object has.
func command[Q, A any](do func(context.Context, Q) (A, error), fields string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var request Q
		err := decode(http.MaxBytesReader(w, r.Body, commandBytes), &request, fields)
		if err != nil {
			refuse(w, err)
			return
		}
		done, err := do(r.Context(), request)
		if err != nil {
			refuse(w, err)
			return
		}
		answer(w, http.StatusOK, done)
	}
}

func refuse(w http.ResponseWriter, err error) {
	code := http.StatusInternalServerError
	if r, ok := errors.AsType[refusal](err); ok {
		code = r.code
	}
	answer(w, code, ErrorAnswer{err.Error()})
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

// decode reads one JSON object that fits, and nothing after it.
func decode(body io.Reader, into any, fields string) error {
	err := decodeObject(body, into, fields)
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return refusal{http.StatusRequestEntityTooLarge, fmt.Errorf("body: larger than %d bytes", commandBytes)}
	}
	return refusal{http.StatusBadRequest, fmt.Errorf("body: %w", err)}
}

func decodeObject(body io.Reader, into any, fields string) error {
	d := json.NewDecoder(body)
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		wrong, ok := errors.AsType[*json.UnmarshalTypeError](err)
		switch {
		case ok && wrong.Field != "":
			return fmt.Errorf("%s: got %s, expected %s", wrong.Field, wrong.Value, wrong.Type)
		case ok:
			return fmt.Errorf("got %s, expected an object with %s", wrong.Value, fields)
		case errors.Is(err, io.EOF):
			return fmt.Errorf("empty, expected an object with %s", fields)
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

// oneLine refuses what would break a line of a log or of a terminal.
func oneLine(field, value string) error {
	if strings.ContainsFunc(value, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Errorf("%s: %q has characters that do not print, expected a text on one line", field, value)
	}
	return nil
}
