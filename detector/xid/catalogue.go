package xid

import (
	"bytes"
	_ "embed" // the catalogues
	"encoding/csv"
	"fmt"
	"slices"
	"strconv"
	"sync"
)

// Entry is what is known of an Xid. Fields that nobody documents are empty.
type Entry struct {
	Code     int
	Name     string // the driver's enumerator
	Meaning  string // a short phrase for people
	Category string // user-app, software, driver, hardware, link or other

	// Bucket is the action that NVIDIA's catalogue recommends at once. A "?"
	// behind it marks our reading of the catalogue's prose; UNSPECIFIED means
	// that nobody says.
	Bucket        string
	FatalTo       string // process, device, none, …
	Investigatory string // what the catalogue recommends for finding the cause
	Since         string // the driver from which on Xid 154 accompanies it
	Notes         string
	Source        string
}

// SwitchEntry is what is known of an SXid.
type SwitchEntry struct {
	Code   int
	Name   string // the driver's enumerator, without NVSWITCH_ERR_
	Class  string // by-message, notable, non-fatal, fatal(partition) or always-fatal(host)
	Action string
	Notes  string
	Source string
}

// Lookup gives the catalogue's entry of an Xid.
func Lookup(code int) (Entry, bool) {
	return find(xidCatalogue(), code, func(e Entry) int { return e.Code })
}

// All gives the whole Xid catalogue by code. The slice is the caller's.
func All() []Entry { return slices.Clone(xidCatalogue()) }

// LookupSwitch gives the catalogue's entry of an SXid.
func LookupSwitch(code int) (SwitchEntry, bool) {
	return find(switchCatalogue(), code, func(e SwitchEntry) int { return e.Code })
}

// AllSwitch gives the whole SXid catalogue by code. The slice is the caller's.
func AllSwitch() []SwitchEntry { return slices.Clone(switchCatalogue()) }

var (
	//go:embed catalogue/xid.csv
	xidCSV []byte
	//go:embed catalogue/sxid.csv
	switchCSV []byte

	xidCatalogue = sync.OnceValue(func() []Entry {
		return load("xid.csv", xidCSV, 10, func(row []string) Entry {
			return Entry{
				Code: number(row[0]), Name: row[1], Meaning: row[2], Category: row[3], Bucket: row[4],
				FatalTo: row[5], Investigatory: row[6], Since: row[7], Notes: row[8], Source: row[9],
			}
		})
	})
	switchCatalogue = sync.OnceValue(func() []SwitchEntry {
		return load("sxid.csv", switchCSV, 6, func(row []string) SwitchEntry {
			return SwitchEntry{Code: number(row[0]), Name: row[1], Class: row[2], Action: row[3], Notes: row[4], Source: row[5]}
		})
	})
)

func find[E any](entries []E, code int, key func(E) int) (E, bool) {
	i, ok := slices.BinarySearchFunc(entries, code, func(e E, code int) int { return key(e) - code })
	if !ok {
		var none E
		return none, false
	}
	return entries[i], true
}

// load reads an embedded table behind its header line. The files are part of the program:
// a bad row is a bug of ours, and panics.
func load[E any](name string, file []byte, columns int, entry func(row []string) E) []E {
	reader := csv.NewReader(bytes.NewReader(file))
	reader.FieldsPerRecord = columns
	rows, err := reader.ReadAll()
	if err != nil {
		panic(fmt.Sprintf("catalogue/%s: %v", name, err))
	}
	entries := make([]E, 0, len(rows))
	for _, row := range rows[1:] {
		entries = append(entries, entry(row))
	}
	return entries
}

// number is a code of an embedded table.
func number(field string) int {
	n, err := strconv.Atoi(field)
	if err != nil {
		panic(fmt.Sprintf("catalogue: code %q: %v", field, err))
	}
	return n
}
