//go:build cgo

package worker

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"gpuvet.dev/nvml/wire"
)

// request is one line of the input: a question, or why it is none.
type request struct {
	wire.Request
	err error
}

// receive reads requests until the input ends. It goes on reading while a call
// is stuck, or it would not see the end.
func receive(in io.Reader, requests chan<- request) error {
	defer close(requests)
	r := bufio.NewReader(in)
	for {
		text, err := line(r)
		if ended := errors.Is(err, io.EOF); ended && len(text) == 0 {
			return nil
		} else if err != nil && !ended {
			return fmt.Errorf("read request: %w", err)
		}
		select {
		case requests <- requestOf(text):
		default:
			return fmt.Errorf("read request: %d wait already", waiting)
		}
	}
}

// line reads a line. Of one that is too long it gives the beginning, which is too
// long as well.
func line(r *bufio.Reader) (text []byte, err error) {
	for {
		part, err := r.ReadSlice('\n')
		if len(text) <= wire.MaxLine {
			text = append(text, part...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return text, err
		}
	}
}

// requestOf reads one question. A person may have written it.
func requestOf(text []byte) (r request) {
	if len(text) > wire.MaxLine {
		return request{err: fmt.Errorf("read request: line of more than %d bytes", wire.MaxLine)}
	}
	text = bytes.TrimRight(text, "\r\n")
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if r.err = decoder.Decode(&r.Request); r.err == nil && len(bytes.TrimSpace(text[decoder.InputOffset():])) == 0 {
		return r
	}
	return request{err: fmt.Errorf("read request: %s", wrong(text, r.err))}
}

// wrong says what is wrong with a line, in words of JSON and not of Go.
func wrong(text []byte, err error) string {
	const want = `expected a question such as {"ask":"open"}`
	if key, ok := strings.CutPrefix(fmt.Sprint(err), "json: unknown field "); ok {
		return "unknown key " + key + ": " + want
	}
	if value, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && value.Field != "" {
		return fmt.Sprintf("%q: expected a string", value.Field)
	}
	const shown = 40
	switch {
	case len(text) == 0:
		return "empty line: " + want
	case len(text) > shown:
		return fmt.Sprintf("%s...: %s", text[:shown], want)
	}
	return fmt.Sprintf("%s: %s", text, want)
}
