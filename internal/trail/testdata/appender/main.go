// Command appender appends records 1 to N to the trail in a folder, for tests
// that kill it at a fault point. Usage: appender FOLDER N MAXSEGMENTBYTES MAXBYTES
package main

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"gpuvet.dev/internal/trail"
)

func main() {
	if err := appendAll(os.Args[1], number(os.Args[2]), trail.Options{
		MaxSegmentBytes: number(os.Args[3]), MaxBytes: number(os.Args[4]), Boot: "boot",
	}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func appendAll(folder string, n int64, o trail.Options) error {
	t, err := trail.Open(folder, o)
	if err != nil {
		return err
	}
	for i := range n {
		r := trail.Record{ID: fmt.Sprintf("boot/kmsg/%d", i+1), Kind: "Xid", Time: time.Unix(i, 0)}
		if _, err := t.Append(r); err != nil {
			return err
		}
	}
	return nil // no Close: what is not in the file by now is lost
}

func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}
