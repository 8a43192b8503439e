package parts

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestStepSpeaksOnlyWhenItTakesLong(t *testing.T) {
	for _, tt := range []struct {
		name string
		long time.Duration
		want string
	}{
		{"short", time.Second, ""},
		{"long", 20 * time.Second, "e2e: baking: 2s so far\ne2e: baking: 17s so far\ne2e: baking: done in 20s\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var said strings.Builder
				if err := step(&said, "baking", func() error { <-time.After(tt.long); return nil }); err != nil {
					t.Error(err)
				}
				if said.String() != tt.want {
					t.Errorf("said %q, want %q", said.String(), tt.want)
				}
			})
		})
	}
}

func TestStepReturnsTheErrorOfItsWork(t *testing.T) {
	burnt := errors.New("burnt")
	if err := step(&strings.Builder{}, "baking", func() error { return burnt }); !errors.Is(err, burnt) {
		t.Errorf("got %v, want %v", err, burnt)
	}
}
