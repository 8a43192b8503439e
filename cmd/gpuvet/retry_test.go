package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

func TestFailureIsTriedAgainAndToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithTimeout(t.Context(), time.Hour)
		defer stop()
		core, logs := observer.New(zapcore.InfoLevel)
		began, tries := time.Now(), 0
		var told []string
		retry(ctx, zap.New(core), "log", func(ctx context.Context) error {
			tries++
			switch {
			case tries == 20: // it went well for a while
				time.Sleep(time.Minute)
				return errors.New("gone")
			case tries < 40:
				return errors.New("gone")
			default:
				return nil
			}
		})
		for _, e := range logs.All() {
			told = append(told, e.Message)
		}
		if got := strings.Join(told, ", "); got != "log; trying again, log; trying again" {
			t.Errorf("told %q, want the failure once before and once after it went well", got)
		}
		// From 0.1 s doubling to 10 s, twice: 7 pauses of 12.7 s, the rest of 10 s.
		if took := time.Since(began); took < 4*time.Minute || took > 7*time.Minute || tries != 40 {
			t.Errorf("%d tries took %s", tries, took)
		}
	})
}

func TestTryingAgainEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		retry(ctx, zap.NewNop(), "log", func(context.Context) error { return errors.New("gone") })
		if ctx.Err() == nil {
			t.Error("it gave up")
		}
	})
}
