// Command hit passes one fault point three times and says how far it came.
package main

import "gpuvet.dev/internal/faultpoint"

func main() {
	for i := range 3 {
		faultpoint.Hit("here")
		println("passed", i+1)
	}
}
