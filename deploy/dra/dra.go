// Package dra holds what ships for clusters that hand out GPUs by Dynamic Resource
// Allocation: the DeviceClasses, and claims to begin with.
package dra

import _ "embed"

// Classes is the DeviceClasses, as the YAML documents of classes.yaml.
//
//go:embed classes.yaml
var Classes []byte
