package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func TestEveryCommandAndFlagIsExplained(t *testing.T) {
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: short help is %q", cmd.CommandPath(), cmd.Short)
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" || strings.ToLower(f.Usage[:1]) != f.Usage[:1] {
				t.Errorf("%s --%s: help is %q", cmd.CommandPath(), f.Name, f.Usage)
			}
		})
		for _, c := range cmd.Commands() {
			visit(c)
		}
	}
	visit(rootCommand())
}

func TestHelpTexts(t *testing.T) {
	t.Setenv("NODE_NAME", "")
	// Who is not root has other places.
	places := strings.NewReplacer(defaultStateDir(), "/var/lib/gpuvet", defaultSocket(), "/run/gpuvet/gpuvet.sock")
	golden(t, "help.txt", output(t, "", "--help"))
	golden(t, "help-run.txt", places.Replace(output(t, "", "run", "--help")))
	if got := output(t, "", []string{}...); got != output(t, "", "--help") {
		t.Errorf("gpuvet alone prints\n%s", got)
	}
}

func TestTestSwitchIsNotAdvertised(t *testing.T) {
	if help := output(t, "", "run", "--help"); strings.Contains(help, "accept-user-kernel-lines") {
		t.Error("it is in the help")
	}
}

func TestVersionIsOneLine(t *testing.T) {
	got := output(t, "", "version")
	if fields := strings.Fields(got); len(fields) != 4 || fields[0] != "gpuvet" || strings.Count(got, "\n") != 1 {
		t.Errorf("got %q", got)
	}
}
