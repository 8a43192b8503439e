package parts

import (
	"fmt"
	"io"
	"time"
)

// step runs do and, once it takes longer than two seconds, says what is going
// on and how long it has been going on.
func step(progress io.Writer, what string, do func() error) error {
	started := time.Now()
	done := make(chan error, 1)
	go func() { done <- do() }()
	next := time.NewTimer(2 * time.Second)
	defer next.Stop()
	told := false
	for {
		select {
		case err := <-done:
			if told && err == nil {
				fmt.Fprintf(progress, "e2e: %s: done in %s\n", what, time.Since(started).Round(time.Second))
			}
			return err
		case <-next.C:
			fmt.Fprintf(progress, "e2e: %s: %s so far\n", what, time.Since(started).Round(time.Second))
			told = true
			next.Reset(15 * time.Second)
		}
	}
}
