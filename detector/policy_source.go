package detector

import "gpuvet.dev/detector/xid"

// bucketSource names the bucket of NVIDIA's catalogue that a verdict is read
// from, and the category where that decides as well.
func bucketSource(e xid.Entry) string {
	source := "catalogue " + e.Bucket
	if e.Bucket == "RESTART_APP" {
		source += ", category " + e.Category
	}
	return source
}

// disagreements are the Xids on which the systems in use decide differently:
// what we do and why, then who does otherwise. Read from the sources of gpud,
// NVIDIA's k8s-device-plugin, DCGM's health watches, the EKS node monitoring
// agent, GKE's device plugin, Meta's gcm and Azure's HPC health checks, 2026.
var disagreements = map[int]string{
	42: unused + "gpud calls it fatal, DCGM warns of PCIe.",
	45: "The driver tears down a channel, mostly because of a fault before: a symptom of that one, and alone the application's; it never condemns by itself. " +
		"NVIDIA's workbook restarts the Fabric Manager where it stands alone, its newer text the application; in the field it comes in storms that systems without a cause took for fatal.",
	48: "The driver could not correct an error of the memory: the GPU is fenced until it was reset, and with Xid 63 or 64 the work leaves first. " +
		"All agree that it is bad; the EKS agent, GKE and Azure's checks condemn the whole node for it.",
	56: unused + "Azure's checks fail the node, DCGM warns of power.",
	57: unused + "Azure's checks fail the node, DCGM warns of power.",
	58: unused + "Azure's checks fail the node, DCGM warns of power.",
	61: unused + "gpud calls it fatal, DCGM warns of heat.",
	63: "A row remap was recorded, which is a repair: whether a reset is due, NVML's row-remap pending says, and pending alone shows the GPU as Degraded. " +
		"The EKS agent, GKE, Azure's checks and gpud without row remapping call it fatal, k8s-device-plugin marks the device; gcm does not.",
	68: "An error of the video decoder ends the process that used it, as the catalogue says. " +
		"gpud calls it fatal and Azure's checks fail the node; k8s-device-plugin and gcm ignore it.",
	69: "The engine was given a method or value that it does not take: the application's, as the catalogue says. " +
		"gpud and gcm call it fatal, k8s-device-plugin marks the device and Azure's checks fail the node.",
	80: "The commands that the application sent are damaged: the application's, as the catalogue says. " +
		"gcm calls it critical, k8s-device-plugin marks the device and Azure's checks fail the node.",
	92: "Errors that were all corrected: information, as the catalogue says; what they lead to has codes of its own. " +
		"k8s-device-plugin marks the device and Azure's checks fail the node; gcm ignores it.",
	94: "The error was contained to one process, which must be started again; Xid 95 or 154 promotes it. " +
		"gpud calls it fatal and reboots, gcm calls it critical, k8s-device-plugin marks the device, DCGM warns.",
	109: "A context switch timed out: the catalogue resets the GPU. " +
		"The EKS agent calls it fatal; k8s-device-plugin and gcm ignore it, gpud warns.",
}

const unused = "The catalogue calls it unused, so it is information to be watched, and the driver's recovery action decides. "
