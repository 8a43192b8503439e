package fake

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// parse gives a YAML document as nested maps, lists and scalars. Numbers stay
// as they were written, so that a fault can quote them.
func parse(data []byte) (any, error) {
	asJSON, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	var tree any
	decoder := json.NewDecoder(bytes.NewReader(asJSON))
	decoder.UseNumber()
	if err := decoder.Decode(&tree); err != nil {
		return nil, err
	}
	return tree, nil
}

// faults collects what is wrong with a file, so that all of it is told at once.
type faults struct{ told []string }

func (f *faults) add(fault string) {
	if !slices.Contains(f.told, fault) {
		f.told = append(f.told, fault)
	}
}

func (f *faults) err(file string) error {
	var all []error
	for _, fault := range f.told {
		all = append(all, errors.New(file+": "+fault))
	}
	return errors.Join(all...)
}

// node is one place in the file, filled or not. Reading a place that is not
// filled gives the zero value; reading a wrong value gives it too, and notes
// the fault.
type node struct {
	path   string
	value  any
	filled bool
	faults *faults
}

func (n node) fail(want string) {
	fault := written(n.value) + ": " + want
	if n.path != "" {
		fault = n.path + ": " + fault
	}
	n.faults.add(fault)
}

func (n node) expected(want string, args ...any) { n.fail("expected " + fmt.Sprintf(want, args...)) }

// required notes a fault if nothing is here.
func (n node) required(want string) node {
	if !n.filled {
		n.faults.add(n.path + ": missing: expected " + want)
	}
	return n
}

func (n node) isNull() bool { return n.filled && n.value == nil }

func (n node) isList() bool {
	_, ok := n.value.([]any)
	return ok
}

// keys gives the entries of a map, and notes a fault for each key that is not
// one of those.
func (n node) keys(known ...string) map[string]any {
	if !n.filled {
		return nil
	}
	entries, ok := n.value.(map[string]any)
	if !ok {
		n.expected("a map with %s", list(known))
		return nil
	}
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		if !slices.Contains(known, key) {
			n.faults.add(n.child(key) + ": unknown key: expected one of " + list(known))
		}
	}
	return entries
}

func (n node) child(key string) string {
	if n.path == "" {
		return key
	}
	return n.path + "." + key
}

// at is the place under a key.
func (n node) at(key string) node {
	entries, _ := n.value.(map[string]any)
	value, ok := entries[key]
	return node{path: n.child(key), value: value, filled: ok, faults: n.faults}
}

// entries are all places of a map whose keys are free, in order of the keys.
func (n node) entries() iter.Seq2[string, node] {
	return func(yield func(string, node) bool) {
		entries, ok := n.value.(map[string]any)
		if n.filled && !ok {
			n.expected("a map")
		}
		for _, key := range slices.Sorted(maps.Keys(entries)) {
			if !yield(key, n.at(key)) {
				return
			}
		}
	}
}

func (n node) list() []node {
	if !n.filled {
		return nil
	}
	values, ok := n.value.([]any)
	if !ok {
		n.expected("a list")
		return nil
	}
	items := make([]node, len(values))
	for i, value := range values {
		items[i] = node{path: fmt.Sprintf("%s[%d]", n.path, i), value: value, filled: true, faults: n.faults}
	}
	return items
}

func (n node) text() string {
	s, ok := n.value.(string)
	if n.filled && (!ok || s == "") {
		n.expected("text")
	}
	return s
}

func (n node) matching(form *regexp.Regexp, want string) string {
	s, ok := n.value.(string)
	if n.filled && (!ok || !form.MatchString(s)) {
		n.expected("%s", want)
	}
	return s
}

// word is a text out of a set.
func (n node) word(words ...string) string {
	s, _ := n.value.(string)
	if n.filled && !slices.Contains(words, s) {
		n.expected("%s", list(words))
	}
	return s
}

func (n node) boolean() bool {
	b, ok := n.value.(bool)
	if n.filled && !ok {
		n.expected("true or false")
	}
	return b
}

func (n node) integer(low, high int) int {
	number, ok := n.value.(json.Number)
	i, err := strconv.Atoi(number.String())
	if n.filled && (!ok || err != nil || i < low || i > high) {
		n.expected("%d to %d", low, high)
		return 0
	}
	return i
}

// count is a number of things.
func (n node) count() uint64 { return uint64(n.integer(0, math.MaxInt32)) }

func (n node) number(low, high float64) float64 {
	number, ok := n.value.(json.Number)
	f, err := number.Float64()
	if n.filled && (!ok || err != nil || f < low || f > high) {
		n.expected("%g to %g", low, high)
		return 0
	}
	return f
}

func (n node) duration() time.Duration {
	if !n.filled {
		return 0
	}
	s, _ := n.value.(string)
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		n.expected("a duration such as 5s")
		return 0
	}
	return d
}

func (n node) positiveDuration() time.Duration {
	d := n.duration()
	if n.filled && n.value == "0s" {
		n.expected("more than 0s")
	}
	return d
}

var sizeForm = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?)([KMG])i$`)

// bytes is a size, as a plain number or with Ki, Mi or Gi behind it.
func (n node) bytes(low, high float64) float64 {
	if !n.filled {
		return 0
	}
	size := math.NaN()
	switch value := n.value.(type) {
	case json.Number:
		if f, err := value.Float64(); err == nil {
			size = f
		}
	case string:
		if parts := sizeForm.FindStringSubmatch(value); parts != nil {
			f, _ := strconv.ParseFloat(parts[1], 64)
			size = f * map[string]float64{"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[parts[2]]
		}
	}
	if math.IsNaN(size) {
		n.expected("bytes, such as 1024 or 40Gi")
		return 0
	}
	if size < low || size > high {
		n.expected("%.0f to %.0f bytes", low, high)
		return 0
	}
	return math.Floor(size)
}

// written shows a value the way it stands in the file.
func written(value any) string {
	switch value := value.(type) {
	case nil:
		return "null"
	case string:
		return strconv.Quote(value)
	case map[string]any:
		return "{" + strings.Join(slices.Sorted(maps.Keys(value)), ", ") + "}"
	case []any:
		return fmt.Sprintf("a list of %d", len(value))
	default:
		return fmt.Sprint(value)
	}
}

// list joins words for a message: a, b or c.
func list(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
