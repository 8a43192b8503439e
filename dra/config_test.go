package dra

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestConfigNamesWhatCannotBeUsed(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("the default: %v", err)
	}
	bad := Config{Enabled: "maybe", CDI: "nvcdi", CDIKind: "gpu", Preflight: "quick"}
	want := `dra.enabled: "maybe": expected auto, true or false
dra.cdi: "nvcdi": expected delegate, minimal or none
dra.cdiKind: "gpu": expected VENDOR/CLASS such as nvidia.com/gpu
dra.preflight: "quick": expected state or none`
	if err := bad.Validate(); err == nil || err.Error() != want {
		t.Errorf("%v\nwant:\n%s", err, want)
	}
}

func TestEnabledIsAWordOrABoolean(t *testing.T) {
	for text, want := range map[string]Enabled{`"auto"`: EnabledAuto, `true`: EnabledTrue, `false`: EnabledFalse} {
		var got Enabled
		if err := json.Unmarshal([]byte(text), &got); err != nil || got != want {
			t.Errorf("%s: %q, %v", text, got, err)
		}
		if again, err := json.Marshal(got); err != nil || string(again) != text {
			t.Errorf("%q is written %s, %v", got, again, err)
		}
	}
	for _, text := range []string{`"true"`, `"on"`, `1`} {
		var got Enabled
		if err := json.Unmarshal([]byte(text), &got); err == nil || !strings.Contains(err.Error(), "expected auto, true or false") {
			t.Errorf("%s: %q, %v", text, got, err)
		}
	}
}
