package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"gpuvet.dev/detector"
	"gpuvet.dev/dra"
	"gpuvet.dev/internal/node"
)

// readDocument decodes one YAML document into a struct, strictly at every
// level: keys are matched as they are written, and none is passed over. All
// that is wrong is told at once, each with its place, what stands there and
// what was expected. A key without a value counts as left out.
func readDocument(data []byte, into any) error {
	if err := oneDocument(data); err != nil {
		return err
	}
	asJSON, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return errors.New(plainYAML(err))
	}
	var tree any
	decoder := json.NewDecoder(bytes.NewReader(asJSON))
	decoder.UseNumber() // a number is quoted as it was written
	if err := decoder.Decode(&tree); err != nil {
		return err
	}
	var faults []error
	clean := checked("", tree, reflect.TypeOf(into).Elem(), &faults)
	if len(faults) > 0 {
		return errors.Join(faults...)
	}
	if asJSON, err = json.Marshal(clean); err != nil {
		return err
	}
	return json.Unmarshal(asJSON, into)
}

// oneDocument refuses what the YAML library would pass over in silence.
func oneDocument(data []byte) error {
	begun := false
	for i, line := range bytes.Split(data, []byte("\n")) {
		text := bytes.TrimSpace(line)
		switch {
		case len(text) == 0 || text[0] == '#' || text[0] == '%':
		case begun && (bytes.Equal(text, []byte("---")) || bytes.HasPrefix(line, []byte("--- "))):
			return fmt.Errorf("line %d: a second document begins: expected one", i+1)
		default:
			begun = true
		}
	}
	return nil
}

// plainYAML is the library's error without the library.
func plainYAML(err error) string {
	text := err.Error()
	for _, noise := range []string{"error converting YAML to JSON: ", "yaml: ", "unmarshal errors:\n  "} {
		text = strings.TrimPrefix(text, noise)
	}
	return strings.ReplaceAll(text, "\n  ", "\n")
}

// checked compares a value with the type that it is for, and gives it without
// the keys that have no value.
func checked(path string, value any, t reflect.Type, faults *[]error) any {
	fault := func(expected string) {
		*faults = append(*faults, fmt.Errorf("%s: %s: expected %s", path, written(value), expected))
	}
	if value == nil {
		return nil
	}
	if t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct {
		return checkedList(path, value, t, faults)
	}
	if t.Kind() != reflect.Struct || reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()) {
		if json.Unmarshal([]byte(written(value)), reflect.New(t).Interface()) != nil {
			fault(expected(t))
		}
		return value
	}
	fields := keys(t)
	entries, ok := value.(map[string]any)
	if !ok {
		if path == "" {
			path = "file"
		}
		fault("keys " + oneOfThese(slices.Sorted(maps.Keys(fields))))
		return nil
	}
	clean := map[string]any{}
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		at := strings.TrimPrefix(path+"."+key, ".")
		field, known := fields[key]
		if !known {
			*faults = append(*faults, fmt.Errorf("%s: unknown key: expected %s", at, oneOfThese(slices.Sorted(maps.Keys(fields)))))
			continue
		}
		if v := checked(at, entries[key], field, faults); v != nil {
			clean[key] = v
		}
	}
	return clean
}

// checkedList is the same for a list of structs; an item without a value is no
// item.
func checkedList(path string, value any, t reflect.Type, faults *[]error) any {
	items, ok := value.([]any)
	if !ok {
		*faults = append(*faults, fmt.Errorf("%s: %s: expected a list", path, written(value)))
		return nil
	}
	clean := make([]any, 0, len(items))
	for i, item := range items {
		at := fmt.Sprintf("%s[%d]", path, i)
		if item == nil {
			*faults = append(*faults, fmt.Errorf("%s: null: expected keys %s", at, oneOfThese(slices.Sorted(maps.Keys(keys(t.Elem()))))))
			continue
		}
		clean = append(clean, checked(at, item, t.Elem(), faults))
	}
	return clean
}

// keys are those of a struct, by their names in the file. A field with the tag
// file:"-" is for JSON of our own alone.
func keys(t reflect.Type) map[string]reflect.Type {
	all := map[string]reflect.Type{}
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" && f.Tag.Get("file") != "-" {
			all[name] = f.Type
		}
	}
	return all
}

// expected says in words what a type takes.
func expected(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[metav1.Duration]():
		return "a duration such as 5m"
	case reflect.TypeFor[node.TaintMode]():
		return "auto, always or never"
	case reflect.TypeFor[dra.Enabled]():
		return "auto, true or false"
	case reflect.TypeFor[node.Threshold]():
		return "all or a number from 1"
	case reflect.TypeFor[duration]():
		return "a duration of more than zero, such as 720h"
	case reflect.TypeFor[size]():
		return "a number of bytes such as 256Mi, at most 1Ti"
	case reflect.TypeFor[*detector.Span]():
		return "a duration such as 5m"
	case reflect.TypeFor[*int]():
		return "a number"
	case reflect.TypeFor[bool]():
		return "true or false"
	}
	return "text"
}

// written is a value as JSON.
func written(value any) string {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return fmt.Sprint(value)
	}
	return strings.TrimSpace(text.String())
}
