//go:build !(journal && cgo)

package main

import "testing"

func TestJournalInABuildWithoutItIsRefused(t *testing.T) {
	for _, path := range []string{"journal", "journal:/var/log/journal"} {
		startsNothing(t, []string{"--kernel-log", path}, "--kernel-log "+path, "built without the journal", "-tags journal and cgo")
	}
}
