//go:build integration && linux

package keeper

import (
	"bytes"
	"io"
	"os"
)

// Tail returns the end of a log.
func Tail(path string) string {
	const most = 4 << 10
	file, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err.Error()
	}
	start := max(0, info.Size()-most)
	text, err := io.ReadAll(io.NewSectionReader(file, start, most))
	if err != nil {
		return err.Error()
	}
	if start > 0 {
		_, text, _ = bytes.Cut(text, []byte("\n"))
	}
	return string(text)
}
