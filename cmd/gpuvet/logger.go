package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-logr/zapr"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"k8s.io/klog/v2"
)

// newLogger logs as text for people or as JSON for collectors.
func newLogger(w io.Writer, format string) *zap.Logger {
	out := zapcore.Lock(zapcore.AddSync(w))
	var core zapcore.Core
	if textual(w, format) {
		core = textLog{LevelEnabler: zap.InfoLevel, out: out}
	} else {
		c := zap.NewProductionEncoderConfig()
		c.EncodeTime = zapcore.RFC3339NanoTimeEncoder
		c.EncodeDuration = zapcore.StringDurationEncoder
		core = zapcore.NewCore(zapcore.NewJSONEncoder(c), out, zap.InfoLevel)
	}
	return zap.New(core)
}

// bridge lets what the Kubernetes libraries log go the same way.
func bridge(log *zap.Logger) {
	klog.SetLogger(zapr.NewLogger(log.Named("kubernetes").WithOptions(zap.IncreaseLevel(zap.WarnLevel))))
}

// textual reports whether people read the log.
func textual(w io.Writer, format string) bool {
	f, ok := w.(*os.File)
	return format == "text" || format == "auto" && ok && terminal(f)
}

func terminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// textLog writes one line per entry: time, level where it is not the usual one,
// message, and the fields that have a value.
//
//	11:46:05 condition raised gpu=3 pci=0000:5d:00.0 reason=GPULost cause="Xid 79" …
type textLog struct {
	zapcore.LevelEnabler
	out  zapcore.WriteSyncer
	with []zapcore.Field
}

// forMachines are the fields that a line for people is better without.
var forMachines = []string{"seq", "uuid", "errorVerbose"}

// With implements zapcore.Core.
func (t textLog) With(fields []zapcore.Field) zapcore.Core {
	t.with = slices.Concat(t.with, fields)
	return t
}

// Check implements zapcore.Core.
func (t textLog) Check(e zapcore.Entry, c *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if t.Enabled(e.Level) {
		return c.AddCore(e, t)
	}
	return c
}

// Write implements zapcore.Core.
func (t textLog) Write(e zapcore.Entry, fields []zapcore.Field) error {
	var line strings.Builder
	line.WriteString(e.Time.Format(time.TimeOnly))
	if e.Level != zap.InfoLevel {
		line.WriteString(" " + e.Level.CapitalString())
	}
	line.WriteString(" " + printed(e.Message))
	cause := ""
	for _, f := range slices.Concat(t.with, fields) {
		text := fieldText(f)
		switch {
		case text == "" || slices.Contains(forMachines, f.Key):
		case f.Type == zapcore.ErrorType:
			cause = ": " + printed(text)
		case strings.ContainsAny(text, ` "=`) || printed(text) != text:
			line.WriteString(" " + f.Key + "=" + strconv.Quote(text))
		default:
			line.WriteString(" " + f.Key + "=" + text)
		}
	}
	line.WriteString(cause + "\n")
	_, err := t.out.Write([]byte(line.String()))
	return err
}

// Sync implements zapcore.Core.
func (t textLog) Sync() error { return t.out.Sync() }

// fieldText is the value of a field; empty if it has none.
func fieldText(f zapcore.Field) string {
	fields := zapcore.NewMapObjectEncoder()
	f.AddTo(fields)
	switch v := fields.Fields[f.Key].(type) {
	case nil:
		return ""
	case []any:
		words := make([]string, len(v))
		for i := range v {
			words[i] = fmt.Sprint(v[i])
		}
		return strings.Join(words, ",")
	default:
		return fmt.Sprint(v)
	}
}

// printed is text on one line without control characters: some of it comes
// from outside.
func printed(s string) string {
	q := strconv.Quote(s)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}
