package volume

import "os"

// What the tests look at beside the API.
var (
	ParseMounts        = parseMounts
	IsMountRootByTable = func(f *os.File) (bool, error) { return isMountRootByTable(f) }
)
