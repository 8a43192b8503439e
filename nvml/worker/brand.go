//go:build cgo

package worker

import binding "github.com/NVIDIA/go-nvml/pkg/nvml"

// brand is a brand as NVIDIA's DRA driver writes it (go-nvlib, GetBrandAsString);
// empty for one that is unknown or newer than this.
func brand(code binding.BrandType) string {
	switch code {
	case binding.BRAND_QUADRO:
		return "Quadro"
	case binding.BRAND_TESLA:
		return "Tesla"
	case binding.BRAND_NVS:
		return "NVS"
	case binding.BRAND_GRID:
		return "Grid"
	case binding.BRAND_GEFORCE:
		return "GeForce"
	case binding.BRAND_TITAN:
		return "Titan"
	case binding.BRAND_NVIDIA_VAPPS:
		return "NvidiaVApps"
	case binding.BRAND_NVIDIA_VPC:
		return "NvidiaVPC"
	case binding.BRAND_NVIDIA_VCS:
		return "NvidiaVCS"
	case binding.BRAND_NVIDIA_VWS:
		return "NvidiaVWS"
	case binding.BRAND_NVIDIA_CLOUD_GAMING:
		return "NvidiaCloudGaming"
	case binding.BRAND_QUADRO_RTX:
		return "QuadroRTX"
	case binding.BRAND_NVIDIA_RTX:
		return "NvidiaRTX"
	case binding.BRAND_NVIDIA:
		return "Nvidia"
	case binding.BRAND_GEFORCE_RTX:
		return "GeForceRTX"
	case binding.BRAND_TITAN_RTX:
		return "TitanRTX"
	}
	return ""
}
