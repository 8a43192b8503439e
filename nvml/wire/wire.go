// Package wire is what the daemon and its NVML worker say to each other.
//
// The worker is a process of its own. It reads [Request] values from its
// standard input and writes [Answer] values to its standard output, each as one
// line of JSON; before anything else it writes a [Hello]. It serves one request
// at a time, in order, so that a call which does not return has one culprit, and
// it ends when its input does, whatever its calls do:
//
//	$ gpuvet-nvml
//	{"protocol":1,"version":"v0.3.0"}
//	{"ask":"open"}
//	{}
//	{"ask":"list"}
//	{"list":{"driver":"570.195.03","cuda":"12.8","load":"570.195.03@4711","gpus":["0000:18:00.0"]}}
//
// Nothing here knows of NVML's numbers: the worker turns them into the values of
// package nvml, and a return code into a [Kind].
package wire

import (
	"errors"
	"fmt"

	"gpuvet.dev/nvml"
)

// Protocol is the version of what is said. It changes with every change that
// the other side could misunderstand.
const Protocol = 1

// MaxLine is the length of a line at most, in bytes, with its end.
const MaxLine = 1 << 20

// Hello is the worker's first line.
type Hello struct {
	Protocol int    `json:"protocol"`
	Version  string `json:"version"` // of the build, for people
}

// Ask is what is asked for.
type Ask string

// The questions, in the order in which a conversation has them.
const (
	// AskOpen loads the library and has NVML begin. It is asked once, first; after
	// an error no other question may follow.
	AskOpen Ask = "open"
	// AskList lists the driver and the addresses of its GPUs. It touches no GPU.
	AskList Ask = "list"
	// AskDescribe tells what does not change about one GPU.
	AskDescribe Ask = "describe"
	// AskReadings and AskHealth are those of [nvml.Driver].
	AskReadings Ask = "readings"
	AskHealth   Ask = "health"
	// AskWatch adds one GPU to those whose events are waited for.
	AskWatch Ask = "watch"
	// AskEvents waits for events: an answer for each, and an empty one at least
	// every [Heartbeat] seconds, until the input ends. Nothing can be asked after it.
	AskEvents Ask = "events"
)

// Heartbeat is the time in seconds after which a worker that waits for events
// says that it is still there.
const Heartbeat = 5

// Request is one question.
type Request struct {
	Ask Ask    `json:"ask"`
	GPU string `json:"gpu,omitempty"` // PCI address, 0000:3b:00.0
}

// Answer is the answer to one request, in the field that fits the question, or
// why there is none.
type Answer struct {
	Error    *Error         `json:"error,omitempty"`
	List     *List          `json:"list,omitempty"`
	GPU      *nvml.GPU      `json:"gpu,omitempty"`
	Readings *nvml.Readings `json:"readings,omitempty"`
	Health   *nvml.Health   `json:"health,omitempty"`
	Event    *nvml.Event    `json:"event,omitempty"`
}

// List is the driver with the addresses of its GPUs, in PCI order.
type List struct {
	Driver string   `json:"driver"`
	CUDA   string   `json:"cuda,omitempty"`
	Load   string   `json:"load"` // see [nvml.Inventory]
	GPUs   []string `json:"gpus"`
}

// Kind says what a caller can make of an error.
type Kind string

// The kinds of error.
const (
	KindNoDriver Kind = "no-driver" // nvml.ErrNoDriver; the worker is of no use any more
	KindLost     Kind = "lost"      // nvml.ErrLost
	KindNotFound Kind = "not-found" // nvml.ErrNotFound
	// KindRenewed: the driver was taken away from under this worker, and perhaps
	// another one is loaded by now. The worker is of no use any more.
	KindRenewed Kind = "renewed"
	// KindOther: see the text.
	KindOther Kind = "other"
)

// Error is why a question has no answer.
type Error struct {
	Kind Kind   `json:"kind"`
	Text string `json:"text"` // the operation and the cause, in words
}

// ErrRenewed is the driver being taken away, and perhaps loaded anew.
var ErrRenewed = errors.New("driver was unloaded")

// told is an error in the words of the worker, which say it all.
type told struct {
	text  string
	cause error
}

func (e *told) Error() string { return e.text }
func (e *told) Unwrap() error { return e.cause }

// Err is the error as package nvml has it: nil for no error.
func (e *Error) Err() error {
	if e == nil {
		return nil
	}
	var cause error
	switch e.Kind {
	case KindNoDriver:
		cause = nvml.ErrNoDriver
	case KindLost:
		cause = nvml.ErrLost
	case KindNotFound:
		cause = nvml.ErrNotFound
	case KindRenewed:
		cause = ErrRenewed
	case KindOther:
		return errors.New(e.Text)
	default:
		return fmt.Errorf("%s (%s)", e.Text, e.Kind)
	}
	return &told{e.Text, cause}
}

// Useless reports whether the worker that said so should be replaced.
func (e *Error) Useless() bool {
	return e != nil && (e.Kind == KindNoDriver || e.Kind == KindRenewed)
}
