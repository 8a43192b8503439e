package pool

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"gpuvet.dev/nvml"
)

const (
	maxLabel = 63 // bytes of a DNS label
	maxValue = 64 // bytes of an attribute's string or version
)

// name is that of a device in its pool. Two MIG devices with the same name are the
// same cut of the same GPU, whenever they were made.
func name(pci string, i *nvml.Instance) string {
	gpu := "gpu-" + label(pci)
	if i == nil {
		return gpu
	}
	place := fmt.Sprintf("gi%d", i.GPUInstance)
	if i.Start.OK && i.Size.OK {
		place = fmt.Sprintf("%d-%d", i.Start.Value, i.Size.Value)
	}
	full := fmt.Sprintf("%s-mig-%s-%s-%d", gpu, profile(i.Profile), place, i.ComputeInstance)
	if len(full) > maxLabel {
		return fmt.Sprintf("%s-mig-%s-%d", gpu, place, i.ComputeInstance)
	}
	return full
}

// signs tell 1g.24gb+me, with the media engines, from 1g.24gb-me, without them.
var signs = strings.NewReplacer("+", "-with-", "-", "-without-")

// profile is a MIG profile as a part of a label.
func profile(text string) string { return label(signs.Replace(text)) }

// label is text in the letters of a DNS label.
func label(text string) string {
	return strings.Trim(strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		default:
			return '-'
		}
	}, text), "-")
}

// version is what NVIDIA writes, 9.0 or 570.195.03, as a semantic version, 9.0.0 or
// 570.195.3.
func version(text string) (semantic string, ok bool) {
	parts := strings.Split(text, ".")
	if len(parts) > 3 {
		return "", false
	}
	numbers := [3]uint64{}
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 10, 32)
		if err != nil {
			return "", false
		}
		numbers[i] = n
	}
	return fmt.Sprintf("%d.%d.%d", numbers[0], numbers[1], numbers[2]), true
}

// short is text that fits into an attribute. What is longer is cut: a device without
// the attribute would make whoever selects by it get no device at all.
func short(text string) string {
	text = strings.ToValidUTF8(text, "")
	if len(text) <= maxValue {
		return text
	}
	end := maxValue
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end]
}
